"""The suite notices a broken card: faults planted in the virtual card, and lies about single status words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.iso7816.status import SW
from cardwright_cardops.piv.objects import Fascn
from cardwright_cardops.transport.connection import Connection, Interface
from cardwright_simulators.card import PROFILES, Profile
from cardwright_simulators.card.answers import Command, Refused
from cardwright_simulators.card.application import PivApplication
from cardwright_simulators.card.authenticate import Authenticator
from cardwright_simulators.card.channel import Channel
from cardwright_simulators.card.objects import Rule
from cardwright_simulators.card.references import References
from cardwright_simulators.card.secure_messaging import CardSession
from cardwright_simulators.card.security import Security
from cardwright_simulators.scripts import run_script
from tests.support.conformance import FINGER, SCRIPTS, Stage, features, run, secrets, stage
from tests.support.piv_card import AT, PivCard

Patch = pytest.MonkeyPatch
STANDARD = PROFILES["secure-messaging"]


def nothing(*args: Any, **named: Any) -> None:
    """What a part that is broken out does."""


def select_drops(patch: Patch) -> None:
    plain = PivApplication.select

    def select(self: PivApplication) -> bytes:
        self.security.drop()
        return plain(self)

    patch.setattr(PivApplication, "select", select)


def reset_keeps_statuses(patch: Patch) -> None:
    patch.setattr(Security, "drop", nothing)
    patch.setattr(Security, "reset", nothing)


def occ_opens_all(patch: Patch) -> None:
    patch.setattr(Security, "satisfied", lambda self, rule: rule is Rule.ALWAYS or self.pin or self.occ_satisfied)


def tries_never_come_back(patch: Patch) -> None:
    plain = References._compare

    def compare(self: References, reference: int, value: bytes) -> bool:
        before = self._item(reference).tries
        right = plain(self, reference, value)
        if right and self._item(reference).maximum:
            self._item(reference).tries = before - 1
        return right

    patch.setattr(References, "_compare", compare)


def tries_are_free(patch: Patch) -> None:
    plain = References._compare

    def compare(self: References, reference: int, value: bytes) -> bool:
        before = self._item(reference).tries
        right = plain(self, reference, value)
        if not right:
            self._item(reference).tries = before
        return right

    patch.setattr(References, "_compare", compare)


def blocked_is_compared(patch: Patch) -> None:
    def require_tries(self: References, reference: int) -> None:
        item = self._item(reference)
        item.tries = max(item.tries, 1)

    patch.setattr(References, "_require_tries", require_tries)


def status_outlives_wrong_value(patch: Patch) -> None:
    plain = Security.set_status
    patch.setattr(Security, "set_status", lambda self, number, value: plain(self, number, True) if value else None)


def puk_verifies(patch: Patch) -> None:
    plain = References.reset_retry_counter

    def reset_retry_counter(self: References, command: Command) -> bytes:
        answer = plain(self, command)
        self._security.pin = True
        return answer

    patch.setattr(References, "reset_retry_counter", reset_retry_counter)


def wrong_puk_leaves_pin_status(patch: Patch) -> None:
    plain = References.reset_retry_counter

    def reset_retry_counter(self: References, command: Command) -> bytes:
        before = self._security.pin
        try:
            return plain(self, command)
        finally:
            self._security.pin = before

    patch.setattr(References, "reset_retry_counter", reset_retry_counter)


def references_of_no_policy(patch: Patch) -> None:
    patch.setattr(Security, "known_reference", lambda self, number: number in self._core.state.references)


def challenge_used_twice(patch: Patch) -> None:
    plain = Authenticator._management

    def management(self: Authenticator, command: Command) -> bytes:
        before = self._security.challenge
        try:
            return plain(self, command)
        finally:
            self._security.challenge = self._security.challenge or before

    patch.setattr(Authenticator, "_management", management)


def failed_authentication_keeps_rights(patch: Patch) -> None:
    plain = Authenticator._management

    def management(self: Authenticator, command: Command) -> bytes:
        before = self._security.admin
        try:
            return plain(self, command)
        finally:
            self._security.admin = self._security.admin or before

    patch.setattr(Authenticator, "_management", management)


def any_proof_administers(patch: Patch) -> None:
    patch.setattr(Authenticator, "_prove", lambda self, wanted, kind, given: setattr(self._security, "admin", True))


def signature_key_needs_one_pin(patch: Patch) -> None:
    plain = Authenticator._require_right

    def require_right(self: Authenticator, slot: int, key: Any) -> None:
        plain(self, slot, replace(key, pin_policy=min(key.pin_policy, 2)))

    patch.setattr(Authenticator, "_require_right", require_right)


def signing_ends_pin(patch: Patch) -> None:
    plain = Authenticator.authenticate

    def authenticate(self: Authenticator, command: Command) -> bytes:
        answer = plain(self, command)
        if command.p2 == 0x9C:
            self._security.pin = False
        return answer

    patch.setattr(Authenticator, "authenticate", authenticate)


def keys_are_free(patch: Patch) -> None:
    patch.setattr(Authenticator, "_require_right", nothing)


def chain_survives(patch: Patch) -> None:
    plain = Channel.transmit

    def transmit(self: Channel, raw: bytes) -> bytes:
        chain, head = bytearray(self._chain), self._chain_head
        cla = (raw[0] & ~0x10, *raw[1:4])
        answer = plain(self, raw)
        if head is not None and cla != head:
            self._chain, self._chain_head = chain, head
        return answer

    patch.setattr(Channel, "transmit", transmit)


def answer_survives(patch: Patch) -> None:
    plain = Channel.transmit

    def transmit(self: Channel, raw: bytes) -> bytes:
        pending = self._pending
        answer = plain(self, raw)
        self._pending = self._pending or (pending if raw[1] != 0xC0 else b"")
        return answer

    patch.setattr(Channel, "transmit", transmit)


def session_survives(patch: Patch) -> None:
    patch.setattr(CardSession, "erase", nothing)


def session_survives_errors(patch: Patch) -> None:
    plain = CardSession.unwrap

    def unwrap(self: CardSession, command: Any) -> Any:
        keys = self._keys
        try:
            return plain(self, command)
        except Refused:
            self._keys = keys
            raise

    patch.setattr(CardSession, "unwrap", unwrap)


def pairing_is_not_asked(patch: Patch) -> None:
    patch.setattr(Security, "vci", property(lambda self: self.sm))


def minutiae_are_not_counted(patch: Patch) -> None:
    patch.setattr(References, "_require_minutiae", nothing)


def finger_can_be_read(patch: Patch) -> None:
    plain = PivApplication._get_data

    def get_data(self: PivApplication, command: Command) -> bytes:
        return FINGER if command.data[2:] == b"\x97" else plain(self, command)

    patch.setattr(PivApplication, "_get_data", get_data)


def generating_deletes_certificate(patch: Patch) -> None:
    plain = PivApplication._generate

    def generate(self: PivApplication, command: Command) -> bytes:
        self.core.state.objects.pop(0x5FC105, None)
        return plain(self, command)

    patch.setattr(PivApplication, "_generate", generate)


def generating_keeps_key(patch: Patch) -> None:
    plain = PivApplication._generate

    def generate(self: PivApplication, command: Command) -> bytes:
        before = dict(self.core.state.keys)
        answer = plain(self, command)
        self.core.state.keys = before
        return answer

    patch.setattr(PivApplication, "_generate", generate)


def policy_is_read_late(patch: Patch) -> None:
    plain = Security.read_usage
    seen = set()

    def read_usage(self: Security) -> None:
        if self not in seen:
            seen.add(self)
            plain(self)

    patch.setattr(Security, "read_usage", read_usage)


def off(name: str, kind: type, value: Any = nothing) -> Callable[[Patch], None]:
    """A part of the card that does nothing, or something else."""
    return lambda patch: patch.setattr(kind, name, value)


FAULTS: dict[str, tuple[Callable[[Patch], None], str]] = {
    "select drops the PIN": (select_drops, "003"),
    "another application keeps statuses": (off("leave", PivApplication), "005"),
    "a reset keeps statuses": (reset_keeps_statuses, "005 008"),
    "objects are free": (off("satisfied", Security, lambda self, rule: True), "008 016 019 028 035 042"),
    "a finger opens all": (occ_opens_all, "019"),
    "tries never come back": (tries_never_come_back, "031 046 055"),
    "tries are free": (tries_are_free, "031 032 035 036 046 047 050 053 056 057 058 140"),
    "a wrong value keeps the status": (status_outlives_wrong_value, "032 042 047 129 140"),
    "a blocked value is compared": (blocked_is_compared, "035 036 050 055 058 132 140"),
    "any form will do": (off("well_formed", References, lambda self, number, value: True), "044 048 057"),
    "the PUK verifies": (puk_verifies, "055"),
    "a wrong PUK keeps the PIN status": (wrong_puk_leaves_pin_status, "056"),
    "the policy is not looked at": (references_of_no_policy, "038 039 052 097 131"),
    "the policy is read late": (policy_is_read_late, "097"),
    "a challenge is used twice": (challenge_used_twice, "062"),
    "a failure keeps the rights": (failed_authentication_keeps_rights, "066"),
    "any proof will do": (any_proof_administers, "062 064 065 066"),
    "administration is free": (off("require_admin", Security), "005 008 089 095 098 105 134"),
    "one PIN for many signatures": (signature_key_needs_one_pin, "072 073"),
    "a signature ends the PIN": (signing_ends_pin, "074"),
    "keys are free": (keys_are_free, "069 071 072 073 075 076 077 116 133"),
    "a chain survives": (chain_survives, "086 096"),
    "an answer survives": (answer_survives, "027"),
    "a session survives": (session_survives, "125 127"),
    "a session survives errors": (session_survives_errors, "123 124 126"),
    "pairing is not asked": (pairing_is_not_asked, "128 129 131"),
    "contacts do not matter": (off("require_contact_or_vci", Security), "113 128"),
    "minutiae are not counted": (minutiae_are_not_counted, "139"),
    "a finger can be read": (finger_can_be_read, "141"),
    "generating deletes the certificate": (generating_deletes_certificate, "104"),
    "generating keeps the key": (generating_keeps_key, "103 104"),
}
"""Faults of the card's code, each with the scripts that notice it."""

