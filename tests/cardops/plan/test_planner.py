"""One difference between card and policy, the steps that follow from it: the planner's decisions one by one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from cardwright_cardops.piv import containers
from cardwright_cardops.piv.algorithms import Algorithm, ManagementAlgorithm, PinPolicy, TouchPolicy
from cardwright_cardops.piv.references import RETIRED_SLOTS, Slot
from cardwright_cardops.piv.vendor.yubico import KeyOrigin
from cardwright_cardops.plan.capabilities import PIVAPPLET, PLAIN, YUBICO, Backend, CapabilityMissing
from cardwright_cardops.plan.inventory import (
    CertificateState,
    Evidence,
    Features,
    Identity,
    Inventory,
    KeyState,
    ObjectState,
    Presence,
    SecretState,
)
from cardwright_cardops.plan.planner import KeyInUse, RetiredSlotsFull, SelfSigningImpossible, plan
from cardwright_cardops.plan.policy import DevicePolicy, KeySource, RecoveredKey, SecretsPolicy, SlotPolicy
from cardwright_cardops.plan.records import DEFAULT, Candidates, Records
from cardwright_cardops.plan.steps import (
    GenerateKey,
    ImportKey,
    LeaveKey,
    SetManagementKey,
    SetPin,
    SetPuk,
    SetRetries,
    Step,
    WriteCertificate,
    WriteObject,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LEFT = SecretsPolicy(pin=False, puk=False, management_key=False)
SIGNING, P256 = Slot.SIGNATURE, Algorithm.P256
CHUID, CCC = containers.CHUID.tag, containers.CCC.tag
HISTORY, SECURITY = containers.KEY_HISTORY.tag, containers.SECURITY_OBJECT.tag
PRINTED, FACE = 0x5FC109, 0x5FC108
ROW = SlotPolicy(SIGNING, P256)
MAKE = GenerateKey(SIGNING, P256)
CERTIFY = WriteCertificate(SIGNING, P256)


def key(slot: Slot = SIGNING, mark: str = "aa", **changes: Any) -> KeyState:
    """A key made on the card under the slot's own policies."""
    made = KeyState(
        slot, Evidence.METADATA, P256, mark, b"", KeyOrigin.GENERATED, SlotPolicy(slot, P256).effective_pin_policy,
        TouchPolicy.NEVER,
    )  # fmt: skip
    return replace(made, **changes)


def certificate(slot: Slot = SIGNING, mark: str = "aa", days: float = 30) -> CertificateState:
    return CertificateState(slot, "00" * 32, mark, "", "", 1, NOW - timedelta(days=9), NOW + timedelta(days=days))


def card(*keys: KeyState, certificates: tuple[CertificateState, ...] = (), **changes: Any) -> Inventory:
    """A card that was issued: it has CHUID and CCC, secrets of its own, and tells all that can be told."""
    made = Inventory(
        Identity(UUID(int=1)), Features(metadata=True, serial=True, version="5.7.1"),
        (ObjectState(CHUID, Presence.PRESENT), ObjectState(CCC, Presence.PRESENT)), keys, certificates,
        SecretState(False, 3, 3), SecretState(False, 3, 3),
        SecretState(False, algorithm=ManagementAlgorithm.AES192, touch_policy=TouchPolicy.NEVER),
    )  # fmt: skip
    return replace(made, **changes)


def steps(
    policy: DevicePolicy, inventory: Inventory, records: Records | None = None, *, backend: Backend = YUBICO,
    certifies_existing: bool = True,
) -> list[Step]:  # fmt: skip
    made = plan(policy, inventory, records, now=NOW, backend=backend, certifies_existing=certifies_existing)
    return list(made.steps)


def slots(*rows: SlotPolicy, **changes: Any) -> DevicePolicy:
    return DevicePolicy(slots=rows, secrets=LEFT, **changes)


# --------------------------------------------------------------------------------------------------------- secrets


