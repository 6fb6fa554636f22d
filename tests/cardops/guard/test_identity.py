"""The card of the preview and no other: clones, swaps, resets. The judge is the log of the card that was put in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from cardwright_cardops.guard import GuardRefused, Identity, Permit, Rule, State, begin, in_order, judge
from cardwright_cardops.guard import operations as o
from cardwright_cardops.guard.identity import check_proof, proof_batch
from cardwright_cardops.guard.verdict import Deny
from cardwright_cardops.iso7816.tlv import encode
from cardwright_cardops.piv import commands, proofs
from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.management_key import answer_witness
from cardwright_cardops.piv.pins import FixedPins
from cardwright_cardops.piv.responses import parse_public_key
from cardwright_cardops.program.items import Answer, Answers, Apdu, Batch, Group, Outcome, Prove, SetPuk, VerifyPin
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.connection import CardRemoved, CardReset
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.card.keypool import KeyPool
from cardwright_simulators.card.log import KeyUse, Selected, Write
from cardwright_simulators.card.state import CardState, StoredKey
from tests.support import guarded as g

IMPORTED = ec.generate_private_key(ec.SECP256R1())
ISSUED = g.issue()
WITHOUT_9E = g.issue(card_key=False)
NONCE = bytes(range(32))


def altered(change: Callable[[CardState], None], issued: g.Issued = ISSUED) -> VirtualCard:
    """A card that is in all things but one the issued one."""
    state = CardState.decode(issued.snapshot)
    change(state)
    return VirtualCard.restore(state.encode())


def other_9e(state: CardState) -> None:
    scalar = ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value
    state.keys[0x9E] = replace(state.keys[0x9E], private=(scalar.to_bytes(32, "big"),))


def no_9e(state: CardState) -> None:
    del state.keys[0x9E]


def other_guid(state: CardState) -> None:
    state.objects[0x5FC102] = encode(0x53, g.chuid(bytes(16)))


def no_chuid(state: CardState) -> None:
    del state.objects[0x5FC102]


def broken_chuid(state: CardState) -> None:
    state.objects[0x5FC102] = b"\x53\x03\x34\x10\x00"


def other_serial(state: CardState) -> None:
    state.serial = 7


IMPOSTORS = {
    change.__name__: change for change in (other_9e, no_9e, other_guid, no_chuid, broken_chuid, other_serial)
}
HARMLESS = (Selected, KeyUse)


def untouched(card: VirtualCard, before: str) -> None:
    """No PIN, no PUK, no management key reached the card and nothing on it changed; only 9E may have proved it."""
    assert [one for one in card.log if not isinstance(one, HARMLESS)] == []
    assert {one.slot for one in card.log if isinstance(one, KeyUse)} <= {0x9E}
    assert card.state_hash() == before


def batches() -> list[tuple[g.Bench, Batch, g.Steps]]:
    """The honest session just before each of its batches."""
    places = []
    for index in range(6):
        bench, program = g.bench(ISSUED, IMPORTED), g.session(IMPORTED)
        batch = next(program)
        for _ in range(index):
            batch = program.send(bench.execute(batch))
        places.append((bench, batch, program))
    return places


@pytest.mark.parametrize("impostor", IMPOSTORS)
def test_impostor_between_preview_and_session_gets_nothing(impostor: str) -> None:
    bench, program = g.bench(ISSUED, IMPORTED), g.session(IMPORTED)
    clone = altered(IMPOSTORS[impostor])
    before = clone.state_hash()
    bench.socket.card = clone
    bench.execute(next(program))
    first = Batch((Group((Apdu(commands.select()), VerifyPin(), SetPuk(Secret(g.PUK), Secret(g.NEW_PUK))), True),), "a")
    refusals = []
    for batch in (
        Batch((Group((Apdu(commands.select()), Apdu(commands.management_witness(g.MANAGER.algorithm))), True),), "s"),
        Batch((Group((Apdu(commands.select()), VerifyPin()), True),), "a"),
        first,
    ):
        with pytest.raises(GuardRefused) as caught:
            bench.execute(batch)
        refusals.append(caught.value.rule)
    assert refusals[:2] == [Rule.PLAN, Rule.PLAN]
    untouched(clone, before)


@pytest.mark.parametrize("impostor", IMPOSTORS)
@pytest.mark.parametrize("place", range(1, 6))
def test_impostor_after_a_reset_in_the_session_gets_nothing(place: int, impostor: str) -> None:
    bench, batch, _ = batches()[place]
    clone = altered(IMPOSTORS[impostor])
    before = clone.state_hash()

    def swap(command: bytes) -> None:
        bench.socket.card = clone
        bench.socket.before = lambda command: None
        raise CardReset("The card was reset.", sent=False)

    bench.socket.before = swap
    answers = bench.execute(batch)
    assert {answer.outcome for one in answers for answer in one} == {Outcome.NOT_SENT}
    again = Batch((Group((Apdu(commands.select()), *batch.items), True),), g.STAGE)
    rules = []
    for attempt in (again, again, Batch((Group((Apdu(commands.select()), VerifyPin()), True),), "other")):
        with pytest.raises(GuardRefused) as caught:
            bench.execute(attempt)
        rules.append(caught.value.rule)
    untouched(clone, before)
    assert Rule.PLAN in rules


@pytest.mark.parametrize("stage", [g.STAGE, "next"])
def test_the_same_card_proves_itself_and_goes_on_after_a_reset(stage: str) -> None:
    bench, batch, _ = batches()[4]

    def reset(command: bytes) -> None:
        bench.socket.before = lambda command: None
        bench.card.reset()
        raise CardReset("The card was reset.", sent=False)

    bench.socket.before = reset
    bench.execute(batch)
    witness = Apdu(commands.management_witness(g.MANAGER.algorithm))
    answers = bench.execute(Batch((Group((Apdu(commands.select()), witness), True),), stage))
    answer, _ = answer_witness(g.MANAGER, answers[0][1].data)
    proofs = sum(isinstance(one, KeyUse) and one.slot == 0x9E for one in bench.card.log)
    answers = bench.execute(Batch((Group((Apdu(answer), *batch.items), True),), stage))
    assert all(one.ok for one in answers[0])
    assert proofs == 3  # the server's, and the guard's own in each of two transactions
    assert g.beyond(bench) == []


def test_a_card_that_is_pulled_while_it_proves_itself_answers_as_pulled() -> None:
    bench, batch, _ = batches()[1]

    def pull(command: bytes) -> None:
        raise CardRemoved("The card is gone.", sent=False)

    bench.socket.before = pull
    answers = bench.execute(batch)
    assert [[one.outcome for one in group] for group in answers] == [[Outcome.NOT_SENT] * 2]
    assert isinstance(answers[0][0].cause, CardRemoved)
    assert not bench.guarded.state.lost
    bench.socket.before = lambda command: None
    assert bench.execute(batch)[0][1].ok


# ------------------------------------------------------------------------------- cards that cannot prove themselves


def write_chuid(stage: str = g.STAGE) -> g.Steps:
    """Manage the card and write one object."""
    witness = Apdu(commands.management_witness(g.MANAGER.algorithm))
    answers = yield Batch((Group((Apdu(commands.select()), witness), True),), stage)
    answer, _ = answer_witness(g.MANAGER, answers[0][1].data)
    yield Batch((Group((Apdu(answer), Apdu(commands.put_data(0x5FC102, g.chuid(g.NEW_GUID)))), True),), stage)


def chuid_permit() -> Permit:
    made = in_order(o.PutObject(0x5FC102, g.sha256(g.chuid(g.NEW_GUID))))
    return Permit(g.sha256(b"plan"), (*made, replace(made[0], operation=o.Manage(0x0A), rank=None, times=3)))


def done(bench: g.Bench, program: g.Steps) -> list[Answers]:
    """All answers of a program."""
    collected = []
    batch = next(program)
    while True:
        collected.append(bench.execute(batch))
        try:
            batch = program.send(collected[-1])
        except StopIteration:
            return collected


def test_unprovable_card_works_while_it_stays() -> None:
    bench = g.bench(WITHOUT_9E, IMPORTED, chuid_permit(), unbroken=True)
    assert all(one.ok for answers in done(bench, write_chuid()) for one in answers[0])
    assert [one for one in bench.card.log if isinstance(one, Write)] == [Write("object", 0x5FC102)]


def test_unprovable_card_needs_a_new_preview_after_a_break() -> None:
    bench = g.bench(WITHOUT_9E, IMPORTED, chuid_permit(), unbroken=False)
    before = bench.card.state_hash()
    with pytest.raises(GuardRefused) as caught:
        done(bench, write_chuid())
    assert caught.value.rule is Rule.PLAN
    assert bench.card.apdu_count == VirtualCard.restore(WITHOUT_9E.snapshot).apdu_count
    untouched(bench.card, before)


@pytest.mark.parametrize("impostor", ["other_guid", "no_chuid", "broken_chuid", "other_serial"])
def test_unprovable_impostor_that_says_something_else_gets_nothing(impostor: str) -> None:
    bench = g.bench(WITHOUT_9E, IMPORTED, chuid_permit(), unbroken=True)
    clone = altered(IMPOSTORS[impostor], WITHOUT_9E)
    before = clone.state_hash()
    bench.socket.card = clone
    with pytest.raises(GuardRefused):
        done(bench, write_chuid())
    untouched(clone, before)


def test_card_without_piv_application_is_not_a_card_without_chuid() -> None:
    state = begin(Permit(bytes(32)), Identity(None, None, None))
    assert isinstance(state, State)
    selected, absent = Answer(Outcome.ANSWERED, 0x9000), Answer(Outcome.ANSWERED, 0x6A82)
    assert isinstance(check_proof(state, (selected, absent), NONCE), State)
    for answers in ((absent, absent), (absent, Answer(Outcome.NOT_SENT)), (selected, Answer(Outcome.NOT_SENT))):
        assert isinstance(check_proof(state, answers, NONCE), Deny)


# ------------------------------------------------------------------------- identity that the session itself changes


def test_new_card_uuid_is_expected_from_then_on() -> None:
    bench = g.bench(ISSUED, IMPORTED, chuid_permit())
    done(bench, write_chuid("one"))
    bench.guarded.end_stage()
    witness = Apdu(commands.management_witness(g.MANAGER.algorithm))
    batch = Batch((Group((Apdu(commands.select()), witness), True),), "two")
    assert bench.execute(batch)[0][1].ok
    bench.guarded.end_stage()
    bench.socket.card = VirtualCard.restore(ISSUED.snapshot)
    with pytest.raises(GuardRefused):
        bench.execute(batch)


@pytest.mark.parametrize("written", [False, True])
def test_after_a_doubt_about_the_chuid_both_card_uuids_are_this_card(written: bool) -> None:
    bench = g.bench(ISSUED, IMPORTED, chuid_permit())
    program = write_chuid("one")
    batch = program.send(bench.execute(next(program)))

    def lose(command: bytes) -> None:
        if command[1] == 0xDB:
            bench.socket.before = lambda command: None
            if written:
                bench.card.transmit(command)
            bench.card.reset()
            raise CardReset("The card was reset.")

    bench.socket.before = lose
    assert bench.execute(batch)[0][1].outcome is Outcome.IN_DOUBT
    witness = Apdu(commands.management_witness(g.MANAGER.algorithm))
    assert bench.execute(Batch((Group((Apdu(commands.select()), witness), True),), "two"))[0][1].ok


def remake(stage: str = "one") -> g.Steps:
    """Manage the card and make a new 9E."""
    witness = Apdu(commands.management_witness(g.MANAGER.algorithm))
    answers = yield Batch((Group((Apdu(commands.select()), witness), True),), stage)
    answer, _ = answer_witness(g.MANAGER, answers[0][1].data)
    yield Batch((Group((Apdu(answer), Apdu(commands.generate(0x9E, Algorithm.P256))), True),), stage)


def remake_permit() -> Permit:
    keys = {slot: g.fingerprint(public) for slot, public in ISSUED.keys.items()}
    made = in_order(o.MakeKey(0x9E, 0x11, replaces=keys[0x9E]))
    return Permit(
        g.sha256(b"plan"), (*made, replace(made[0], operation=o.Manage(0x0A), rank=None, times=3)), keys
    )


def test_new_card_key_proves_the_card_from_then_on() -> None:
    bench = g.bench(ISSUED, IMPORTED, remake_permit())
    done(bench, remake())
    bench.guarded.end_stage()
    witness = Apdu(commands.management_witness(g.MANAGER.algorithm))
    batch = Batch((Group((Apdu(commands.select()), witness), True),), "two")
    assert bench.execute(batch)[0][1].ok
    bench.guarded.end_stage()
    bench.socket.card = VirtualCard.restore(ISSUED.snapshot)
    with pytest.raises(GuardRefused):
        bench.execute(batch)


def test_card_key_in_doubt_needs_a_new_preview() -> None:
    bench = g.bench(ISSUED, IMPORTED, remake_permit())
    program = remake()
    batch = program.send(bench.execute(next(program)))

    def lose(command: bytes) -> None:
        if command[1] == 0x47:
            raise CardRemoved("The card is gone.")

    bench.socket.before = lose
    bench.execute(batch)
    bench.socket.before = lambda command: None
    count = bench.card.apdu_count
    with pytest.raises(GuardRefused):
        bench.execute(Batch((Group((Apdu(commands.select()),), True),), "two"))
    assert bench.card.apdu_count == count


# ------------------------------------------------------------------------------------------------------ the proof


@pytest.mark.parametrize("algorithm", [Algorithm.RSA2048, Algorithm.P256, Algorithm.P384, Algorithm.ED25519])
def test_proofs_of_every_kind_of_card_key(algorithm: Algorithm) -> None:
    card = VirtualCard("yubikey-5.7", key_pool=KeyPool.shared())
    factory = replace(g.MANAGER, value=Secret(bytes.fromhex("0102030405060708") * 3))
    g.manage(card, factory)
    made = g.send(card, commands.generate(0x9E, algorithm))
    public = parse_public_key(algorithm, made)
    identity = Identity(None, None, g.spki(public))
    state = begin(Permit(bytes(32)), identity)
    assert isinstance(state, State)
    local = LocalExecutor(DirectConnection(card), KeyItems(FixedPins()))
    (answers,) = local.execute(proof_batch(state, "s", NONCE))
    proven = check_proof(state, answers, NONCE)
    assert isinstance(proven, State)
    assert proven.proven
    assert isinstance(check_proof(state, answers, bytes(32)), Deny), "a proof for another nonce"
    other = begin(Permit(bytes(32)), Identity(None, None, g.spki(IMPORTED.public_key())))
    assert isinstance(other, State)
    assert isinstance(check_proof(other, answers, NONCE), Deny), "a proof by another key"


@pytest.mark.parametrize(
    ("serial", "card_key", "size"),
    [(7, IMPORTED.public_key(), 4), (None, IMPORTED.public_key(), 3), (7, None, 3), (None, None, 2)],
)
def test_what_a_card_is_asked(serial: int | None, card_key: Any, size: int) -> None:
    state = begin(Permit(bytes(32)), Identity(None, serial, None if card_key is None else g.spki(card_key)))
    assert isinstance(state, State)
    asked = proof_batch(state, "s", NONCE)
    plain = [one.command.encode(extended=one.command.le > 256) for one in asked.items if isinstance(one, Apdu)]
    wanted = ["00a4040009a0000003080000100000", "00cb3fff0000055c035fc1020000", "00f8000000"]
    assert [one.hex() for one in plain] == (wanted if serial is not None else wanted[:2])
    assert [one for one in asked.items if isinstance(one, Prove)] == ([Prove(0x9E, 0x11, NONCE)] if card_key else [])
    assert (len(asked.items), asked.stage, [group.essential for group in asked.groups]) == (size, "s", [True])


def test_damaged_proofs_prove_nothing() -> None:
    bench = g.bench(ISSUED, IMPORTED)
    state = bench.guarded.state
    (answers,) = bench.local.execute(proof_batch(state, "s", NONCE))
    assert isinstance(check_proof(state, answers, NONCE), State)
    token = answers[-1].data
    damaged = [token[:at] + bytes((token[at] ^ 1,)) + token[at + 1 :] for at in range(len(token))]
    damaged += [token[:-1], token + b"\x00", b"", b"\x30\x00"]
    taken = [
        at for at, one in enumerate(damaged)
        if isinstance(check_proof(state, (*answers[:-1], replace(answers[-1], data=one)), NONCE), State)
    ]  # fmt: skip
    # The name of the signature algorithm is not looked at: it follows from the key.
    algorithm = token.index(bytes.fromhex("300a06082a8648ce3d040302"))
    assert set(taken) <= set(range(algorithm, algorithm + 12))


def test_proof_of_a_sign_in_is_no_proof_of_the_card() -> None:
    bench = g.bench(ISSUED, IMPORTED)
    state = bench.guarded.state
    (answers,) = bench.local.execute(proof_batch(state, "s", NONCE))
    stored = CardState.decode(ISSUED.snapshot).keys[0x9E]
    assert isinstance(stored, StoredKey)
    key = ec.derive_private_key(int.from_bytes(stored.private[0], "big"), ec.SECP256R1())
    for audience, wanted in (("https://portal.example", Deny), (proofs.PROOF_AUDIENCE, State)):
        made = proofs.prepare(audience, NONCE, bytes(32))
        token = proofs.token(made, Algorithm.P256, key.sign(made.message, ec.ECDSA(hashes.SHA256())))
        assert isinstance(check_proof(state, (*answers[:-1], replace(answers[-1], data=token)), NONCE), wanted)


def test_plan_must_be_the_one_of_the_preview() -> None:
    allowed = chuid_permit()
    identity = g.identity(ISSUED)
    for plan in (None, bytes(32), allowed.plan[:-1], g.sha256(b"another plan")):
        denied = begin(allowed, identity, plan=plan)
        assert isinstance(denied, Deny)
        assert denied.rule is Rule.PLAN
    assert isinstance(begin(Permit(bytes(32)), identity), State), "reading needs no plan"


def test_permit_without_entries_only_reads() -> None:
    state = begin(Permit(bytes(32)), g.identity(ISSUED))
    assert isinstance(state, State)
    read = Batch((Group((Apdu(commands.select()), Apdu(commands.get_data(0x5FC102)), Prove(0x9E, 0x11, NONCE)), True),))
    assert not isinstance(judge(state, read), Deny)
    for item in (VerifyPin(), Apdu(commands.management_witness(g.MANAGER.algorithm))):
        assert isinstance(judge(state, Batch((Group((Apdu(commands.select()), item), True),), "s")), Deny)