KINDS: dict[str, tuple[Profile, str]] = {
    "memory has no end": (replace(STANDARD, max_data=65535, object_limit=65535, memory=1 << 24), "093"),
    "version left out of 4F": (replace(STANDARD, full_aid=False), "001 002"),
    "a second suite": (replace(STANDARD, announced=(0x2E,)), "006"),
    "contacts do not matter at all": (
        replace(STANDARD, contactless_rules=False), "053 060 112 113 114 116 128 131 132 134"
    ),
    "no tries kept for the contacts": (replace(STANDARD, contactless_floor=0), "132"),
    "a curve key does everything": (replace(STANDARD, any_key_any_use=True), "078"),
    "verified whatever comes between": (replace(STANDARD, strict_pin_always=False), "073"),
    "objects of any tag": (replace(STANDARD, data_model_only=False), "094"),
    "small objects": (replace(STANDARD, object_limit=12000), "090"),
    "more tries than allowed": (replace(STANDARD, tries=11), "045"),
    "data without Le": (replace(STANDARD, answers_without_le=True), "110"),
    "chains everything": (replace(STANDARD, chains_every_command=True), "108"),
    "mechanisms of old": (replace(STANDARD, algorithms=STANDARD.algorithms | {0x06}), "100"),
    "a slot too many": (replace(STANDARD, generate_slots=STANDARD.generate_slots | {0x9B}), "101"),
}
"""Kinds of cards that are wrong in one value, each with the scripts that notice it."""


