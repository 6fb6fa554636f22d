"""Sealed batches: only headers can be read, so only headers are judged; the card's log says what came of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cardwright_cardops.globalplatform.channel import Scp03Channel, authenticate
from cardwright_cardops.globalplatform.scp03 import (
    CardAnswer,
    SecurityLevel,
    StaticKeys,
    initialize_update,
    new_host_challenge,
)
from cardwright_cardops.globalplatform.sealing import seal
from cardwright_cardops.guard import (
    Act,
    Deny,
    Entry,
    GuardRefused,
    Operation,
    Permit,
    Rule,
    State,
    begin,
    in_order,
    judge,
    observe,
)
from cardwright_cardops.guard import operations as o
from cardwright_cardops.iso7816.apdu import CommandAPDU, ResponseAPDU
from cardwright_cardops.piv import commands
from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.management_key import answer_witness
from cardwright_cardops.piv.vendor import yubico
from cardwright_cardops.program.items import (
    NOT_SENT,
    Answer,
    Apdu,
    Batch,
    Group,
    Item,
    Outcome,
    SealedBatch,
    SealedItem,
    VerifyPin,
)
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.connection import CardRemoved
from cardwright_simulators.card.log import Verify, Write
from tests.support import guarded as g

KEY = ec.generate_private_key(ec.SECP256R1())
ISSUED = g.issue()
KEYS = {slot: g.fingerprint(public) for slot, public in ISSUED.keys.items()}
CHANNEL_KEYS = StaticKeys(*(Secret(bytes(range(0x40, 0x50))) for _ in range(3)))
DOMAIN = commands.ISSUER_SECURITY_DOMAIN_AID
SELECT = Apdu(commands.select())
FREE = (Entry(o.OpenChannel(), None, 2), Entry(o.EnterPin(), None))


def permit_of(*operations: Operation, sealed: bool = True) -> Permit:
    return Permit(bytes(32), (*in_order(*operations), *FREE), KEYS, frozenset(Act), sealed)


def opened(bench: g.Bench, *before: Item, select: bool = True) -> Scp03Channel:
    """A secure channel with the PIV application, opened through the guard."""
    host = new_host_challenge()
    start = (SELECT,) if select else ()
    first = Batch((Group((*start, *before, Apdu(initialize_update(0xFF, host))), True),), g.STAGE)
    answer = bench.execute(first)[0][-1]
    command, channel = authenticate(
        CHANNEL_KEYS, CardAnswer.parse(ResponseAPDU(answer.data, answer.sw or 0), host), SecurityLevel.ALL
    )
    assert bench.execute(Batch((Group((Apdu(command),), True),), g.STAGE))[0][0].ok
    return channel


def sealed(channel: Scp03Channel, *plain: CommandAPDU) -> SealedBatch:
    return seal(channel, plain, stage=g.STAGE).batch


def item(cla: int, ins: int, p1: int, p2: int, *apdus: bytes) -> SealedItem:
    header = bytes((cla, ins, p1, p2))
    return SealedItem(header, apdus or (header + b"\x08" + bytes(8),))


def state_of(*operations: Operation, sealed: bool = True, application: bytes = b"") -> State:
    """A session in whose stage the PIV application, or another, was selected."""
    permit = permit_of(*operations, sealed=sealed)
    state = begin(permit, g.identity(ISSUED), plan=bytes(32), domains=frozenset((DOMAIN,)))
    assert isinstance(state, State)
    select = Apdu(commands.select(application)) if application else SELECT
    return observe(state, Batch((Group((select,), True),), g.STAGE), ((Answer(Outcome.ANSWERED, 0x9000),),))


def rule_of(state: State, *items: SealedItem) -> Rule | None:
    verdict = judge(state, SealedBatch(items, g.STAGE))
    return verdict.rule if isinstance(verdict, Deny) else None


def writes(bench: g.Bench) -> list[Write]:
    return [one for one in bench.card.log if isinstance(one, Write)]


def test_sealed_writes_are_counted_by_their_headers() -> None:
    operations = (o.MakeKey(0x9C, 0x11, replaces=KEYS[0x9C]), o.PutObject(0x5FC102, bytes(32)))
    permit = permit_of(*operations)
    bench = g.bench(ISSUED, KEY, replace(permit, entries=(*permit.entries, Entry(o.Manage(0x0A), None))))
    witness = Apdu(commands.management_witness(g.MANAGER.algorithm))
    (answers,) = bench.execute(Batch((Group((SELECT, witness), True),), g.STAGE))
    answer, _ = answer_witness(g.MANAGER, answers[1].data)
    assert bench.execute(Batch((Group((Apdu(answer),), True),), g.STAGE))[0][0].ok
    channel = opened(bench, select=False)
    made = commands.generate(0x9C, Algorithm.P256)
    chuid = commands.put_data(0x5FC102, g.chuid(g.NEW_GUID))
    (done,) = bench.execute(sealed(channel, made, chuid))
    assert [one.ok for one in done] == [True, True]
    assert writes(bench) == [Write("key generated", 0x9C), Write("object", 0x5FC102)]
    state = bench.card.state_hash()
    for again in (made, chuid, commands.generate(0x9A, Algorithm.P256), yubico.reset()):
        with pytest.raises(GuardRefused):
            bench.execute(sealed(channel, again))
    assert bench.card.state_hash() == state


def test_a_refused_sealed_command_may_come_again() -> None:
    bench = g.bench(ISSUED, KEY, permit_of(o.MakeKey(0x9C, 0x11, replaces=KEYS[0x9C])))
    channel = opened(bench)
    (answers,) = bench.execute(sealed(channel, commands.generate(0x9C, Algorithm.P256)))
    assert (answers[0].sw, bench.guarded.state.used[0]) == (0x6982, 0)


@pytest.mark.parametrize(
    ("operations", "wrapped", "rule"),
    [
        ((o.MakeKey(0x9A, 0x11, replaces=KEYS[0x9A]),), item(0x84, 0x47, 0, 0x9A), None),
        ((o.MakeKey(0x9A, 0x11, replaces=KEYS[0x9C]),), item(0x84, 0x47, 0, 0x9A), Rule.ITEM),
        ((o.MakeKey(0x9A, 0x11, replaces=KEYS[0x9A]),), item(0x84, 0x47, 0, 0x9C), Rule.ITEM),
        ((o.MakeKey(0x9A, 0x11, replaces=KEYS[0x9A]),), item(0x84, 0x47, 1, 0x9A), Rule.ITEM),
        ((o.ImportKey(0x9D, 0x11),), item(0x84, 0xFE, 0x11, 0x9D), None),
        ((o.ImportKey(0x9D, 0x11),), item(0x84, 0xFE, 0x07, 0x9D), Rule.ITEM),
        ((o.ImportKey(0x9A, 0x11, replaces=KEYS[0x9A]),), item(0x84, 0xFE, 0x11, 0x9A), Rule.FLOOR),
        ((o.ImportKey(0x82, 0x11, replaces=bytes(32)),), item(0x84, 0xFE, 0x11, 0x82), Rule.ITEM),
        ((o.PutObject(0x5FC102, b""),), item(0x04, 0xDB, 0x3F, 0xFF), None),
        ((o.PutCertificate(0x9A),), item(0x84, 0xDB, 0x3F, 0xFF), None),
        ((o.PutNamed(Act.DISCOVERY, b""),), item(0x84, 0xDB, 0x3F, 0xFF), Rule.ITEM),
        ((o.PutObject(0x5FC102, b""),), item(0x84, 0xDB, 0x3F, 0x00), Rule.ITEM),
        ((o.SetManagementKey(0x0A),), item(0x84, 0xFF, 0xFF, 0xFF), None),
        ((o.SetManagementKey(0x0A, True),), item(0x84, 0xFF, 0xFF, 0xFF), Rule.ITEM),
        ((o.SetManagementKey(0x0A, True),), item(0x84, 0xFF, 0xFF, 0xFE), None),
        ((), item(0x84, 0xCB, 0x3F, 0xFF), None),
        ((), item(0x84, 0xCB, 0x3F, 0x00), Rule.ITEM),
        ((o.EnterPin(),), item(0x84, 0x20, 0x00, 0x80), Rule.FLOOR),
        ((o.ChangePuk(),), item(0x84, 0x24, 0x00, 0x81), Rule.FLOOR),
        ((o.UnblockPin(),), item(0x84, 0x2C, 0x00, 0x80), Rule.FLOOR),
        ((o.ProveKey(0x9A),), item(0x84, 0x87, 0x11, 0x9A), Rule.FLOOR),
        ((o.Manage(0x0A),), item(0x84, 0x87, 0x0A, 0x9B), Rule.FLOOR),
        ((o.Reset(),), item(0x84, 0xFB, 0, 0), Rule.FLOOR),
        ((o.MoveKey(0x9A, 0x82),), item(0x84, 0xF6, 0x82, 0x9A), Rule.FLOOR),
        ((o.ChangeChannelKeys(),), item(0x84, 0xD8, 0, 0x81), Rule.FLOOR),
        # What is not protected, or not what the header says.
        ((), item(0x00, 0xCB, 0x3F, 0xFF), Rule.ITEM),
        ((), item(0x0C, 0xCB, 0x3F, 0xFF), Rule.ITEM),
        ((), item(0x94, 0xCB, 0x3F, 0xFF), Rule.ITEM),
        ((), item(0x84, 0xCB, 0x3F, 0xFF, bytes.fromhex("00200080083132333435 36ffff")), Rule.ITEM),
        ((), item(0x84, 0xCB, 0x3F, 0xFF, bytes.fromhex("84200080083132333435 36ffff")), Rule.ITEM),
        ((), item(0x84, 0xCB, 0x3F, 0xFF, b"\x84\xcb\x3f"), Rule.ITEM),
        ((), item(0x84, 0xCB, 0x3F, 0xFF, b"\x84\xcb\x3f\xff\x08" + bytes(8), b"\x84\xcb\x3f\xff\x08" + bytes(8)),
         Rule.ITEM),
        ((), item(0x84, 0xCB, 0x3F, 0xFF, b"\x94\xcb\x3f\xff\x08" + bytes(8), b"\x84\xcb\x3f\xff\x08" + bytes(8)),
         None),
        ((), item(0x84, 0xCB, 0x3F, 0xFF, b"\x94\xcb\x3f\xff\x08" + bytes(8)), Rule.ITEM),
    ],
)  # fmt: skip
def test_headers(operations: Iterable[Operation], wrapped: SealedItem, rule: Rule | None) -> None:
    assert rule_of(state_of(*operations), wrapped) == rule


def test_sealed_items_are_used_up_like_others() -> None:
    put = item(0x84, 0xDB, 0x3F, 0xFF)
    state = state_of(o.PutObject(0x5FC102, bytes(32)), o.PutCertificate(0x9A))
    assert rule_of(state, put, put) is None
    assert rule_of(state, put, put, put) is Rule.ITEM


def test_no_sealed_part_without_permission() -> None:
    assert rule_of(state_of(o.PutObject(1, b""), sealed=False), item(0x84, 0xDB, 0x3F, 0xFF)) is Rule.ITEM
    assert rule_of(replace(state_of(), stage="other"), item(0x84, 0xCB, 0x3F, 0xFF)) is Rule.ITEM
    state = begin(Permit(bytes(32)), g.identity(ISSUED))
    assert isinstance(state, State)
    update = Apdu(initialize_update(0xFF, bytes(8)))
    denied = judge(state, Batch((Group((SELECT, update), True),), g.STAGE))
    assert isinstance(denied, Deny)


def test_security_domain_is_for_channel_keys_only() -> None:
    select = Apdu(commands.select(DOMAIN))
    keys = state_of(o.ChangeChannelKeys(), application=DOMAIN)
    assert rule_of(keys, item(0x84, 0xD8, 0x00, 0x81)) is None
    assert rule_of(keys, item(0x84, 0xE4, 0x00, 0x00)) is Rule.FLOOR
    assert rule_of(keys, item(0x84, 0xDB, 0x3F, 0xFF)) is Rule.FLOOR
    assert isinstance(judge(keys, Batch((Group((Apdu(commands.get_data(0x5FC102)),), True),), g.STAGE)), Deny)
    strange = begin(permit_of(), g.identity(ISSUED), plan=bytes(32))
    assert isinstance(strange, State)
    assert isinstance(judge(strange, Batch((Group((select,), True),), g.STAGE)), Deny)
    closed = begin(Permit(bytes(32)), g.identity(ISSUED), domains=frozenset((DOMAIN,)))
    assert isinstance(closed, State)
    assert isinstance(judge(closed, Batch((Group((select,), True),), g.STAGE)), Deny)


def test_no_sealed_read_after_the_pin() -> None:
    bench = g.bench(ISSUED, KEY, permit_of())
    channel = opened(bench, VerifyPin())
    before = bench.card.apdu_count
    with pytest.raises(GuardRefused) as caught:
        bench.execute(sealed(channel, commands.get_data(0x5FC109)))
    assert (caught.value.rule, bench.card.apdu_count) == (Rule.FLOOR, before)
    assert [one for one in bench.card.log if isinstance(one, Verify)] == [Verify(0x80, True, 3)]


def test_a_plain_command_in_a_sealed_batch_does_not_reach_the_card() -> None:
    bench = g.bench(ISSUED, KEY, permit_of())
    opened(bench)
    before = bench.card.apdu_count
    guess = bytes.fromhex("0020008008313233343536ffff")
    for header in (b"\x84\xcb\x3f\xff", b"\x00\x20\x00\x80", b"\x04\x20\x00\x80"):
        with pytest.raises(GuardRefused):
            bench.execute(SealedBatch((SealedItem(header, (guess,)),), g.STAGE))
    assert bench.card.apdu_count == before
    assert [one for one in bench.card.log if isinstance(one, Verify)] == []


@pytest.mark.parametrize(
    ("command", "allowed"),
    [
        *((CommandAPDU(0x80, 0x50, 0x30, 0x00, bytes(size)), size in (8, 16)) for size in (0, 7, 8, 9, 15, 16, 17, 24)),
        *((CommandAPDU(0x84, 0x82, 0x33, 0x00, bytes(size)), size in (16, 32)) for size in (0, 8, 15, 16, 17, 31, 32)),
        (CommandAPDU(0x80, 0x50, 0x30, 0x01, bytes(8)), False),
        (CommandAPDU(0x84, 0x82, 0x33, 0x01, bytes(16)), False),
        (CommandAPDU(0x80, 0x82, 0x33, 0x00, bytes(16)), False),
        (CommandAPDU(0x00, 0x50, 0x30, 0x00, bytes(8)), False),
    ],
)
def test_commands_that_open_a_channel(command: CommandAPDU, allowed: bool) -> None:
    verdict = judge(state_of(), Batch((Group((Apdu(command),), True),), g.STAGE))
    assert isinstance(verdict, Deny) is not allowed


def test_external_authenticate_counts_whatever_is_answered() -> None:
    bench = g.bench(ISSUED, KEY, permit_of())
    update = Apdu(initialize_update(0xFF, bytes(8)))
    wrong = Apdu(CommandAPDU(0x84, 0x82, 0x33, 0x00, bytes(16)))
    for _ in range(2):
        (answers,) = bench.execute(Batch((Group((SELECT, update, wrong), True),), g.STAGE))
        assert answers[2].sw not in (None, 0x9000)
    before = bench.card.apdu_count
    with pytest.raises(GuardRefused):
        bench.execute(Batch((Group((SELECT, update, wrong), True),), g.STAGE))
    assert bench.card.apdu_count == before


def test_sealed_new_card_key_needs_a_new_preview() -> None:
    state = state_of(o.MakeKey(0x9E, 0x11, replaces=KEYS[0x9E]))
    batch = SealedBatch((item(0x84, 0x47, 0, 0x9E),), g.STAGE)
    for answer in (Answer(Outcome.ANSWERED, 0x9000, bytes(40)), Answer(Outcome.IN_DOUBT)):
        assert observe(state, batch, ((answer,),)).lost
    for answer in (Answer(Outcome.ANSWERED, 0x6982), NOT_SENT):
        assert not observe(state, batch, ((answer,),)).lost


def test_a_card_that_is_lost_answers_sealed_batches_too() -> None:
    bench = g.bench(ISSUED, KEY, permit_of(o.PutObject(0x5FC102, bytes(32))))
    channel = opened(bench)
    bench.guarded.state = replace(bench.guarded.state, proven=False)
    def pull(command: bytes) -> None:
        raise CardRemoved("The card is gone.", sent=False)

    bench.socket.before = pull
    batch = sealed(channel, commands.put_data(0x5FC102, b"x"), yubico.get_version())
    with pytest.raises(GuardRefused):
        bench.execute(batch)
    (answers,) = bench.execute(sealed(channel, commands.put_data(0x5FC102, b"x")))
    assert [one.outcome for one in answers] == [Outcome.NOT_SENT]
