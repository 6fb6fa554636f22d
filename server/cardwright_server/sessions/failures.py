"""Which ends of a session are failures of its request, and which only put it off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.iso7816.status import StatusError
from cardwright_cardops.piv.management_key import ManagementKeyRefused
from cardwright_cardops.plan.authority import AuthorityRefused
from cardwright_cardops.plan.candidates import ManagementKeyUnknown, PukBlocked, PukUnknown
from cardwright_cardops.plan.capabilities import CapabilityMissing
from cardwright_cardops.plan.execute import CertificateUnfit, ObjectTooLarge, ReadBackDiffers
from cardwright_cardops.plan.planner import KeyInUse, RetiredSlotsFull, SelfSigningImpossible

from ..issuance.errors import CertificateRefused
from ..people.errors import FieldMissing
from ..policies.errors import ComplianceRefused
from .errors import CardEnds, CardNotProven, ClearSecretsRefused, EnrolmentMissing, NotAtGoal, OriginTooWeak

FOR_GOOD: Final = (
    CapabilityMissing,
    CardEnds,
    KeyInUse,
    ObjectTooLarge,
    PukBlocked,
    RetiredSlotsFull,
    SelfSigningImpossible,
)
"""This card can never be as the request wants it."""
MAY_PASS: Final = (
    AuthorityRefused,
    CardNotProven,
    CertificateRefused,
    CertificateUnfit,
    ClearSecretsRefused,
    ComplianceRefused,
    EnrolmentMissing,
    FieldMissing,
    ManagementKeyRefused,
    ManagementKeyUnknown,
    NotAtGoal,
    OriginTooWeak,
    PukUnknown,
    ReadBackDiffers,
    StatusError,
)
"""Another try may succeed: at another station, after a change of the policy, or when the authority thinks otherwise."""


@dataclass(frozen=True, slots=True)
class Failure:
    """``consistent``: the card is as it was before the session."""

    retryable: bool
    consistent: bool


def failure_of(error: CardwrightError, *, wrote: bool) -> Failure | None:
    """What an end by ``error`` is to the request; None where the next session just goes on.

    So it is with a lost line, a person who did not agree, another card in the reader, a vault or database that is away.
    A card in the middle of its steps goes on too, unless it can never reach the end.
    """
    if isinstance(error, FOR_GOOD):
        return Failure(False, not wrote)
    if isinstance(error, MAY_PASS) and not wrote:
        return Failure(True, True)
    return None
