"""What each step makes of an inventory, for cards that tell about their keys and for cards that do not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from cardwright_cardops.piv import containers
from cardwright_cardops.piv.algorithms import Algorithm, ManagementAlgorithm, PinPolicy, TouchPolicy
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.piv.vendor.yubico import KeyOrigin
from cardwright_cardops.plan.apply import apply
from cardwright_cardops.plan.inventory import (
    CertificateState,
    Evidence,
    Features,
    Identity,
    Inventory,
    KeyState,
    Presence,
    SecretState,
)
from cardwright_cardops.plan.steps import (
    GenerateKey,
    ImportKey,
    SetManagementKey,
    SetPin,
    SetPuk,
    SetRetries,
    WriteCertificate,
    WriteObject,
)

P256, SIGNING, AGREEMENT = Algorithm.P256, Slot.SIGNATURE, Slot.KEY_MANAGEMENT
CHUID, HISTORY, SECURITY = containers.CHUID.tag, containers.KEY_HISTORY.tag, containers.SECURITY_OBJECT.tag
FACTORY = SecretState(True, 3, 2)
TELLING = Inventory(
    Identity(), Features(metadata=True), pin=FACTORY, puk=FACTORY, management_key=SecretState(True, algorithm=0x03)
)
SILENT = replace(TELLING, features=Features())
OLD_KEY = KeyState(
    SIGNING, Evidence.METADATA, Algorithm.RSA2048, "aa", b"old", KeyOrigin.IMPORTED, PinPolicy.NEVER, TouchPolicy.CACHED
)


def certificate(slot: Slot, key: str) -> CertificateState:
    when = datetime(2026, 1, 1, tzinfo=UTC)
    return CertificateState(slot, "cc" * 32, key, "a", "b", 7, when, when)


def test_secrets_are_no_longer_the_factorys() -> None:
    assert apply(SetPuk(), TELLING) == replace(TELLING, puk=SecretState(False, 3, 3))
    assert apply(SetPin(), TELLING) == replace(TELLING, pin=SecretState(False, 3, 3))
    tries = apply(SetRetries(8, 5), TELLING)
    assert tries == replace(TELLING, pin=SecretState(False, 8, 8), puk=SecretState(False, 5, 5))
    quiet = replace(SILENT, pin=SecretState(tries_left=0), puk=SecretState())
    assert apply(SetPuk(), quiet) == quiet
    assert apply(SetPin(), quiet) == replace(quiet, pin=SecretState()), "how many there are now is not told"


@pytest.mark.parametrize(("touch", "policy"), [(False, TouchPolicy.NEVER), (True, TouchPolicy.ALWAYS)])
def test_a_management_key_has_algorithm_and_touch_policy(touch: bool, policy: TouchPolicy) -> None:
    step = SetManagementKey(ManagementAlgorithm.AES256, touch)
    seen = apply(step, TELLING)
    assert seen == replace(TELLING, management_key=SecretState(False, algorithm=0x0C, touch_policy=policy))
    assert apply(step, SILENT) == SILENT


def test_keys_are_told_with_origin_and_policies() -> None:
    made = apply(GenerateKey(SIGNING, P256), TELLING).key(SIGNING)
    assert made is not None and len(made.fingerprint) == 64
    assert made == KeyState(
        SIGNING, Evidence.METADATA, P256, made.fingerprint, b"", KeyOrigin.GENERATED, PinPolicy.ALWAYS,
        TouchPolicy.NEVER,
    )  # fmt: skip
    step = ImportKey(AGREEMENT, P256, PinPolicy.NEVER, TouchPolicy.CACHED, "dd" * 32)
    assert apply(step, TELLING).key(AGREEMENT) == KeyState(
        AGREEMENT, Evidence.METADATA, P256, "dd" * 32, b"", KeyOrigin.IMPORTED, PinPolicy.NEVER, TouchPolicy.CACHED
    )
    assert apply(GenerateKey(SIGNING, P256), SILENT) == apply(step, SILENT) == SILENT


def test_a_new_key_is_another_one() -> None:
    marks = set()
    for seen in (
        TELLING, TELLING.with_key(OLD_KEY), TELLING.with_certificate(certificate(SIGNING, "ee")),
        TELLING.with_key(OLD_KEY).with_certificate(certificate(SIGNING, "ee")),
    ):  # fmt: skip
        made = apply(GenerateKey(SIGNING, P256), seen).key(SIGNING)
        assert made is not None
        marks.add(made.fingerprint)
        again = apply(GenerateKey(SIGNING, P256), seen.with_key(made)).key(SIGNING)
        assert again is not None and again.fingerprint != made.fingerprint
    assert len(marks) == 4
    assert not marks & {"", "aa", "ee"}


def certified(inventory: Inventory, step: WriteCertificate) -> tuple[str, KeyState | None]:
    """The key that the certificate is for, and the one that is known to be in the slot."""
    after = apply(step, inventory)
    seen = after.certificate(step.slot)
    assert seen is not None and seen.not_before < datetime(2026, 1, 1, tzinfo=UTC)
    assert seen.not_after > datetime(2100, 1, 1, tzinfo=UTC)
    assert after.object(step.tag).presence is Presence.PRESENT
    return seen.key, after.key(step.slot)


def test_a_certificate_is_for_the_key_that_the_card_tells() -> None:
    seen = TELLING.with_key(OLD_KEY)
    assert certified(seen, WriteCertificate(SIGNING, P256)) == ("aa", OLD_KEY)
    assert certified(seen, WriteCertificate(SIGNING, P256, key="bb")) == ("bb", OLD_KEY)
    mark, key = certified(TELLING, WriteCertificate(SIGNING, P256))
    assert len(mark) == 64 and key is None


def test_a_certificate_tells_of_the_key_where_the_card_does_not() -> None:
    mark, key = certified(SILENT, WriteCertificate(SIGNING, P256))
    assert key == KeyState(SIGNING, Evidence.CERTIFICATE, P256, mark) and len(mark) == 64
    renewed = apply(WriteCertificate(SIGNING, P256), SILENT)
    other, _ = certified(renewed, WriteCertificate(SIGNING, P256))
    assert other != mark, "the key of the certificate before may be gone"
    assert certified(renewed, WriteCertificate(SIGNING, P256, key=mark))[0] == mark


def test_only_the_chuid_gives_a_card_its_uuid() -> None:
    named = replace(TELLING, identity=Identity(UUID(int=5)))
    for tag in (CHUID, containers.CCC.tag, 0x5FC101, 0x7E, 0x5FC109, HISTORY):
        after = apply(WriteObject(tag), TELLING)
        assert after.object(tag).presence is Presence.PRESENT
        assert (after.identity.guid is not None) is (tag == CHUID)
        assert apply(WriteObject(tag), named).identity == named.identity


def test_a_security_object_holds_until_something_else_is_written() -> None:
    signed = apply(WriteObject(SECURITY), TELLING)
    assert signed.security_object_holds is True
    for tag in (CHUID, HISTORY, 0x5FC109):
        assert apply(WriteObject(tag), signed).security_object_holds is False
        assert apply(WriteObject(tag), TELLING).security_object_holds is None
    again = apply(WriteObject(SECURITY), apply(WriteObject(CHUID), signed))
    assert again.security_object_holds is True


def test_rows_of_other_slots_stay() -> None:
    slots = (Slot.KEY_MANAGEMENT, Slot.RETIRED_1, Slot.CARD_AUTHENTICATION, Slot.AUTHENTICATION)
    seen = TELLING
    for slot in slots:
        seen = seen.with_certificate(certificate(slot, "ee")).with_key(replace(OLD_KEY, slot=slot))
    for slot in slots:
        after = seen.with_certificate(certificate(slot, "dd")).with_key(replace(OLD_KEY, slot=slot, fingerprint="dd"))
        assert {row.slot: row.key for row in after.certificates} == dict.fromkeys(slots, "ee") | {slot: "dd"}
        assert {row.slot: row.fingerprint for row in after.keys} == dict.fromkeys(slots, "aa") | {slot: "dd"}


def test_key_history_counts_retired_certificates() -> None:
    rows = [certificate(slot, "ee") for slot in (Slot.RETIRED_1, Slot.RETIRED_5, SIGNING)]
    seen = TELLING
    for row in rows:
        seen = seen.with_certificate(row)
    assert apply(WriteObject(HISTORY), seen).retired_counts == (2, 0)
    assert apply(WriteObject(HISTORY), replace(seen, retired_counts=(9, 4))).retired_counts == (2, 4)
    assert apply(WriteObject(CHUID), replace(seen, retired_counts=(9, 4))).retired_counts == (9, 4)
