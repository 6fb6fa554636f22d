"""A policy's document: TOML in, a checked ``Policy`` out. Nothing unknown, nothing contradictory passes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import timedelta
from importlib import resources
from typing import Annotated, Literal

import msgspec

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.piv.algorithms import UnsupportedAlgorithm
from cardwright_cardops.piv.references import Slot, UnknownSlot
from cardwright_cardops.plan.pin_rules import PinRules, PinRulesMalformed
from cardwright_cardops.plan.policy import DevicePolicy, KeySource, SlotPolicy

from .errors import PolicyContradictory, PolicyInvalid
from .model import ClearSecrets, Compliance, DeviceKind, Origin, Policy, UnlockMethod

LONGEST = 65536
SHIPPED = ("piv", "piv-i", "civ", "smartcard-logon", "developer")
PROFILES = frozenset({"piv-authentication", "card-authentication", "signature", "key-management"})
"""Certificate profiles for card keys that a new vault signs under."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=60, pattern=r"^[a-z0-9][a-z0-9._-]*\Z")]
Count = Annotated[int, msgspec.Meta(ge=1, le=255)]
Days = Annotated[int, msgspec.Meta(ge=1, le=7320)]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class PinPart(_Part, frozen=True):
    """``[pin]``: rules for people, and the card's tries (``retries`` needs those of the PUK, too)."""

    min_length: int = 6
    max_length: int = 8
    digits_only: bool = True
    refuse_trivial: bool = True
    refuse_common: bool = True
    differs: bool = True
    retries: Count | None = None


class PukPart(_Part, frozen=True):
    """``[puk]``: whether it is set to a value of the card's own, and its tries."""

    own: bool = True
    retries: Count | None = None


class ManagementKeyPart(_Part, frozen=True):
    """``[management_key]``: whether it is set to a value of the card's own, its algorithm, and touch."""

    own: bool = True
    algorithm: Literal["tdes", "aes128", "aes192", "aes256"] | None = None
    touch: bool = False


class TokenPart(_Part, frozen=True):
    """``[token]``: of PKCS#11 tokens only. ``delete_superseded``: keys that were certified once and that the policy
    names no more are deleted; else they stay."""

    delete_superseded: bool = False


class EscrowPart(_Part, frozen=True):
    """``[escrow]``: whether owners get archived keys as files, and whether a temporary card gets old keys.

    ``leave``: whether a renewal may leave an old key to the archive where the card has no retired slot for it. Where
    owners get no files, it never does.
    """

    files: bool = True
    temporary: bool = True
    leave: bool = True


class SlotPart(_Part, frozen=True):
    """``[[slots]]``. ``key``: made on the card, or by the server, which keeps it (escrow)."""

    slot: str
    algorithm: str
    profile: Name
    key: Literal["generate", "escrow"] = "generate"
    least_origin: Origin = Origin.UNPROVEN
    pin_policy: Literal["default", "never", "once", "always", "match_once", "match_always"] = "default"
    touch_policy: Literal["default", "never", "always", "cached"] = "default"


class Document(_Part, frozen=True):
    """The whole document."""

    name: Name
    title: Annotated[str, msgspec.Meta(max_length=200)] = ""
    compliance: Compliance = Compliance.CIV
    clear_secrets: ClearSecrets = ClearSecrets.TRUSTED_STATION
    device_kinds: Annotated[list[DeviceKind], msgspec.Meta(min_length=1, max_length=5)] = msgspec.field(
        default_factory=lambda: [DeviceKind.SMART_CARD, DeviceKind.USB_KEY, DeviceKind.VIRTUAL_CARD]
    )
    max_devices: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1
    self_bind: bool = False
    user_retry: bool = True
    validity_days: Days = 1826
    temporary_days: Days = 14
    activation: bool = False
    activate_within_days: Days = 30
    renew_before_days: Annotated[int, msgspec.Meta(ge=0, le=7320)] = 30
    mandatory_after_days: Annotated[int, msgspec.Meta(ge=0, le=3660)] | None = None
    objects: Annotated[list[str], msgspec.Meta(max_length=40)] = msgspec.field(default_factory=lambda: ["chuid", "ccc"])
    unlock: Annotated[list[UnlockMethod], msgspec.Meta(max_length=3)] = msgspec.field(default_factory=list)
    two_person_termination: bool | None = None
    pin: PinPart = PinPart()
    puk: PukPart = PukPart()
    management_key: ManagementKeyPart = ManagementKeyPart()
    token: TokenPart = TokenPart()
    escrow: EscrowPart = EscrowPart()
    slots: Annotated[list[SlotPart], msgspec.Meta(max_length=24)] = msgspec.field(default_factory=list)