def changed(**profile: Any) -> Callable[[PivCard], None]:
    """A recipe where these fields of certificate profiles are replaced: slot, then field and value."""

    def edit(recipe: PivCard) -> None:
        for slot, fields in profile.items():
            recipe.profiles[slot.lstrip("_")] = replace(recipe.profiles[slot.lstrip("_")], **fields)

    return edit


def altered(tag: int) -> Callable[[PivCard], None]:
    """A card where an octet of an object was altered after signing."""

    def late(built: dict[int, bytes | None]) -> None:
        answer = built[tag] or b""
        built[tag] = answer[:60] + bytes((answer[60] ^ 1,)) + answer[61:]

    return lambda recipe: setattr(recipe, "late", late)


def without(tag: int) -> Callable[[PivCard], None]:
    """A card without an object."""
    return lambda recipe: setattr(recipe, "late", lambda built: built.pop(tag))


OTHER_FASCN = Fascn("4700", "0256", "001338", "1", "1", "1234567890", "1", "4700", "1").encode()
OTHER_GUID = UUID("11111111-2222-4333-8444-555555555555")
AFTER_CARD = datetime(2030, 6, 1, tzinfo=UTC)
BEFORE_9E = datetime(2029, 6, 1, tzinfo=UTC)

CONTENT: dict[str, tuple[Callable[[PivCard], None], str]] = {
    "another card's fingers": (lambda recipe: recipe.attributes.update({0x5FC103: {"fascn": OTHER_FASCN}}), "142 147"),
    "another card's header": (lambda recipe: recipe.headers.update({0x5FC108: {"fascn": OTHER_FASCN}}), "142 147"),
    "another card's 9E": (changed(_9E={"fascn": OTHER_FASCN}), "142 147"),
    "another card's face": (lambda recipe: recipe.attributes.update({0x5FC108: {"uuid": OTHER_GUID}}), "143 147"),
    "another card's 9A": (changed(_9A={"uuids": (OTHER_GUID,)}), "143 147"),
    "9A names no card": (changed(_9A={"uuids": ()}), "143"),
    "an altered face": (altered(0x5FC108), "144 147"),
    "an altered CHUID": (altered(0x5FC102), "144 147"),
    "no CCC": (without(0x5FC107), "144 147"),
    "a signer of other things": (changed(signer={"extended": ("1.3.6.1.5.5.7.3.4",)}), "144 147"),
    "9A certified for another key": (changed(_9A={"public": "other"}), "104 145"),
    "9D certified for another key": (changed(_9D={"public": "other"}), "076 145"),
    "9E outlives the card": (changed(_9E={"not_after": AFTER_CARD}), "146 147"),
    "9A outlives the card": (changed(_9A={"not_after": AFTER_CARD}), "146 147"),
    "the signer ends early": (changed(signer={"not_after": BEFORE_9E}), "146 147"),
    "no Security Object": (without(0x5FC106), "014 144 147"),
    "no fingers": (without(0x5FC103), "017 028 142 147"),
}
"""Personal cards with wrong content, each with the scripts that notice it."""


