"""Named attacks of a hostile server, each at the moment when the card would obey: managed, and the PIN verified.

Every attack is also executed without the guard: the witness that reads the card's log must then complain, else
the attack would prove nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cardwright_cardops.guard import GuardRefused, Rule
from cardwright_cardops.iso7816.apdu import CommandAPDU
from cardwright_cardops.iso7816.tlv import encode
from cardwright_cardops.piv import commands
from cardwright_cardops.piv.algorithms import Algorithm, ManagementAlgorithm, PinPolicy
from cardwright_cardops.piv.management_key import ManagementKey
from cardwright_cardops.piv.vendor import yubico
from cardwright_cardops.program.items import (
    Apdu,
    Batch,
    Block,
    Group,
    Item,
    Prove,
    SetPin,
    SetPuk,
    SignIn,
    SignRequest,
    Unblock,
    UseKey,
    VerifyPin,
    Want,
)
from cardwright_cardops.secret import Secret
from tests.support import guarded as g

IMPORTED = ec.generate_private_key(ec.SECP256R1())
FOREIGN = ec.generate_private_key(ec.SECP256R1())
ISSUED = g.issue()
FACTORY = ManagementKey(ManagementAlgorithm.AES192, Secret(bytes.fromhex("0102030405060708") * 3))
OTHER_ALGORITHM = ManagementKey(ManagementAlgorithm.AES128, Secret(bytes(16)))
DISCOVERY = encode(0x7E, encode(0x4F, g.PIV_AID) + encode(0x5F2F, b"\x40\x00"))
NAME = g.NAME.public_bytes()
NONCE = bytes(16)


@dataclass(frozen=True)
class Attack:
    """An item at the honest batch ``place``; ``felt``: without the guard the card's log tells of it."""

    rule: Rule
    item: Item
    place: int = 4
    felt: bool = True


def put(tag: int, content: bytes) -> Apdu:
    return Apdu(commands.put_data(tag, content))