def test_nothing_to_do_is_no_step() -> None:
    assert steps(DevicePolicy(), card()) == []


@pytest.mark.parametrize(
    ("changes", "due"),
    [
        ({"puk": SecretState(True, 3, 3)}, [SetPuk()]),
        ({"pin": SecretState(True, 3, 3)}, [SetPin()]),
        ({"pin": SecretState(False, 3, 0)}, [SetPin()]),
        ({"pin": SecretState(False, 3, 1)}, []),
        ({"puk": SecretState(True, 3, 3), "pin": SecretState(True, 3, 3)}, [SetPuk(), SetPin()]),
        ({"management_key": SecretState(True, algorithm=0x0A)}, [SetManagementKey(ManagementAlgorithm.AES192)]),
        ({"management_key": SecretState(True)}, [SetManagementKey(ManagementAlgorithm.TDES)]),
    ],
)
def test_factory_values_and_a_blocked_pin_are_changed(changes: dict[str, Any], due: list[Step]) -> None:
    assert steps(DevicePolicy(), card(**changes)) == due
    assert steps(DevicePolicy(secrets=LEFT), card(**changes)) == []


def test_a_puk_in_flight_is_settled_by_what_the_card_says() -> None:
    begun = Records(puk=Candidates(("1", DEFAULT)))
    assert begun.puk.in_flight
    assert steps(DevicePolicy(), card(), begun) == []
    assert steps(DevicePolicy(), card(), Records(puk=Candidates(("2", "1")))) == [SetPuk()]
    assert steps(DevicePolicy(), card(), Records(pin_in_flight=True)) == []


def test_management_key_by_algorithm_and_touch() -> None:
    wanted = DevicePolicy(secrets=SecretsPolicy(management_algorithm=ManagementAlgorithm.AES256))
    assert steps(wanted, card()) == [SetManagementKey(ManagementAlgorithm.AES256)]
    silent = replace(card().management_key, algorithm=None)
    assert steps(wanted, card(management_key=silent)) == []
    touch = DevicePolicy(secrets=SecretsPolicy(management_touch=True))
    assert steps(touch, card()) == [SetManagementKey(ManagementAlgorithm.AES192, True)]
    for policy in (TouchPolicy.ALWAYS, TouchPolicy.CACHED):
        touched = replace(card().management_key, touch_policy=policy)
        assert steps(touch, card(management_key=touched)) == []
        assert steps(DevicePolicy(), card(management_key=touched)) == [SetManagementKey(ManagementAlgorithm.AES192)]
    untold = replace(card().management_key, touch_policy=None)
    assert steps(touch, card(management_key=untold)) == []


def test_management_key_where_the_card_cannot() -> None:
    fresh = card(management_key=SecretState(True))
    with pytest.raises(CapabilityMissing) as caught:
        steps(DevicePolicy(), fresh, backend=PLAIN)
    assert caught.value.capability == "management-key"
    only = replace(YUBICO, management_algorithms=frozenset((ManagementAlgorithm.AES128,)))
    with pytest.raises(CapabilityMissing, match="no TDES management keys"):
        steps(DevicePolicy(), fresh, backend=only)


@pytest.mark.parametrize(("pin", "puk", "due"), [(5, 4, False), (5, 3, True), (4, 4, True), (4, 5, True)])
def test_tries_are_set_where_one_number_differs(pin: int, puk: int, due: bool) -> None:
    wanted = DevicePolicy(secrets=replace(LEFT, retries=(5, 4)))
    inventory = card(pin=SecretState(False, pin, 1), puk=SecretState(False, puk, 1))
    assert steps(wanted, inventory) == ([SetRetries(5, 4)] if due else [])
    for backend, features in ((PLAIN, inventory.features), (YUBICO, replace(inventory.features, metadata=None))):
        with pytest.raises(CapabilityMissing) as caught:
            steps(wanted, replace(inventory, features=features), backend=backend)
        assert caught.value.capability == "retries"