def read(text: str, profiles: Collection[str] = PROFILES) -> Policy:
    """Read a document; ``profiles`` are the certificate profiles that may be named.

    Raises PolicyInvalid (it cannot be read; the path is in the text) and PolicyContradictory (all findings).
    """
    if len(text) > LONGEST:
        raise PolicyInvalid(f"a policy document has at most {LONGEST} characters")
    try:
        document = msgspec.toml.decode(text, type=Document)
    except msgspec.ValidationError as error:
        raise PolicyInvalid(f"the policy says something that is not understood: {error}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise PolicyInvalid(f"the policy is no TOML: {error}") from error
    return _policy(document, profiles)


def shipped(name: str) -> str:
    """The text of a policy that comes with the program, one of ``SHIPPED``."""
    return resources.files(__package__).joinpath("shipped", f"{name}.toml").read_text(encoding="utf-8")


def _policy(document: Document, profiles: Collection[str]) -> Policy:
    slots = [_slot(place, part) for place, part in enumerate(document.slots)]
    findings = [
        *_findings(document, profiles),
        *(finding for place, slot in enumerate(slots) for finding in _slot_findings(place, document, slot)),
    ]
    if findings:
        raise PolicyContradictory(findings)
    retries = None
    if document.pin.retries is not None and document.puk.retries is not None:
        retries = [document.pin.retries, document.puk.retries]
    try:
        card = DevicePolicy.from_document(
            {
                "name": document.name,
                "slots": [_slot_document(part) for part in document.slots],
                "objects": list(document.objects),
                "secrets": {
                    "puk": document.puk.own,
                    "management_key": document.management_key.own,
                    "management_algorithm": document.management_key.algorithm,
                    "management_touch": document.management_key.touch,
                    "retries": retries,
                },
                "replace": True,
                "renew_before_days": document.renew_before_days,
            }
        )
    except CardwrightError as error:
        raise PolicyContradictory([error.message]) from error
    pin = document.pin
    return Policy(
        name=document.name,
        title=document.title or document.name,
        compliance=document.compliance,
        clear_secrets=document.clear_secrets,
        device_kinds=frozenset(document.device_kinds),
        max_devices=document.max_devices,
        self_bind=document.self_bind,
        user_retry=document.user_retry,
        validity=timedelta(days=document.validity_days),
        temporary=timedelta(days=document.temporary_days),
        activation=document.activation,
        activate_within=timedelta(days=document.activate_within_days),
        mandatory_after=(
            None if document.mandatory_after_days is None else timedelta(days=document.mandatory_after_days)
        ),
        unlock=frozenset(document.unlock),
        two_person_termination=(
            document.compliance is Compliance.PIV
            if document.two_person_termination is None
            else document.two_person_termination
        ),
        card=card,
        least_origin={slot.slot: part.least_origin for slot, part in zip(slots, document.slots, strict=True)},
        escrowed=frozenset(slot.slot for slot in slots if slot.source is KeySource.IMPORTED),
        files=document.escrow.files,
        recovers_to_temporary=document.escrow.temporary,
        pin=PinRules(
            pin.min_length, pin.max_length, pin.digits_only, pin.refuse_trivial, pin.refuse_common, pin.differs
        ),
        delete_superseded=document.token.delete_superseded,
        old_keys_may_leave=document.escrow.leave and document.escrow.files,
    )


def _slot_document(part: SlotPart) -> dict[str, str]:
    return {
        "slot": part.slot,
        "algorithm": part.algorithm,
        "key": "import" if part.key == "escrow" else part.key,
        "profile": part.profile,
        "pin_policy": part.pin_policy,
        "touch_policy": part.touch_policy,
    }


def _slot(place: int, part: SlotPart) -> SlotPolicy:
    path = f"$.slots[{place}]"
    try:
        one = DevicePolicy.from_document({"slots": [_slot_document(part)]})
    except CardwrightError as error:
        raise PolicyInvalid(
            f"the policy says something that is not understood: {error.message}{_words(error)} - at `{path}`"
        ) from error
    return one.slots[0]


def _words(error: CardwrightError) -> str:
    """What may stand there: of names that nobody has, the advice tells the others."""
    return f" {error.advice}" if isinstance(error, UnknownSlot | UnsupportedAlgorithm) else ""


def _findings(document: Document, profiles: Collection[str]) -> Iterator[str]:
    for place, part in enumerate(document.slots):
        if part.profile not in profiles:
            known = ", ".join(sorted(PROFILES.intersection(profiles)))
            said = f"no certificate profile is called {part.profile}; for cards there are {known}"
            yield f"$.slots[{place}].profile: {said}"
    try:
        PinRules(document.pin.min_length, document.pin.max_length)
    except PinRulesMalformed as error:
        yield f"$.pin: {error.message}"
    if (document.pin.retries is None) != (document.puk.retries is None):
        yield "$.pin.retries: the card sets the tries of PIN and PUK together, so both are needed"
    if document.pin.retries is not None and not document.puk.own:
        yield "$.puk.own: setting the tries puts the PUK back to its factory value, so it must be changed"
    if document.unlock and not document.puk.own:
        yield "$.unlock: a PUK that everybody knows unlocks nothing safely"
    if document.management_key.touch and not document.management_key.own:
        yield "$.management_key.touch: needs a management key of the card's own"
    if document.renew_before_days >= document.validity_days:
        yield "$.renew_before_days: a device would be due from its first day"
    if document.temporary_days > document.validity_days:
        yield "$.temporary_days: a temporary device does not outlive a permanent one"
    if len(set(document.device_kinds)) != len(document.device_kinds):
        yield "$.device_kinds: one is named twice"
    if len(set(document.unlock)) != len(document.unlock):
        yield "$.unlock: one is named twice"
    if document.compliance is Compliance.PIV and document.two_person_termination is False:
        yield "$.two_person_termination: compliance = piv needs two persons"


def _slot_findings(place: int, document: Document, slot: SlotPolicy) -> Iterator[str]:
    path, part = f"$.slots[{place}]", document.slots[place]
    if slot.source is KeySource.IMPORTED:
        if slot.slot is not Slot.KEY_MANAGEMENT:
            yield f"{path}.key: only 9D takes a key that is kept elsewhere, too"
        if part.least_origin is Origin.ATTESTED:
            yield f"{path}.least_origin: a card attests only keys that it made"
        if document.clear_secrets is ClearSecrets.NEVER and part.least_origin is not Origin.SEALED:
            yield f"{path}.least_origin: with clear_secrets = never, an escrowed key must arrive sealed"
    if Slot.RETIRED_1 <= slot.slot <= Slot.RETIRED_20:
        yield f"{path}.slot: retired slots take recovered keys, which no policy lists"
    if part.profile == "key-management" and slot.slot is not Slot.KEY_MANAGEMENT:
        yield f"{path}.profile: a key-management certificate belongs to 9D"
    if part.profile == "card-authentication" and slot.slot is not Slot.CARD_AUTHENTICATION:
        yield f"{path}.profile: a card-authentication certificate belongs to 9E"
    if slot.slot is Slot.CARD_AUTHENTICATION and part.profile != "card-authentication":
        yield f"{path}.profile: 9E works without PIN, so its certificate must say card-authentication"
    if slot.slot is Slot.CARD_AUTHENTICATION and part.pin_policy not in ("default", "never"):
        yield f"{path}.pin_policy: 9E works without PIN"
    if part.profile == "signature" and slot.slot is not Slot.SIGNATURE:
        yield f"{path}.profile: a signature certificate belongs to 9C"
    if not slot.algorithm.signs and part.profile != "key-management":
        yield f"{path}.algorithm: {slot.algorithm.label} cannot sign"