ATTACKS = {
    "key from outside into 9A": Attack(Rule.FLOOR, Apdu(yubico.import_key(0x9A, FOREIGN))),
    "key from outside into 9C": Attack(Rule.FLOOR, Apdu(yubico.import_key(0x9C, FOREIGN))),
    "key from outside into 9E": Attack(Rule.FLOOR, Apdu(yubico.import_key(0x9E, FOREIGN))),
    "another key into 9D": Attack(Rule.ITEM, Apdu(yubico.import_key(0x9D, FOREIGN))),
    "key into a retired slot": Attack(Rule.ITEM, Apdu(yubico.import_key(0x82, IMPORTED))),
    "imported key without PIN": Attack(
        Rule.ITEM, Apdu(yubico.import_key(0x9D, IMPORTED, pin_policy=PinPolicy.NEVER))
    ),
    "new 9E": Attack(Rule.ITEM, Apdu(commands.generate(0x9E, Algorithm.P256))),
    "new 9A again": Attack(Rule.ITEM, Apdu(commands.generate(0x9A, Algorithm.P256))),
    "new 9A of another algorithm": Attack(Rule.ITEM, Apdu(commands.generate(0x9A, Algorithm.P384)), 2),
    "new 9A without PIN": Attack(
        Rule.ITEM, Apdu(commands.generate(0x9A, Algorithm.P256, pin_policy=PinPolicy.NEVER)), 2
    ),
    "new 9C with PIN once": Attack(
        Rule.ITEM, Apdu(commands.generate(0x9C, Algorithm.P256, pin_policy=PinPolicy.ONCE)), 2
    ),
    "new key unseen": Attack(
        Rule.ITEM, Apdu(commands.generate(0x9A, Algorithm.P256), want=Want.STATUS), 2, felt=False
    ),
    "retries": Attack(Rule.FLOOR, Apdu(yubico.set_retries(15, 15))),
    "reset": Attack(Rule.FLOOR, Apdu(yubico.reset()), felt=False),
    "move 9C": Attack(Rule.FLOOR, Apdu(yubico.move_key(0x9C, 0x82))),
    "delete 9E": Attack(Rule.FLOOR, Apdu(yubico.delete_key(0x9E))),
    "Discovery": Attack(Rule.FLOOR, put(0x7E, DISCOVERY), felt=False),
    "pairing code": Attack(Rule.FLOOR, put(0x5FC123, encode(0x99, b"12345678") + encode(0xFE, b""))),
    "secure messaging signer": Attack(Rule.FLOOR, put(0x5FC122, g.container(g.certificate(FOREIGN.public_key())))),
    "vendor object": Attack(Rule.FLOOR, put(0x5FFF00, b"\x80\x03\x81\x01\x01")),
    "unknown object": Attack(Rule.FLOOR, put(0x5FC17F, b"x")),
    "face": Attack(Rule.ITEM, put(0x5FC108, b"x")),
    "CHUID of another card": Attack(Rule.ITEM, put(0x5FC102, g.chuid(bytes(16)))),
    "CHUID emptied": Attack(Rule.ITEM, put(0x5FC102, b"")),
    "certificate emptied": Attack(Rule.ITEM, put(0x5FC101, b"")),
    "certificate of a foreign key": Attack(Rule.ITEM, put(0x5FC105, g.container(g.certificate(FOREIGN.public_key())))),
    "certificate of 9E": Attack(Rule.ITEM, put(0x5FC101, g.container(g.certificate(ISSUED.keys[0x9E])))),
    "no certificate at all": Attack(Rule.ITEM, put(0x5FC105, b"certificate")),
    "name read": Attack(Rule.FLOOR, Apdu(commands.get_data(0x5FC109))),
    "name guessed": Attack(Rule.FLOOR, Apdu(commands.get_data(0x5FC109), want=Want.DIGEST)),
    "name compared": Attack(
        Rule.FLOOR, Apdu(commands.get_data(0x5FC109), want=Want.STATUS, expect=g.sha256(g.printed(g.HOLDER)))
    ),
    "fingerprints read": Attack(Rule.FLOOR, Apdu(commands.get_data(0x5FC103)), felt=False),
    "factory management key": Attack(Rule.PIN, Apdu(yubico.set_management_key(FACTORY))),
    "weaker management key": Attack(Rule.ITEM, Apdu(yubico.set_management_key(OTHER_ALGORITHM))),
    "factory PUK": Attack(Rule.PIN, SetPuk(Secret(g.PUK), Secret(b"12345678"))),
    "factory PUK tried": Attack(Rule.PIN, SetPuk(Secret(b"12345678"), Secret(g.NEW_PUK)), felt=False),
    "PIN reset": Attack(Rule.PIN, Unblock(Secret(g.PUK))),
    "PIN blocked": Attack(Rule.FLOOR, Block(0x80), felt=False),
    "PUK blocked": Attack(Rule.FLOOR, Block(0x81), felt=False),
    "PIN changed": Attack(Rule.PIN, SetPin(), felt=False),
    "PIN a third time": Attack(Rule.PIN, VerifyPin()),
    "Global PIN": Attack(Rule.PIN, VerifyPin(0x00), felt=False),
    "PUK as PIN": Attack(Rule.PIN, VerifyPin(0x81), felt=False),
    "signature with 9A": Attack(Rule.KEY, UseKey(0x9A, 0x11, bytes(32))),
    "agreement with 9A": Attack(Rule.KEY, UseKey(0x9A, 0x11, bytes(65), agree=True), felt=False),
    "proof with 9A": Attack(Rule.KEY, Prove(0x9A, 0x11, NONCE)),
    "proof with 9D": Attack(Rule.KEY, Prove(0x9D, 0x11, NONCE), felt=False),
    "sign-in": Attack(Rule.KEY, SignIn(0x11, "https://evil.example", NONCE)),
    "request for 9E": Attack(Rule.KEY, SignRequest(0x9E, NAME), felt=False),
    "request for 9A again": Attack(Rule.KEY, SignRequest(0x9A, NAME)),
    "attestation of 9E": Attack(Rule.KEY, Apdu(yubico.attest(0x9E)), felt=False),
    "another application": Attack(Rule.FLOOR, Apdu(commands.select(bytes.fromhex("A000000527471117")))),
    "short AID": Attack(Rule.FLOOR, Apdu(commands.select(bytes.fromhex("A000000308"))), felt=False),
    "security domain": Attack(Rule.FLOOR, Apdu(commands.select(commands.ISSUER_SECURITY_DOMAIN_AID)), felt=False),
    "secure channel": Attack(Rule.ITEM, Apdu(CommandAPDU(0x80, 0x50, 0xFF, 0x00, bytes(8), 256)), felt=False),
    "PIN guessed in the clear": Attack(
        Rule.ITEM, Apdu(CommandAPDU(0x00, 0x20, 0x00, 0x80, b"123456\xff\xff")), felt=False
    ),
    "chained guess": Attack(
        Rule.ITEM, Apdu(CommandAPDU(0x10, 0x20, 0x00, 0x80, b"123456\xff\xff")), felt=False
    ),
    "free use in the clear": Attack(
        Rule.ITEM, Apdu(commands.use_key(0x11, 0x9A, bytes(32))), felt=False
    ),
    "agreement for secure messaging": Attack(
        Rule.ITEM, Apdu(CommandAPDU(0x00, 0x87, 0x27, 0x04, bytes(10))), felt=False
    ),
    "vendor instruction": Attack(Rule.ITEM, Apdu(CommandAPDU(0x00, 0xEE, 0x01, 0x00)), felt=False),
    "new 9A with fingerprint only": Attack(
        Rule.ITEM, Apdu(commands.generate(0x9A, Algorithm.P256, pin_policy=PinPolicy.MATCH_ONCE)), 2, felt=False
    ),
}  # fmt: skip