# ------------------------------------------------------------------------------------------------------------ keys


def test_an_empty_slot_gets_key_and_certificate() -> None:
    assert steps(slots(ROW), card()) == [MAKE, CERTIFY]
    row = SlotPolicy(SIGNING, P256, KeySource.IMPORTED, "other", PinPolicy.ONCE, TouchPolicy.ALWAYS)
    assert steps(slots(row), card()) == [
        ImportKey(SIGNING, P256, PinPolicy.ONCE, TouchPolicy.ALWAYS), WriteCertificate(SIGNING, P256, "other"),
    ]  # fmt: skip


def test_a_key_that_fits_with_its_certificate_stays() -> None:
    assert steps(slots(ROW), card(key(), certificates=(certificate(),))) == []
    untold = key(origin=None, pin_policy=None, touch_policy=None)
    assert steps(slots(ROW), card(untold, certificates=(certificate(),))) == []
    seen = key(evidence=Evidence.CERTIFICATE, origin=KeyOrigin.IMPORTED, pin_policy=PinPolicy.NEVER)
    assert steps(slots(ROW), card(seen, certificates=(certificate(),))) == []


@pytest.mark.parametrize("certificates", [(), (certificate(mark="bb"),)])
def test_a_key_that_fits_without_its_certificate_gets_one(certificates: tuple[CertificateState, ...]) -> None:
    inventory = card(key(), certificates=certificates)
    certify = replace(CERTIFY, key="aa")
    assert steps(slots(ROW), inventory) == [certify]
    with pytest.raises(KeyInUse, match="no certificate, and none can be made"):
        steps(slots(ROW), inventory, certifies_existing=False)
    anew = [replace(MAKE, replaces="aa"), CERTIFY]
    assert steps(slots(ROW, replace=True), inventory, certifies_existing=False) == anew
    recorded = Records(certificates=frozenset(((SIGNING, "aa"),)))
    assert steps(slots(ROW), inventory, recorded, certifies_existing=False) == [certify]
    for other in ((SIGNING, "bb"), (Slot.AUTHENTICATION, "aa")):
        with pytest.raises(KeyInUse):
            steps(slots(ROW), inventory, Records(certificates=frozenset((other,))), certifies_existing=False)


def test_an_imported_key_is_certified_where_its_private_half_is_kept() -> None:
    row = replace(ROW, source=KeySource.IMPORTED)
    inventory = card(key(origin=KeyOrigin.IMPORTED))
    assert steps(slots(row), inventory, Records(keys={SIGNING: "aa"})) == [replace(CERTIFY, key="aa")]
    for kept in ({}, {SIGNING: "bb"}):
        with pytest.raises(KeyInUse):
            steps(slots(row), inventory, Records(keys=kept))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"algorithm": Algorithm.P384}, "it is not of"),
        ({"origin": KeyOrigin.IMPORTED}, "made in another way"),
        ({"pin_policy": PinPolicy.NEVER}, "made in another way"),
        ({"touch_policy": TouchPolicy.ALWAYS}, "made in another way"),
    ],
)
def test_a_key_that_does_not_fit_is_replaced_only_where_allowed(changes: dict[str, Any], why: str) -> None:
    inventory = card(key(**changes), certificates=(certificate(),))
    with pytest.raises(KeyInUse, match=why) as caught:
        steps(slots(ROW), inventory)
    assert caught.value.slot is SIGNING
    assert steps(slots(ROW, replace=True), inventory) == [replace(MAKE, replaces="aa"), CERTIFY]


def test_a_key_that_nobody_knows_is_named_unknown() -> None:
    inventory = card(key(mark="", algorithm=None))
    assert steps(slots(ROW, replace=True), inventory) == [replace(MAKE, replaces="unknown"), CERTIFY]


