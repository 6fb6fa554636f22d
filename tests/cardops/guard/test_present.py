"""A card whose key in 9E is newer than its certificate: bound by the key that it proves, or only as it lies there."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cardwright_cardops.guard import (
    Entry,
    GuardedExecutor,
    GuardRefused,
    Identity,
    Permit,
    Rule,
    State,
    begin,
    present_identity,
)
from cardwright_cardops.guard import operations as o
from cardwright_cardops.piv import commands
from cardwright_cardops.piv.algorithms import Algorithm, ManagementAlgorithm
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.management_key import ManagementKey
from cardwright_cardops.piv.pins import FixedPins
from cardwright_cardops.piv.responses import parse_public_key
from cardwright_cardops.program.items import Apdu, Batch, Group, VerifyPin
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.connection import CardRemoved
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.card.log import Verify
from cardwright_simulators.reader.faults import FaultyCard
from tests.support import guarded as g

FOREIGN = g.spki(ec.generate_private_key(ec.SECP256R1()).public_key())
ENTERS_PIN = Permit(bytes(32), (Entry(o.EnterPin(), None, 3),))
VERIFY = Batch((Group((Apdu(commands.select()), VerifyPin()), essential=True),), g.STAGE)


def broken_off() -> tuple[VirtualCard, Identity, bytes]:
    """A card with a new key in 9E and the certificate of the one before; what it shows; the new key."""
    issued = g.issue("yubikey-5.7")
    shown = g.identity(issued)
    raw = json.loads(issued.snapshot)
    made = VirtualCard("yubikey-5.7", serial=12345678)
    factory = bytes.fromhex("0102030405060708") * 3
    g.manage(made, ManagementKey(ManagementAlgorithm.AES192, Secret(factory)))
    new = parse_public_key(Algorithm.P256, g.send(made, commands.generate(0x9E, Algorithm.P256)))
    raw["keys"]["9E"] = json.loads(made.snapshot())["keys"]["9E"]
    return VirtualCard.restore(json.dumps(raw).encode()), shown, g.spki(new)


def copy_of(card: VirtualCard, **changes: str) -> VirtualCard:
    """A clone: everything that can be read, and the PIN; not the key in 9E. ``changes``: of objects."""
    raw = json.loads(card.snapshot())
    raw["keys"]["9E"] = raw["keys"]["9A"]
    raw["objects"] |= changes
    return VirtualCard.restore(json.dumps(raw).encode())


def executor(card: VirtualCard | g.Socket | FaultyCard) -> LocalExecutor:
    return LocalExecutor(DirectConnection(card), KeyItems(FixedPins(Secret(g.PIN))))


def session(local: LocalExecutor, identity: Identity, *, unbroken: bool) -> GuardedExecutor:
    state = begin(ENTERS_PIN, identity, plan=bytes(32))
    assert isinstance(state, State)
    return GuardedExecutor(local, state, unbroken=lambda: unbroken)


def pins(card: VirtualCard) -> int:
    return sum(isinstance(row, Verify) for row in card.log)


def test_without_it_the_card_is_refused_for_good() -> None:
    card, shown, _ = broken_off()
    with pytest.raises(GuardRefused) as refused:
        session(executor(card), shown, unbroken=True).execute(VERIFY)
    assert refused.value.rule is Rule.PLAN and pins(card) == 0


def test_a_card_is_bound_by_the_recorded_key_that_it_proves() -> None:
    card, shown, new = broken_off()
    socket = g.Socket(card)
    local = executor(socket)
    found = present_identity(local, shown, (FOREIGN, new), unknown=True)
    assert found == Identity(shown.guid, shown.serial, new)
    # No weaker than by a certificate: neither a reset nor a pause needs anybody's word.
    guarded = session(local, found, unbroken=False)
    assert guarded.execute(VERIFY)[0][1].ok
    guarded.end_stage()
    clone = copy_of(card)
    socket.card = clone
    with pytest.raises(GuardRefused) as refused:
        guarded.execute(VERIFY)
    assert refused.value.rule is Rule.PLAN and pins(clone) == 0


def test_a_card_with_a_key_that_nobody_saw_is_bound_as_long_as_it_lies_there() -> None:
    card, shown, _ = broken_off()
    local = executor(card)
    found = present_identity(local, shown, (FOREIGN,), unknown=True)
    assert found == Identity(shown.guid, shown.serial, None)
    assert session(local, found, unbroken=True).execute(VERIFY)[0][1].ok
    before = pins(card)
    with pytest.raises(GuardRefused, match="cannot prove"):
        session(local, found, unbroken=False).execute(VERIFY)
    assert pins(card) == before


def test_a_clone_of_a_card_gets_no_pin_unless_a_key_of_it_is_not_known() -> None:
    """A clone that copies certificate and names, put in before the preview."""
    card, shown, new = broken_off()
    for keys in ((), (new,), (FOREIGN, new)):
        clone = copy_of(card)
        found = present_identity(executor(clone), shown, keys, unknown=False)
        assert found == shown
        with pytest.raises(GuardRefused):
            session(executor(clone), found, unbroken=True).execute(VERIFY)
        assert pins(clone) == 0


def test_another_card_is_not_taken_for_it() -> None:
    card, shown, new = broken_off()
    chuid = (bytes((0x53, len(g.chuid(g.NEW_GUID)))) + g.chuid(g.NEW_GUID)).hex()
    for other in (copy_of(card, **{"5FC102": chuid}), VirtualCard("yubikey-5.7", serial=87654321)):
        assert present_identity(executor(other), shown, (new,), unknown=True) == shown


def test_a_card_that_proves_its_certificate_stays_bound_by_it() -> None:
    issued = g.issue("yubikey-5.7")
    card, shown = VirtualCard.restore(issued.snapshot), g.identity(issued)
    assert present_identity(executor(card), shown, (FOREIGN,), unknown=True) == shown
    assert present_identity(executor(card), shown, (), unknown=False) == shown


def test_a_card_without_a_key_is_asked_nothing() -> None:
    card, shown, new = broken_off()
    silent = Identity(shown.guid, shown.serial, None)
    before = card.apdu_count
    assert present_identity(executor(card), silent, (new,), unknown=True) == silent
    assert card.apdu_count == before


def test_only_as_many_keys_are_tried_as_the_contract_names() -> None:
    card, shown, new = broken_off()
    many = tuple(g.spki(ec.generate_private_key(ec.SECP256R1()).public_key()) for _ in range(4))
    assert present_identity(executor(card), shown, (*many, new), unknown=False) == shown
    assert present_identity(executor(card), shown, (*many[:3], new), unknown=False).card_key == new


def test_a_card_that_is_lost_in_between_says_so() -> None:
    card, shown, new = broken_off()
    with pytest.raises(CardRemoved):
        present_identity(executor(FaultyCard(card, "apdu=3+:remove")), shown, (new,), unknown=True)
