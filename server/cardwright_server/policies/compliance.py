"""What FIPS 201-3 does not allow, as data: under ``compliance = piv`` the server refuses it, and says why.

``refusals`` judges acts; ``publication`` judges a policy document before anything is done under it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from uuid import UUID

from cardwright_cardops.piv import containers
from cardwright_cardops.piv.algorithms import Algorithm, ManagementAlgorithm, PinPolicy
from cardwright_cardops.piv.references import Slot

from .errors import ComplianceRefused
from .model import ClearSecrets, DeviceKind, Policy, UnlockMethod

VALIDITY = timedelta(days=2192)
"""Six years, two of which may be leap years (section 2.8)."""
REVOCATION = timedelta(hours=18)
"""How long after notice a revocation may take (sections 2.9.1 and 2.9.4)."""


class Place(StrEnum):
    """Where something is done with a card."""

    STATION = "station"
    """In person, at an issuer's station with an operator."""
    SUPERVISED = "supervised"
    """A supervised remote identity proofing station."""
    KIOSK = "kiosk"
    REMOTE = "remote"
    """The holder's own computer."""


class ActKind(StrEnum):
    """Acts that the standard has rules for."""

    ISSUE = "issue"
    REISSUE = "re-issue"
    UPDATE = "update"
    RESET_PIN = "reset-pin"
    TERMINATE = "terminate"


class IdentityField(StrEnum):
    """What an update must leave as it is."""

    EXPIRY = "expiry"
    FASCN = "fasc-n"
    CARD_UUID = "card-uuid"
    CARDHOLDER_UUID = "cardholder-uuid"