@pytest.mark.parametrize(("days", "due"), [(30.0, False), (10.001, False), (10.0, True), (-1.0, True)])
def test_a_certificate_near_its_end_is_renewed_with_its_key(days: float, due: bool) -> None:
    inventory = card(key(), certificates=(certificate(days=days),))
    policy = slots(ROW, renew_before=timedelta(days=10), replace=True)
    assert steps(policy, inventory) == ([replace(MAKE, replaces="aa"), CERTIFY] if due else [])
    if due:
        with pytest.raises(KeyInUse, match="its certificate ends"):
            steps(replace(policy, replace=False), inventory)


@pytest.mark.parametrize(("days", "due"), [(5.0, False), (4.999, True), (-1.0, True)])
def test_a_certificate_that_ends_with_the_card_is_not_renewed(days: float, due: bool) -> None:
    inventory = card(key(), certificates=(certificate(days=days),))
    policy = slots(ROW, renew_before=timedelta(days=10), replace=True, ends=NOW + timedelta(days=5))
    assert steps(policy, inventory) == ([replace(MAKE, replaces="aa"), CERTIFY] if due else [])


def test_unfinished_work_of_ours_may_be_overwritten() -> None:
    begun_empty, begun_over = Records(generating={SIGNING: ""}), Records(generating={SIGNING: "aa"})
    # A key came into the empty slot: it is ours, and is certified or made again.
    assert steps(slots(ROW), card(key()), begun_empty) == [replace(CERTIFY, key="aa")]
    again = [replace(MAKE, replaces="aa"), CERTIFY]
    assert steps(slots(ROW), card(key()), begun_empty, certifies_existing=False) == again
    # The key that was to go is still there.
    assert steps(slots(ROW), card(key(), certificates=(certificate(),)), begun_over) == again
    # Another one is there already.
    for mark in ("bb", "99"):
        new = card(key(mark=mark), certificates=(certificate(),))
        assert steps(slots(ROW), new, begun_over) == [replace(CERTIFY, key=mark)]
    # What came in its place is no one's yet, and of another algorithm than is wanted now: it goes.
    for mark in ("bb", "99"):
        ours = card(key(mark=mark, algorithm=Algorithm.RSA2048))
        assert steps(slots(ROW), ours, begun_over) == [replace(MAKE, replaces=mark), CERTIFY]
    # It has a certificate, so it is somebody's.
    ended = card(key(), certificates=(certificate(days=-1),))
    with pytest.raises(KeyInUse):
        steps(slots(ROW), ended, begun_empty)


def test_what_the_card_lacks_is_said_by_name() -> None:
    imported = replace(ROW, source=KeySource.IMPORTED)
    retired = replace(ROW, slot=Slot.RETIRED_12)
    for row, backend, capability in (
        (imported, PLAIN, "import"),
        (retired, PIVAPPLET, "slot 8D"),
        (replace(retired, source=KeySource.IMPORTED), PIVAPPLET, "slot 8D"),
        (replace(ROW, pin_policy=PinPolicy.ALWAYS), PLAIN, "policies"),
        (replace(ROW, touch_policy=TouchPolicy.ALWAYS), PLAIN, "policies"),
        (replace(ROW, pin_policy=PinPolicy.MATCH_ONCE), YUBICO, "match"),
        (replace(ROW, pin_policy=PinPolicy.MATCH_ALWAYS), PIVAPPLET, "match"),
        (replace(imported, pin_policy=PinPolicy.MATCH_ONCE), YUBICO, "match"),
        (replace(ROW, algorithm=Algorithm.ED25519), PLAIN, Algorithm.ED25519.label),
    ):
        with pytest.raises(CapabilityMissing) as caught:
            steps(slots(row), card(), backend=backend)
        assert caught.value.capability == capability