def at(place: int) -> tuple[g.Bench, Batch]:
    """A live session before its batch ``place``."""
    bench, program = g.bench(ISSUED, IMPORTED), g.session(IMPORTED)
    batch = next(program)
    for _ in range(place):
        batch = program.send(bench.execute(batch))
    if place > 3:
        # Nothing of the guard: the card is ready for everything.
        g.send(bench.card, commands.verify(0x80, Secret(g.PIN)))
        bench.card.log.pop()
    return bench, batch


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_attack_does_not_reach_the_card(attack: Attack) -> None:
    bench, honest = at(attack.place)
    count, state, log = bench.card.apdu_count, bench.card.state_hash(), list(bench.card.log)
    front = honest.items[:1] if attack.place == 2 else ()
    batch = Batch((Group((*front, attack.item), True),), g.STAGE)
    with pytest.raises(GuardRefused) as caught:
        bench.execute(batch)
    assert caught.value.rule is attack.rule
    assert caught.value.index == len(front)
    assert (bench.card.apdu_count, bench.card.state_hash(), bench.card.log) == (count, state, log)


@pytest.mark.parametrize("attack", [one for one in ATTACKS.values() if one.felt], ids=[
    name for name, one in ATTACKS.items() if one.felt
])  # fmt: skip
def test_without_the_guard_the_card_tells_of_it(attack: Attack) -> None:
    bench, honest = at(attack.place)
    front = honest.items[:1] if attack.place == 2 else ()
    bench.execute(Batch((Group((*front, attack.item), True),), g.STAGE), guarded=False)
    assert g.beyond(bench) != []


def test_refusals_hold_nothing_of_the_item() -> None:
    bench, _ = at(4)
    with pytest.raises(GuardRefused) as caught:
        bench.execute(Batch((Group((SetPuk(Secret(b"sesame00"), Secret(b"12345678")),), True),), g.STAGE))
    text = caught.value.explain() + repr(caught.value)
    assert "sesame00" not in text
    assert "12345678" not in text
    assert caught.value.code == "GUARD_REFUSED"
    assert "G5" in caught.value.message