@dataclass(frozen=True, slots=True)
class Act:
    """What is about to be done, as far as the standard cares.

    ``parts`` are the persons who asked, approved and carry it out (UUIDs of persons, doubles show that one person did
    two things). ``biometric``: the holder was compared with the biometric record, on the card or off it; ``on_card``
    that the card did it. ``documents`` is the number of identity documents inspected. ``owner_confirmed``: an operator
    authenticated the owner by a procedure of its own. ``revoked_within`` is how long after notice revocation is done.
    """

    kind: ActKind
    place: Place = Place.REMOTE
    parts: tuple[UUID, ...] = ()
    biometric: bool = False
    on_card: bool = False
    card_authenticated: bool = False
    documents: int = 0
    operator: bool = False
    owner_confirmed: bool = False
    sealed: bool = False
    changes: frozenset[IdentityField] = frozenset()
    validity: timedelta = timedelta(0)
    new_numbers: bool = True
    new_signature_key: bool = True
    revoked_within: timedelta = timedelta(0)
    disposition: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One rule that an act breaks: a stable code, the section of FIPS 201-3, and a sentence."""

    code: str
    section: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Rule:
    refusal: Refusal
    kinds: frozenset[ActKind]
    broken: Callable[[Act], bool]


def _rule(code: str, section: str, kinds: tuple[ActKind, ...], broken: Callable[[Act], bool], reason: str) -> _Rule:
    return _Rule(Refusal(code, section, reason), frozenset(kinds), broken)


def _reset_is_bound_to_person(act: Act) -> bool:
    match act.place:
        case Place.STATION:
            return act.biometric or act.documents >= 1
        case Place.SUPERVISED:
            return act.biometric
        case Place.KIOSK:
            return act.biometric and act.card_authenticated
        case Place.REMOTE:
            return act.operator and act.owner_confirmed and act.biometric and act.on_card


_ISSUES = (ActKind.ISSUE, ActKind.REISSUE)
RULES: tuple[_Rule, ...] = (
    _rule(
        "ONE_PERSON_ALONE",
        "2.8",
        _ISSUES,
        lambda act: len(set(act.parts)) < 2 or len(set(act.parts)) < len(act.parts),
        "no single person issues a card: those who ask, approve and issue are different persons",
    ),
    _rule(
        "NOT_IN_PERSON",
        "2.8",
        _ISSUES,
        lambda act: act.place not in (Place.STATION, Place.SUPERVISED),
        "a PIV Card is handed over in person or at a supervised station",
    ),
    _rule(
        "IDENTITY_NOT_CHECKED",
        "2.8",
        _ISSUES,
        lambda act: not act.biometric and act.documents < 2,
        "the holder is compared with the biometric record, or by two identity documents",
    ),
    _rule(
        "VALID_TOO_LONG",
        "2.8",
        _ISSUES,
        lambda act: act.validity > VALIDITY,
        "a PIV Card is valid for six years at most",
    ),
    _rule(
        "NUMBERS_KEPT",
        "2.9.1",
        (ActKind.REISSUE,),
        lambda act: not act.new_numbers,
        "a re-issued card has a new FASC-N and card UUID",
    ),
    _rule(
        "SIGNATURE_KEY_KEPT",
        "2.9.1",
        (ActKind.REISSUE,),
        lambda act: not act.new_signature_key,
        "a re-issued card has a new signature key",
    ),
    _rule(
        "REVOKED_TOO_LATE",
        "2.9.1",
        (ActKind.REISSUE, ActKind.TERMINATE),
        lambda act: act.revoked_within > REVOCATION,
        "revocation is finished within 18 hours of notice",
    ),
    _rule(
        "IDENTITY_CHANGED",
        "2.9.2",
        (ActKind.UPDATE,),
        lambda act: bool(act.changes),
        "an update does not change expiry, FASC-N, card UUID or cardholder UUID",
    ),
    _rule(
        "NOT_SEALED",
        "2.9.2",
        (ActKind.UPDATE,),
        lambda act: act.place is Place.REMOTE and not act.sealed,
        "a remote update goes over a mutually authenticated, encrypted session with the card itself",
    ),
    _rule(
        "PIN_RESET_NOT_BOUND",
        "2.9.3",
        (ActKind.RESET_PIN,),
        lambda act: not _reset_is_bound_to_person(act),
        "a PIN is reset in person, at a kiosk or supervised station with a biometric comparison, or remotely with an "
        "operator, an owner who was authenticated independently, and a comparison on the card",
    ),
    _rule(
        "DISPOSITION_MISSING",
        "2.9.4",
        (ActKind.TERMINATE,),
        lambda act: not act.disposition,
        "the record of a termination says how: collected and destroyed, or certificates revoked",
    ),
)
"""Every rule for acts."""


def refusals(policy: Policy, act: Act) -> tuple[Refusal, ...]:
    """The rules that an act breaks under a policy; none unless the policy claims compliance."""
    if not policy.strict:
        return ()
    return tuple(rule.refusal for rule in RULES if act.kind in rule.kinds and rule.broken(act))


def require(policy: Policy, act: Act) -> None:
    """Raise ComplianceRefused for an act that ``refusals`` finds something against."""
    if found := refusals(policy, act):
        raise refused(found)


def refused(found: tuple[Refusal, ...]) -> ComplianceRefused:
    """The error for broken rules."""
    sentences = [f"{one.reason} (FIPS 201-3 section {one.section})" for one in found]
    return ComplianceRefused(sentences, [one.code for one in found])


def publication(policy: Policy) -> tuple[Refusal, ...]:
    """What forbids a policy to claim compliance at all; none if it does not claim it."""
    return tuple(_unfit(policy)) if policy.strict else ()


_APPROVED = frozenset({Algorithm.RSA2048, Algorithm.RSA3072, Algorithm.P256, Algorithm.P384})
_MANDATORY = {
    "CHUID": containers.CHUID.tag,
    "facial image": containers.FACIAL_IMAGE.tag,
    "fingerprints": containers.FINGERPRINTS.tag,
    "Security Object": containers.SECURITY_OBJECT.tag,
}


def _unfit(policy: Policy) -> Iterator[Refusal]:
    slots = {row.slot: row for row in policy.card.slots}
    secrets = policy.card.secrets
    if policy.device_kinds - {DeviceKind.SMART_CARD, DeviceKind.VIRTUAL_CARD}:
        yield Refusal("NO_CARD", "4.1", "a PIV Card is a card; keys, tokens and phones hold derived credentials")
    for slot, what in ((Slot.AUTHENTICATION, "PIV authentication"), (Slot.CARD_AUTHENTICATION, "card authentication")):
        if slot not in slots:
            yield Refusal("KEY_MISSING", "4.2.2", f"a PIV Card has a key for {what}")
    for row in slots.values():
        if row.algorithm not in _APPROVED:
            yield Refusal("ALGORITHM_NOT_APPROVED", "4.2.2", f"SP 800-78-5 has no {row.algorithm.label}")
    signature = slots.get(Slot.SIGNATURE)
    if signature is not None and signature.effective_pin_policy is not PinPolicy.ALWAYS:
        yield Refusal("SIGNATURE_WITHOUT_PIN", "4.2.2.4", "the signature key asks for the PIN each time")
    for slot in (Slot.AUTHENTICATION, Slot.KEY_MANAGEMENT):
        if slot in slots and slots[slot].effective_pin_policy is PinPolicy.NEVER:
            yield Refusal("KEY_WITHOUT_PIN", "4.2.2", f"the key in {slot.label} asks for the PIN")
    for name, tag in _MANDATORY.items():
        if tag not in policy.card.objects:
            yield Refusal("OBJECT_MISSING", "4.2", f"a PIV Card holds a {name}")
    if policy.pin.min_length < 6 or not policy.pin.digits_only:
        yield Refusal("PIN_TOO_WEAK", "4.3.1", "a PIN is numeric and has six digits at least")
    if not (policy.pin.refuse_trivial and policy.pin.refuse_common):
        yield Refusal("PIN_EASILY_GUESSED", "4.3.1", "people are kept from PINs that are easily guessed")
    if secrets.retries is None or secrets.retries[0] > 10:
        yield Refusal("PIN_TRIES", "4.3.1", "ten wrong PINs in a row block the card, or fewer")
    if not secrets.management_key or secrets.management_algorithm in (None, ManagementAlgorithm.TDES):
        yield Refusal("ADMINISTRATION_KEY", "4.3.2", "each card has an administration key of its own, for AES")
    if not secrets.puk:
        yield Refusal("PUK_NOT_OWN", "2.9.3", "each card has a PUK of its own")
    if policy.clear_secrets is not ClearSecrets.NEVER:
        yield Refusal("CLEAR_SECRETS", "2.9.2", "administrative secrets reach the card over a sealed channel only")
    if policy.validity > VALIDITY:
        yield Refusal("VALID_TOO_LONG", "2.8", "a PIV Card is valid for six years at most")
    if policy.self_bind:
        yield Refusal("SELF_BOUND", "2.8", "stock is in the issuer's care until it is handed over")
    if policy.unlock - {UnlockMethod.OPERATOR}:
        yield Refusal("UNLOCK_BY_KNOWLEDGE", "2.9.3", "no password or answer alone resets a PIN")
