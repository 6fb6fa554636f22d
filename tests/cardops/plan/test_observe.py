"""Reading a card: few commands, every damage in its place, one stable document."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from cardwright_cardops.iso7816.tlv import encode
from cardwright_cardops.piv import containers
from cardwright_cardops.piv.algorithms import Algorithm, ManagementAlgorithm
from cardwright_cardops.piv.objects import KeyHistory
from cardwright_cardops.piv.references import ACTIVE_SLOTS, RETIRED_SLOTS, Slot
from cardwright_cardops.piv.vendor.yubico import KeyOrigin
from cardwright_cardops.plan.init import look_for
from cardwright_cardops.plan.inventory import Evidence, Identity, Inventory, Presence, SecretState
from cardwright_cardops.plan.observe import EVERYTHING, Look, NotPivCard, observe, observe_with_witness
from cardwright_cardops.plan.planner import KeyInUse
from cardwright_cardops.plan.records import MemoryJournal
from cardwright_cardops.program.runner import run
from cardwright_cardops.transport.connection import CardRemoved
from cardwright_simulators.card import VirtualCard, images
from cardwright_simulators.reader.faults import FaultyCard
from tests.support.card_init import CASES, executor


class Counting:
    """A card that counts instructions."""

    def __init__(self, card: VirtualCard) -> None:
        self.card, self.seen, self.atr = card, Counter[int](), card.atr

    def transmit(self, command: bytes) -> bytes:
        self.seen[command[1]] += 1
        return self.card.transmit(command)

    def reset(self) -> None:
        self.card.reset()


def issued(profile: str = "yubikey-5.7") -> VirtualCard:
    card = CASES[profile].card()
    CASES[profile].run(card, MemoryJournal())
    return card


def damage(card: VirtualCard, tag: int, raw: bytes) -> None:
    card._core.state.objects[tag] = raw


@pytest.mark.parametrize(
    ("answer", "version"), [("", ""), ("05", ""), ("0507", ""), ("05070401", ""), ("040302", "4.3.2")]
)
def test_a_version_has_three_octets(answer: str, version: str) -> None:
    class Other(VirtualCard):
        def transmit(self, command: bytes) -> bytes:
            return bytes.fromhex(answer) + b"\x90\x00" if command[1] == 0xFD else super().transmit(command)

    assert run(observe(Look()), executor(Other("yubikey-5.7"))).features.version == version


def test_a_fresh_token_is_asked_twelve_things() -> None:
    card = Counting(VirtualCard("yubikey-5.7", serial=4711))
    seen = run(observe(Look()), executor(card))
    assert sum(card.seen.values()) == 12
    assert seen.identity == Identity(serial="4711")
    assert not seen.is_bound
    assert seen.features.metadata is True and seen.features.version == "5.7.4"
    assert (seen.keys, seen.certificates) == ((), ())
    assert seen.pin == seen.puk == SecretState(True, 3, 3)
    assert seen.management_key.algorithm == ManagementAlgorithm.AES192
    assert seen.pin_usage == "4000"
    assert seen.object(containers.CCC.tag).presence is Presence.UNREAD


def test_a_card_without_metadata_is_asked_for_it_once() -> None:
    card = Counting(VirtualCard("sp800-73-5"))
    seen = run(observe(Look()), executor(card))
    assert (card.seen[0xF7], card.seen[0x20]) == (1, 1)
    assert seen.features.metadata is False
    assert (seen.pin.is_default, seen.pin.tries_left) == (None, 3)
    assert seen.object(containers.CCC.tag).presence is Presence.ABSENT


def test_a_finished_card_tells_everything() -> None:
    card = issued()
    seen = run(observe(), executor(card))
    assert [row.slot for row in seen.keys] == sorted(ACTIVE_SLOTS) == [row.slot for row in seen.certificates]
    assert {row.origin for row in seen.keys} == {KeyOrigin.GENERATED, KeyOrigin.IMPORTED}
    assert all(row.evidence is Evidence.METADATA and row.public_key for row in seen.keys)
    assert all(seen.key(row.slot).fingerprint == row.key for row in seen.certificates)  # type: ignore[union-attr]
    assert seen.identity.guid is not None and len(seen.identity.fascn) == 50
    assert seen.identity.card_key == seen.certificate(Slot.CARD_AUTHENTICATION).key  # type: ignore[union-attr]
    assert seen.object(containers.PRINTED.tag).presence is Presence.UNREAD


def test_an_applet_that_counts_origins_from_zero_is_understood() -> None:
    seen = run(observe(), executor(issued("pivapplet")))
    assert seen.key(Slot.KEY_MANAGEMENT).origin is KeyOrigin.IMPORTED  # type: ignore[union-attr]
    assert seen.key(Slot.AUTHENTICATION).origin is KeyOrigin.GENERATED  # type: ignore[union-attr]


def test_certificates_stand_for_keys_where_nothing_else_tells() -> None:
    seen = run(observe(), executor(issued("sp800-73-5")))
    key = seen.key(Slot.KEY_MANAGEMENT)
    assert key is not None and key.evidence is Evidence.CERTIFICATE
    assert key.algorithm == Algorithm.RSA2048


@pytest.mark.parametrize(
    ("raw", "presence"),
    [
        (b"", Presence.DAMAGED),
        (b"\x53\x00", Presence.ABSENT),
        (b"\x53\x05\x70", Presence.DAMAGED),
        (b"\x30\x00", Presence.DAMAGED),
        (encode(0x53, encode(0x70, b"\x30\x00") + encode(0x71, b"\0") + b"\xfe\0"), Presence.DAMAGED),
        (encode(0x53, encode(0x70, bytes(40)) + encode(0x71, b"\x01") + b"\xfe\0"), Presence.DAMAGED),
        (encode(0x53, bytes(300)), Presence.DAMAGED),
    ],
)
@pytest.mark.parametrize("tag", [containers.CHUID.tag, containers.CERT_9A.tag])
def test_one_damaged_object_does_not_hide_the_rest(tag: int, raw: bytes, presence: Presence) -> None:
    card = issued()
    whole = run(observe(), executor(card))
    damage(card, tag, raw)
    seen = run(observe(), executor(card))
    state = seen.object(tag)
    assert state.presence is presence
    assert bool(state.defect) is (presence is Presence.DAMAGED)
    assert [row for row in seen.objects if row.tag != tag] == [row for row in whole.objects if row.tag != tag]
    assert seen.certificates == tuple(row for row in whole.certificates if row.slot.certificate_tag != tag)
    assert (seen.identity.guid is None) is (tag == containers.CHUID.tag)
    assert seen.is_bound is (tag != containers.CHUID.tag or presence is Presence.DAMAGED)


def test_damaged_metadata_is_said_and_nothing_else_suffers() -> None:
    card = VirtualCard("yubikey-5.7")
    seen = run(observe(Look()), executor(FaultyCard(card, "ins=F7@2:corrupt")))
    assert [text.partition(":")[0] for text in seen.defects] == ["81"]
    assert (seen.pin.is_default, seen.puk.is_default) == (True, None)


def test_a_card_that_leaves_is_an_error_not_an_empty_inventory() -> None:
    for number in range(1, 13):
        with pytest.raises(CardRemoved):
            run(observe(Look()), executor(FaultyCard(VirtualCard("yubikey-5.7"), f"apdu={number}+:remove")))


def test_select_that_is_refused_is_no_piv_card() -> None:
    with pytest.raises(NotPivCard):
        run(observe(), executor(FaultyCard(VirtualCard("yubikey-5.7"), "ins=A4+:sw=6A82")))


def test_everything_in_one_batch_says_the_same() -> None:
    card = issued()
    look = replace(EVERYTHING, retired=False)
    program = observe_with_witness(replace(look, one_batch=True), ManagementAlgorithm.AES192)
    end = executor(card)
    answers = end.execute(next(program))
    with pytest.raises(StopIteration) as done:
        program.send(answers)
    end.end_stage()
    inventory, witness = done.value.value
    assert inventory == run(observe(look), executor(card))
    assert witness is not None and len(witness) == 20


def test_retired_keys_are_found_through_key_history() -> None:
    card = issued()
    history = encode(0x53, KeyHistory(on_card=2).encode())
    damage(card, containers.KEY_HISTORY.tag, history)
    for tag in (0x5FC10D, 0x5FC10E):
        damage(card, tag, card._core.state.objects[containers.CERT_9D.tag])
    seen = run(observe(), executor(card))
    assert seen.retired_counts == (2, 0)
    assert [row.slot for row in seen.certificates if row.slot.is_retired] == list(RETIRED_SLOTS[:2])


def test_retired_slots_are_looked_at_where_key_history_counts_keys() -> None:
    """Without any it costs no command; with some, the twenty slots and the certificates of the twenty."""
    card = issued()
    plain, counted = replace(EVERYTHING, retired=False), replace(EVERYTHING, retired=False, counted=True)
    assert _commands(card, counted) == _commands(card, plain)
    damage(card, containers.KEY_HISTORY.tag, encode(0x53, KeyHistory(on_card=1).encode()))
    damage(card, 0x5FC10D, card._core.state.objects[containers.CERT_9D.tag])
    assert run(observe(counted), executor(card)) == run(observe(), executor(card))
    assert _commands(card, counted) - _commands(card, plain) == 20 + 20


def _commands(card: VirtualCard, look: Look) -> int:
    counting = Counting(card)
    run(observe(look), executor(counting))
    return counting.seen.total()


@pytest.mark.parametrize("profile", ["yubikey-5.7", "sp800-73-5"])
def test_retired_slots_are_found_without_key_history(profile: str) -> None:
    card = issued(profile)
    state = card._core.state
    state.objects[0x5FC120] = state.objects[containers.CERT_9D.tag]
    state.keys[0x85] = state.keys[Slot.KEY_MANAGEMENT]
    seen = run(observe(), executor(card))
    assert seen.retired_counts is None
    assert [row.slot for row in seen.certificates if row.slot.is_retired] == [RETIRED_SLOTS[-1]]
    found = [(row.slot, row.evidence) for row in seen.keys if row.slot.is_retired]
    told = profile == "yubikey-5.7"
    assert found == [(Slot(0x85), Evidence.METADATA) if told else (RETIRED_SLOTS[-1], Evidence.CERTIFICATE)]
    assert not [row for row in run(observe(Look(thorough=True)), executor(card)).keys if row.slot.is_retired]


@pytest.mark.parametrize("number", range(2, 28))
def test_a_fault_in_the_metadata_of_one_reference_hides_no_other(number: int) -> None:
    card = issued()
    state = card._core.state
    for slot in (0x82, 0x95):
        state.keys[slot] = state.keys[Slot.KEY_MANAGEMENT]
    whole = run(observe(), executor(card))
    seen = run(observe(), executor(FaultyCard(card, f"ins=F7@{number}:sw=6F00")))
    # PIN, PUK, management key, then the slots; those without a key come to light as full.
    order = (0x80, 0x81, 0x9B, *EVERYTHING.slots, *(slot for slot in RETIRED_SLOTS if slot not in EVERYTHING.slots))
    struck = order[number - 1]
    assert [row for row in seen.keys if row.slot != struck] == [row for row in whole.keys if row.slot != struck]
    assert (seen.pin, seen.puk == whole.puk) == (whole.pin, struck != 0x81)
    assert (seen.management_key == whole.management_key) is (struck != 0x9B)
    if struck > 0x81 and struck != 0x9B:
        key = next(row for row in seen.keys if row.slot == struck)
        assert (key.algorithm, key.fingerprint) == (None, "")
        assert any(row.startswith(f"{struck:02X}: ") and "6F00" in row for row in seen.defects)


def test_no_key_is_lost_for_a_fault_while_the_card_was_looked_at() -> None:
    wanted = CASES["yubikey-5.7"]
    card = wanted.card()
    card._core.state.keys[0x9A] = issued()._core.state.keys[0x9A]  # a key without certificate
    before = card.state_hash()
    with pytest.raises(KeyInUse):
        wanted.run(FaultyCard(card, "ins=F7@4:sw=6F00"), MemoryJournal())
    assert card.state_hash() == before


@pytest.mark.parametrize("profile", CASES)
def test_documents_are_json_and_come_back(profile: str) -> None:
    seen = run(observe(), executor(issued(profile)))
    text = json.dumps(seen.document())
    assert Inventory.from_document(json.loads(text)) == seen


def test_a_policy_is_asked_for_no_more_than_it_needs() -> None:
    look = look_for(CASES["yubikey-5.7"].policy)
    assert look.slots == (Slot.AUTHENTICATION, Slot.SIGNATURE, Slot.KEY_MANAGEMENT, Slot.CARD_AUTHENTICATION)
    assert look.objects == (containers.CHUID.tag, containers.CCC.tag)


def test_every_read_is_free_of_side_effects() -> None:
    card = issued()
    before = card.state_hash()
    run(observe(), executor(card))
    assert card.state_hash() == before


@pytest.mark.parametrize(
    ("image", "holds"),
    [("46_Golden_FIPS_201-2_PIV", True), ("04_Tampered_CHUID", False), ("25_Disco_Object_Not_Present", True)],
)
def test_published_cards(shared_data: Path, image: str, holds: bool) -> None:
    card = images.load(json.loads((shared_data / "icam-cards" / f"{image}.json").read_bytes()))
    seen = run(observe(), executor(card))
    assert seen.security_object_holds is holds
    assert len(seen.certificates) >= 3
    assert seen.object(containers.CHUID.tag).presence is Presence.PRESENT
