"""What each item changes in what the guard knows, whether it was sent, succeeded, or ended in doubt."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cardwright_cardops.guard import effects as e
from cardwright_cardops.guard import intents as i
from cardwright_cardops.guard import operations as o
from cardwright_cardops.guard.identity import NONCE_OCTETS, RANDOM_OCTETS
from cardwright_cardops.guard.permit import Entry, Identity, Permit
from cardwright_cardops.guard.state import UNREAD, Application, State
from cardwright_cardops.iso7816.tlv import encode
from cardwright_cardops.piv.responses import encode_public_key
from cardwright_cardops.program.items import SetPin, SetPuk, Unblock, VerifyPin
from cardwright_cardops.secret import Secret
from tests.support import guarded as g

OLD, NEW = b"1" * 32, b"2" * 32
CHUID = 0x5FC102
KEY = ec.derive_private_key(9, ec.SECP256R1()).public_key()
MADE = encode(0x7F49, encode_public_key(KEY))
FACTORY_PUK, OTHER_PUK = Secret(b"12345678"), Secret(b"12345679")


def state(**keys: bytes) -> State:
    known = MappingProxyType({int(slot[1:], 16): key for slot, key in keys.items()})
    permit = Permit(bytes(32), (Entry(o.Manage(0x0A), None, 9),) * 3, known, frozenset())
    return State.begin(permit, Identity(b"g" * 16, None, b"card key"), frozenset())


def test_an_entry_is_used_when_sent_and_done_when_it_succeeded() -> None:
    begun = state()
    assert e.sent(begun, i.Forget(), 1).used == (0, 1, 0)
    assert e.sent(begun, i.Forget(), 1).facts.done == (0, 0, 0)
    assert e.succeeded(begun, i.Forget(), 1).facts.done == (0, 1, 0)
    assert e.succeeded(begun, i.Forget(), 1).used == (0, 0, 0)
    assert e.sent(begun, i.Forget(), None) == e.succeeded(begun, i.Forget(), None) == begun


def test_a_pin_status_may_stand_from_the_moment_it_is_tried() -> None:
    for item in (VerifyPin(0x80), SetPin(0x80)):
        assert e.sent(state(), item, None).pin
    assert not e.sent(state(), Unblock(OTHER_PUK), None).pin


def test_the_factory_puk_is_counted_where_the_card_did_not_say_so() -> None:
    told = replace(state(), facts=replace(state().facts, factory=frozenset((0x81,))))
    for puk, seen, counted in (
        (FACTORY_PUK, state(), 1), (OTHER_PUK, state(), 0), (FACTORY_PUK, told, 0),
    ):  # fmt: skip
        assert e.sent(seen, Unblock(puk), None).factory_tries == counted
        assert e.sent(seen, SetPuk(puk, OTHER_PUK), None).factory_tries == counted


def test_selection_is_unknown_between_sending_and_success() -> None:
    piv = e.succeeded(replace(state(), pin=True), i.Select(bytes.fromhex("A000000308000010000100")), None)
    assert (piv.facts.application, piv.pin) == (Application.PIV, False)
    assert e.sent(piv, i.Select(b"x"), None).facts.application is Application.UNKNOWN
    assert e.succeeded(piv, i.Select(b"x"), None).facts.application is Application.DOMAIN


def test_a_made_key_is_unread_until_the_answer_tells_it() -> None:
    made = i.Generate(0x9A, 0x11, 0, 0)
    before = e.sent(state(x9A=OLD, x9C=OLD), made, None)
    assert before.facts.keys == {0x9A: UNREAD, 0x9C: OLD}
    after = e.learned(e.succeeded(before, made, None), made, MADE)
    assert after.facts.keys == {0x9A: g.fingerprint(KEY), 0x9C: OLD}
    assert after.facts.made == {0x9A} and after.card_key == b"card key" and not after.lost
    assert e.learned(before, made, b"damaged") == before


def test_a_new_card_key_is_the_one_to_prove_or_ends_the_session() -> None:
    made = i.Generate(0x9E, 0x11, 0, 0)
    assert e.learned(state(), made, MADE).card_key == g.spki(KEY)
    for damaged in (b"", MADE[:-1]):
        assert "changed unseen" in e.learned(state(), made, damaged).lost


def test_an_imported_key_is_not_made_here() -> None:
    made = e.succeeded(state(), i.Generate(0x9D, 0x11, 0, 0), None)
    imported = i.Import(0x9D, 0x11, 0, 0, NEW)
    assert e.sent(made, imported, None).facts.keys == {0x9D: UNREAD}
    after = e.succeeded(made, imported, None)
    assert after.facts.made == frozenset() and after.facts.keys == {0x9D: NEW}
    alone = e.succeeded(state(), imported, None)
    assert alone.facts.made == frozenset() and alone.facts.keys == {0x9D: NEW}
    emptied = e.succeeded(e.succeeded(state(), imported, None), i.Move(0x9D, 0x82), None)
    assert emptied.facts.made == frozenset() and emptied.facts.keys == {0x82: NEW}


def test_a_key_moves_with_its_fingerprint() -> None:
    before = e.succeeded(state(x9D=OLD), i.Generate(0x9D, 0x11, 0, 0), None)
    assert before.facts.made == {0x9D}
    moved = e.succeeded(before, i.Move(0x9D, 0x82), None)
    assert moved.facts.keys == {0x82: OLD} and moved.facts.made == frozenset()
    assert e.succeeded(before, i.Move(0x9D, None), None).facts.keys == {}
    other = e.succeeded(before, i.Generate(0x9A, 0x11, 0, 0), None)
    assert e.succeeded(other, i.Move(0x9D, 0x82), None).facts.made == {0x9A}
    assert e.succeeded(state(x9D=OLD), i.Move(0x9C, 0x82), None).facts.keys == {0x9D: OLD, 0x82: UNREAD}


@pytest.mark.parametrize("tag", [0x5FC101, CHUID, 0x5FC103])
def test_only_the_chuid_changes_the_card_uuid(tag: int) -> None:
    put = i.Put(tag, encode(0x34, b"n" * 16))
    after, doubt = e.succeeded(state(), put, None), e.doubted(state(), put)
    assert after.facts.written == {tag} and doubt.facts.written == frozenset()
    assert after.guids == {b"n" * 16 if tag == CHUID else b"g" * 16}
    assert doubt.guids == ({b"n" * 16, b"g" * 16} if tag == CHUID else {b"g" * 16})


def test_card_uuids_in_contents_and_answers() -> None:
    content = encode(0x30, bytes(25)) + encode(0x34, b"n" * 16)
    assert e.guid_of(content) == b"n" * 16
    assert e.guid_of(encode(0x30, bytes(25))) is e.guid_of(b"\x34\x10") is None
    assert e.chuid_guid(encode(0x53, content)) == b"n" * 16
    assert e.chuid_guid(content) is e.chuid_guid(encode(0x53, b"\x34\x10")) is None


def test_reset_ends_the_permit_and_tries_bring_factory_values() -> None:
    after = e.succeeded(state(x9A=OLD), i.ResetAll(), 0)
    assert (after.permit.entries, after.used, after.facts.done, after.lost) == ((), (), (), "")
    assert after.guids == {None} and after.card_key is None and not after.facts.keys
    assert "may have been reset" in e.doubted(state(), i.ResetAll()).lost
    tries = e.succeeded(state(), i.Retries(3, 3), 0)
    assert tries.facts.factory == {0x80, 0x81} and tries.facts.done == (1, 0, 0)
    assert e.succeeded(tries, SetPuk(FACTORY_PUK, OTHER_PUK), None).facts.factory == {0x80}


def test_metadata_tells_keys_and_factory_values() -> None:
    def told(reference: int, data: bytes, seen: State | None = None) -> State:
        return e.learned(seen or state(x9A=OLD), i.Ask(0xF7, reference), data)

    metadata = encode(0x01, b"\x11") + encode(0x04, encode_public_key(KEY))
    assert told(0x9A, metadata).facts.keys == {0x9A: g.fingerprint(KEY)}
    for damaged in (b"", metadata[:-1], encode(0x01, b"\x11"), encode(0x01, b"\x14") + metadata[3:],
                    encode(0x01, b"\x11\x11") + metadata[3:]):  # fmt: skip
        assert told(0x9A, damaged).facts.keys == {0x9A: UNREAD}
    assert told(0x81, b"\x05\x01\x01").facts.factory == {0x81}
    factory = told(0x80, b"\x05\x01\x01", told(0x81, b"\x05\x01\x01"))
    assert factory.facts.factory == {0x80, 0x81}
    for other in (b"\x05\x01\x00", b"", b"\x05\x01", b"\x05\x02\x01\x01"):
        assert told(0x81, other, factory).facts.factory == {0x80}
    assert e.learned(state(), i.Ask(0xF8, 0x81), b"\x05\x01\x01") == state()


def test_an_empty_slot_holds_no_key() -> None:
    before = state(x9A=OLD)
    assert e.absent(before, i.Ask(0xF7, 0x9A)).facts.keys == {}
    for other in (i.Ask(0xF7, 0x81), i.Ask(0xF8, 0x9A), i.Read(0x9A), i.Ask(0xF7, 0x9C)):
        assert e.absent(before, other).facts.keys == {0x9A: OLD}


def test_a_doubt_about_the_card_key_ends_the_session() -> None:
    for intent in (i.Generate(0x9E, 0x11, 0, 0), i.Import(0x9E, 0x11, 0, 0, NEW), i.Sealed(0x47, 0, 0x9E),
                   i.Sealed(0xFE, 0x11, 0x9E)):  # fmt: skip
        assert "changed unseen" in e.doubted(state(), intent).lost
    for other in (i.Generate(0x9A, 0x11, 0, 0), i.Sealed(0x47, 0, 0x9A), i.Sealed(0xDB, 0x3F, 0x9E), i.Forget()):
        assert e.doubted(state(), other) == state()
    assert e.learned(state(), i.Sealed(0x47, 0, 0x9E), b"").lost
    assert e.sent(state(x9A=OLD), i.Sealed(0x47, 0, 0x9A), None).facts.keys == {0x9A: UNREAD}


@pytest.mark.parametrize("first", range(0x61, 0x70))
def test_words_that_say_that_nothing_happened(first: int) -> None:
    refused = first in (0x67, 0x69, 0x6A, 0x6D, 0x6E)
    assert e.nothing_happened(i.Generate(0x9A, 0x11, 0, 0), first << 8 | 0x80) is refused
    for counted in (i.Select(b""), i.Authenticate(3, True), i.Channel(True), VerifyPin(0x80), SetPin(0x80),
                    Unblock(OTHER_PUK), SetPuk(OTHER_PUK, OTHER_PUK)):  # fmt: skip
        assert not e.nothing_happened(counted, first << 8 | 0x80)


def test_numbers_are_as_long_as_a_hash() -> None:
    assert (NONCE_OCTETS, RANDOM_OCTETS) == (32, 32)