def test_what_cannot_sign_is_not_self_signed() -> None:
    agreement = replace(ROW, slot=Slot.KEY_MANAGEMENT)
    with pytest.raises(SelfSigningImpossible):
        steps(slots(agreement), card(), backend=PLAIN)
    with pytest.raises(SelfSigningImpossible):
        steps(slots(agreement), card(key(Slot.KEY_MANAGEMENT)), backend=PLAIN)
    assert steps(slots(replace(agreement, profile="other")), card(), backend=PLAIN) == [
        GenerateKey(Slot.KEY_MANAGEMENT, P256), WriteCertificate(Slot.KEY_MANAGEMENT, P256, "other"),
    ]  # fmt: skip
    assert len(steps(slots(agreement), card())) == 2


# -------------------------------------------------------------------------------------------------- recovered keys

OLD = RecoveredKey("0d" * 32, P256)
FIRST, SECOND, THIRD = RETIRED_SLOTS[:3]
IN_FIRST = [ImportKey(FIRST, P256, key=OLD.fingerprint), WriteCertificate(FIRST, P256, "recovered", OLD.fingerprint)]


def recovered(inventory: Inventory, records: Records | None = None, **changes: Any) -> list[Step]:
    """The steps for ``OLD`` alone, without those for Key History."""
    done = steps(slots(recovered=(OLD,), **changes), inventory, records)
    return [step for step in done if not isinstance(step, WriteObject)]


def empty(*taken: Slot) -> tuple[ObjectState, ...]:
    """All retired certificates are absent but those of ``taken``."""
    return tuple(
        ObjectState(slot.certificate_tag, Presence.PRESENT if slot in taken else Presence.ABSENT)
        for slot in RETIRED_SLOTS
    ) + card().objects


def test_a_recovered_key_goes_into_the_first_free_slot() -> None:
    assert recovered(card(objects=empty())) == IN_FIRST
    for inventory in (
        card(key(FIRST), objects=empty(SECOND)),
        card(key(FIRST), key(SECOND), objects=empty()),
        card(objects=empty(FIRST, SECOND)),
    ):
        assert [step.slot for step in recovered(inventory) if isinstance(step, ImportKey)] == [THIRD]
    named = slots(SlotPolicy(FIRST, P256), recovered=(OLD,))
    assert ImportKey(SECOND, P256, key=OLD.fingerprint) in steps(named, card(objects=empty()))


def test_unread_containers_are_empty_only_where_metadata_vouches() -> None:
    assert recovered(card()) == IN_FIRST
    with pytest.raises(RetiredSlotsFull):
        recovered(card(features=Features(version="5.7.1")))
    with pytest.raises(RetiredSlotsFull):
        recovered(card(objects=empty(*RETIRED_SLOTS)))


def test_an_archived_key_without_a_place_is_left_to_the_archive_and_said_so_once() -> None:
    full = (*empty(*RETIRED_SLOTS), *card().objects)
    named = slots(SlotPolicy(Slot.KEY_MANAGEMENT, P256, KeySource.IMPORTED, "issued"), replace=True)
    mine = KeyState(Slot.KEY_MANAGEMENT, Evidence.METADATA, P256, OLD.fingerprint, origin=KeyOrigin.IMPORTED)
    for needed, place in ((True, True), (False, True), (False, False)):
        policy = replace(named, recovered=(replace(OLD, needed=needed),))
        inventory = card(mine, objects=full if place else empty())
        if needed:
            with pytest.raises(RetiredSlotsFull):
                steps(policy, inventory)
            continue
        done = [step for step in steps(policy, inventory) if not isinstance(step, WriteObject)]
        if place:
            assert done[0] == LeaveKey(Slot.KEY_MANAGEMENT, OLD.fingerprint)
            assert done[1] == ImportKey(Slot.KEY_MANAGEMENT, P256, replaces=OLD.fingerprint)
            assert [step.slot for step in done[1:] if isinstance(step, ImportKey)] == [Slot.KEY_MANAGEMENT]
        else:
            assert not [step for step in done if isinstance(step, LeaveKey)]
            assert {step.slot for step in done if isinstance(step, ImportKey)} == {Slot.KEY_MANAGEMENT, FIRST}
    # It is not on the card any more: nobody is asked again, and nothing is due for it.
    gone = replace(named, slots=(), recovered=(replace(OLD, needed=False),))
    assert [step for step in steps(gone, card(objects=full)) if not isinstance(step, WriteObject)] == []