def notices(script: str, at_stage: Stage) -> bool:
    try:
        result = run(script, at_stage)
    except CardwrightError:
        return True
    assert result.applies
    return not result.passed


def missed(scripts: str, made: Callable[[str], Stage]) -> list[str]:
    """Those of ``scripts`` that do not notice."""
    names = [f"CE-{number}" for number in scripts.split()]
    return [name for name in names if not notices(name, made(SCRIPTS[name].card))]


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_in_the_card(fault: str, monkeypatch: Patch) -> None:
    plant, scripts = FAULTS[fault]
    for script in scripts.split():  # prepared, and found good, before the fault is there
        assert not notices(f"CE-{script}", stage(STANDARD, SCRIPTS[f"CE-{script}"].card))
    plant(monkeypatch)
    assert missed(scripts, lambda content: stage(STANDARD, content)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_kind_of_card(kind: str) -> None:
    profile, scripts = KINDS[kind]
    assert missed(scripts, lambda content: stage(profile, content)) == []


@pytest.mark.parametrize("content", CONTENT)
def test_wrong_content(content: str) -> None:
    edit, scripts = CONTENT[content]
    assert missed(scripts, lambda name: stage(STANDARD, name, edit)) == []


class Liar:
    """A connection where one answer, counted over the whole script, has its status word turned round."""

    def __init__(self, connection: Connection, counted: list[bytes], turn: int) -> None:
        self._connection = connection
        self._counted = counted
        self._turn = turn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def transmit(self, command: bytes) -> bytes:
        answer = self._connection.transmit(command)
        self._counted.append(command)
        if len(self._counted) != self._turn:
            return answer
        good = answer[-2:] == SW.OK.to_bytes(2, "big") or answer[-2] == 0x61
        return answer[:-2] + (SW.NO_DIAGNOSIS if good else SW.OK).to_bytes(2, "big")


def told(script: str, turn: int) -> tuple[bool, int]:
    """Whether a script passes when the answer number ``turn`` is a lie; how many there were."""
    chosen = SCRIPTS[script]
    kinds = ("secure-messaging", "sp800-73-5", "secure-messaging-cs7")
    profile = next(PROFILES[name] for name in kinds if features(PROFILES[name]).issuperset(chosen.needs))
    place = stage(profile, chosen.card)
    counted: list[bytes] = []

    def connect(interface: Interface) -> Any:
        return Liar(place.connect(interface), counted, turn)

    try:
        result = run_script(
            chosen, connect(Interface(chosen.interface)), secrets(profile), connect=connect,
            features=features(profile), may_change=True, at=AT,
        )  # fmt: skip
    except CardwrightError:
        return False, len(counted)
    return result.passed, len(counted)


UNCHECKED = {"CE-142", "CE-143", "CE-144", "CE-146", "CE-147"}
"""They read every object and judge those that they name."""
TOLERANT = {"CE-093": 1, "CE-096": 3, "CE-141": 4}
"""How many answers may be either: a refusal before the last block, what only interrupts, objects that may be absent."""

SAMPLED = {"CE-090": 61, "CE-099": 13}
"""Long scripts of many like steps: every how many answers one is a lie."""


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name not in UNCHECKED])
def test_every_status_word_matters(script: str) -> None:
    passed, count = told(script, 0)
    assert passed
    turns = range(1, count + 1, SAMPLED.get(script, 1))
    assert sum(told(script, turn)[0] for turn in turns) == TOLERANT.get(script, 0)
