"""Under ``compliance = piv`` nothing is written to a card in use at its holder's own computer over an open channel."""

from __future__ import annotations

from datetime import UTC, date, datetime
from uuid import uuid4

import pytest

from cardwright_cardops.piv import containers
from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.inventory import Identity
from cardwright_cardops.plan.steps import GenerateKey, Plan, SetPin, WriteCertificate, WriteObject
from cardwright_server.policies.document import read, shipped
from cardwright_server.policies.errors import ComplianceRefused
from cardwright_server.sessions.authority import BIOMETRIC, require_allowed
from cardwright_server.sessions.errors import EnrolmentMissing
from cardwright_server.sessions.failures import failure_of
from cardwright_server.sessions.model import Purpose
from cardwright_server.sessions.ports import Task

RENEWAL = (GenerateKey(Slot.AUTHENTICATION, Algorithm.P256), WriteCertificate(Slot.AUTHENTICATION, Algorithm.P256))
"""No secret in it goes in clear, and the card states where it made the key: only the standard is against it."""
CASES = {
    Purpose.UPDATE: (RENEWAL, "NOT_SEALED"),
    Purpose.REISSUE: (RENEWAL, "NOT_SEALED"),
    Purpose.UNLOCK: ((SetPin(),), "PIN_RESET_NOT_BOUND"),
    Purpose.UNLOCK_ASSISTED: ((SetPin(),), "PIN_RESET_NOT_BOUND"),
    Purpose.FORGOTTEN_PIN: ((SetPin(),), "PIN_RESET_NOT_BOUND"),
}


def allowed(purpose: Purpose, steps: tuple[object, ...], policy: str, *, trusted: bool) -> None:
    task = Task(uuid4(), uuid4(), purpose, read(shipped(policy)), uuid4(), date(2030, 1, 1), trusted=trusted)
    plan, now = Plan(policy, Identity(), steps), datetime(2029, 1, 1, tzinfo=UTC)  # type: ignore[arg-type]
    require_allowed(plan, task, now, attests=True)


@pytest.mark.parametrize("purpose", CASES)
def test_what_fips_201_refuses_at_a_distance(purpose: Purpose) -> None:
    steps, code = CASES[purpose]
    with pytest.raises(ComplianceRefused) as refused:
        allowed(purpose, steps, "piv", trusted=False)
    assert refused.value.reasons == (code,) and "section 2.9" in str(refused.value)
    failure = failure_of(refused.value, wrote=False)
    assert failure is not None and failure.retryable, "at a station it may be done"
    allowed(purpose, steps, "piv", trusted=True)
    allowed(purpose, steps, "civ", trusted=False)
    allowed(purpose, (), "piv", trusted=False)


@pytest.mark.parametrize("tag", sorted(BIOMETRIC))
def test_records_that_no_enrolment_took_are_missed_before_anything_is_written(tag: int) -> None:
    with pytest.raises(EnrolmentMissing) as refused:
        allowed(Purpose.ISSUE, (*RENEWAL, WriteObject(tag)), "civ", trusted=True)
    assert containers.CONTAINERS[tag].name in str(refused.value)
    failure = failure_of(refused.value, wrote=False)
    assert failure is not None and failure.retryable and failure.consistent
    allowed(Purpose.ISSUE, (*RENEWAL, WriteObject(containers.CHUID.tag)), "civ", trusted=True)