def test_what_was_asked_for_gets_the_last_free_slot() -> None:
    mine, asked = replace(OLD, needed=False), RecoveredKey("0f" * 32, P256)
    policy = slots(recovered=(mine, asked))
    done = steps(policy, card(objects=empty(*RETIRED_SLOTS[1:])))
    assert [(step.slot, step.key) for step in done if isinstance(step, ImportKey)] == [(FIRST, asked.fingerprint)]


def test_a_recovered_key_stays_where_it_is() -> None:
    mark = OLD.fingerprint
    there, certified = key(SECOND, mark), certificate(SECOND, mark)
    certify = WriteCertificate(SECOND, P256, "recovered", mark)
    bring = ImportKey(SECOND, P256, key=mark)
    assert recovered(card(there, certificates=(certified,), objects=empty())) == []
    assert recovered(card(there, objects=empty())) == [certify]
    assert recovered(card(there, certificates=(certificate(SECOND, "bb"),), objects=empty())) == [certify]
    assert recovered(card(certificates=(certified,), objects=empty())) == [bring]
    assert recovered(card(objects=empty()), Records(keys={SECOND: mark})) == [bring, certify]
    named = steps(slots(SlotPolicy(FIRST, P256), recovered=(OLD,)), card(there, objects=empty()))
    assert certify in named and ImportKey not in map(type, named), "slots that the policy names are passed over"
    for foreign in ("00" * 32, "ff" * 32):
        found = card(certificates=(certificate(SECOND, foreign),), objects=empty(SECOND))
        assert recovered(found) == IN_FIRST
        assert recovered(card(objects=empty()), Records(keys={SECOND: foreign})) == IN_FIRST
    # Another key holds the slot, so neither the certificate nor the promise counts.
    other = key(SECOND, "bb")
    assert recovered(card(other, certificates=(certified,), objects=empty())) == IN_FIRST
    assert recovered(card(other, objects=empty()), Records(keys={SECOND: mark})) == IN_FIRST


def test_recovered_keys_take_different_slots() -> None:
    more = RecoveredKey("0e" * 32, Algorithm.RSA2048)
    done = steps(slots(recovered=(OLD, more)), card(objects=empty()))
    assert [step.slot for step in done if isinstance(step, ImportKey)] == [FIRST, SECOND]
    with pytest.raises(CapabilityMissing) as caught:
        steps(slots(recovered=(OLD,)), card(objects=empty()), backend=PLAIN)
    assert caught.value.capability == "import"
    with pytest.raises(CapabilityMissing):
        steps(slots(recovered=(replace(OLD, algorithm=Algorithm.ED25519),)), card(), backend=PIVAPPLET)


# --------------------------------------------------------------------------------------------------------- objects


def with_objects(**presence: Presence) -> tuple[ObjectState, ...]:
    rows = {"chuid": CHUID, "ccc": CCC, "history": HISTORY, "security": SECURITY, "printed": PRINTED, "face": FACE}
    return tuple(ObjectState(rows[name], state) for name, state in presence.items())


HERE, GONE, HIDDEN = Presence.PRESENT, Presence.ABSENT, Presence.PROTECTED


def objects(*tags: int, **presence: Presence) -> list[int]:
    policy = DevicePolicy(objects=tags, secrets=LEFT)
    done = steps(policy, card(objects=with_objects(**presence)))
    assert all(isinstance(step, WriteObject) for step in done)
    return [step.tag for step in done if isinstance(step, WriteObject)]


def test_what_is_missing_or_unread_is_written() -> None:
    assert objects(CHUID, CCC, chuid=HERE, ccc=GONE) == [CCC]
    assert objects(CHUID, CCC, chuid=HERE) == [CCC]
    assert objects(CHUID, CCC, chuid=GONE, ccc=HERE) == [CHUID]
    assert objects(chuid=GONE, ccc=GONE) == []


def test_hidden_objects_are_written_before_the_chuid_and_once() -> None:
    assert objects(CCC, CHUID, PRINTED, chuid=GONE, printed=HIDDEN, ccc=GONE) == [PRINTED, CHUID, CCC]
    assert objects(CHUID, PRINTED, chuid=HERE, printed=HIDDEN) == []


def test_the_security_object_comes_last_and_follows_what_it_covers() -> None:
    assert objects(CHUID, SECURITY, chuid=HERE, security=HERE) == []
    assert objects(SECURITY, CHUID, chuid=HERE, security=GONE) == [SECURITY]
    assert objects(SECURITY, CHUID, CCC, chuid=HERE, ccc=GONE, security=HERE) == [CCC, SECURITY]
    policy = DevicePolicy(objects=(SECURITY,), secrets=LEFT)
    there = with_objects(security=HERE, chuid=HERE)
    for holds, due in ((False, [WriteObject(SECURITY)]), (True, []), (None, [])):
        assert steps(policy, card(objects=there, security_object_holds=holds)) == due
    signer = containers.SM_SIGNER.tag
    assert steps(replace(policy, objects=(SECURITY, signer)), card(objects=there)) == [WriteObject(signer)]


def test_key_history_counts_the_retired_certificates() -> None:
    policy = DevicePolicy(objects=(HISTORY,), secrets=LEFT)
    there = with_objects(chuid=HERE, ccc=HERE, history=HERE)
    one = (certificate(FIRST),)
    for certificates, counts, due in (
        ((), (0, 0), False), ((), (1, 0), True), ((), None, True), (one, (1, 0), False), (one, (0, 0), True),
        ((*one, certificate()), (1, 5), False),
    ):  # fmt: skip
        done = steps(policy, card(objects=there, certificates=certificates, retired_counts=counts))
        assert done == ([WriteObject(HISTORY)] if due else [])
    assert steps(policy, card(objects=with_objects(chuid=HERE), retired_counts=(0, 0))) == [WriteObject(HISTORY)]
    assert steps(DevicePolicy(objects=(), secrets=LEFT), card(retired_counts=(7, 0))) == []


def test_a_recovered_key_brings_key_history_and_the_security_object() -> None:
    policy = slots(objects=(SECURITY,), recovered=(OLD,))
    there = with_objects(chuid=HERE, security=HERE, history=HERE)
    done = steps(policy, card(objects=there, retired_counts=(0, 0)))
    assert done == [*IN_FIRST, WriteObject(HISTORY), WriteObject(SECURITY)]


def test_the_order_of_everything() -> None:
    fresh = Inventory(
        features=Features(metadata=True, version="5.7.1"), pin=SecretState(True, 3, 3), puk=SecretState(True, 3, 3),
        management_key=SecretState(True), objects=with_objects(chuid=GONE, ccc=GONE, printed=HIDDEN, security=GONE),
    )  # fmt: skip
    imported = SlotPolicy(Slot.KEY_MANAGEMENT, P256, KeySource.IMPORTED)
    policy = DevicePolicy(
        slots=(imported, ROW), objects=(SECURITY, CHUID, PRINTED), recovered=(OLD,),
        secrets=SecretsPolicy(retries=(5, 5)),
    )  # fmt: skip
    assert steps(policy, fresh) == [
        SetPuk(), SetPin(), SetRetries(5, 5),
        MAKE, ImportKey(Slot.KEY_MANAGEMENT, P256), IN_FIRST[0],
        WriteObject(PRINTED), WriteObject(CHUID),
        WriteCertificate(Slot.KEY_MANAGEMENT, P256), CERTIFY, IN_FIRST[1],
        WriteObject(HISTORY), WriteObject(SECURITY),
        SetManagementKey(ManagementAlgorithm.TDES),
    ]  # fmt: skip
