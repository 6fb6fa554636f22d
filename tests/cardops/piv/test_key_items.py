"""Key items on virtual cards: PINs, the guard of the last try, requests, proofs; the card's log is the witness."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from cardwright_cardops.iso7816.apdu import ResponseAPDU
from cardwright_cardops.piv import commands, proofs
from cardwright_cardops.piv.algorithms import Algorithm, PublicKey
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.management_key import authenticate
from cardwright_cardops.piv.pins import AlreadyBlocked, FixedPins, LastTry, NoPin, PukCounterUnknown, TriesGuard
from cardwright_cardops.piv.responses import parse_public_key
from cardwright_cardops.piv.vendor.yubico import get_metadata
from cardwright_cardops.program.items import (
    Answer,
    Apdu,
    Item,
    ItemRefused,
    Program,
    Prove,
    SetPin,
    SetPuk,
    SignIn,
    SignRequest,
    Unblock,
    UseKey,
    VerifyPin,
    ask,
)
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_simulators.card.log import KeyUse, Verify
from tests.support.virtual import NEW_PIN, NEW_PUK, PIN, PUK, Bench, bench, default_management_key

SUBJECT = x509.Name.from_rfc4514_string("CN=Request").public_bytes()
WRONG = Secret(b"999999")


def do(with_card: Bench, *items: Item) -> tuple[Answer, ...]:
    return run(ask(*items), with_card.executor)


def verifies(with_card: Bench) -> list[bool]:
    return [entry.ok for entry in with_card.card.log if isinstance(entry, Verify)]


def test_verify_asks_the_counter_first_and_then_sends_the_pin() -> None:
    with_card = bench()
    before = with_card.card.apdu_count
    assert do(with_card, VerifyPin())[0].ok
    assert with_card.card.apdu_count - before == 3, "counter, VERIFY, and the status dropped at the end"
    assert verifies(with_card) == [True]


def test_a_counter_seen_in_this_transaction_is_not_asked_again() -> None:
    with_card = bench()
    before = with_card.card.apdu_count
    assert do(with_card, Apdu(get_metadata(0x80)), VerifyPin())[1].ok
    assert with_card.card.apdu_count - before == 3


def test_counters_of_another_form_tell_nothing() -> None:
    keys = KeyItems(FixedPins(PIN), TriesGuard())
    for data in ("", "06", "0600", "060103", "0603030201", "050101"):
        keys.observe(get_metadata(0x80), ResponseAPDU(bytes.fromhex(data), 0x9000))
        assert keys.guard.must_ask(0x80), data
    keys.observe(get_metadata(0x80), ResponseAPDU(bytes.fromhex("06020302"), 0x9000))
    assert not keys.guard.must_ask(0x80)


def test_the_last_try_is_never_spent() -> None:
    with_card = bench(current=WRONG)
    assert do(with_card, VerifyPin())[0].sw == 0x63C2
    assert do(with_card, VerifyPin())[0].sw == 0x63C1
    for _ in range(3):
        answer = do(with_card, VerifyPin())[0]
        assert isinstance(answer.cause, LastTry) and answer.cause.tries_left == 1
    assert verifies(with_card) == [False, False]


def test_the_last_try_is_spent_only_when_the_person_says_so() -> None:
    with_card = bench(current=WRONG, keep=0)
    assert [do(with_card, VerifyPin())[0].sw for _ in range(3)] == [0x63C2, 0x63C1, 0x63C0]
    assert do(with_card, VerifyPin())[0].sw == 0x6983
    guarded = bench(current=WRONG)
    guarded.keys.guard.note_status(0x80, 0x6983)
    with pytest.raises(AlreadyBlocked):
        guarded.keys.guard.check(0x80)


def test_a_blocked_pin_gets_no_value() -> None:
    with_card = bench(current=WRONG, keep=0)
    for _ in range(3):
        do(with_card, VerifyPin())
    with_card.keys.guard.keep = 1
    answer = do(with_card, VerifyPin())[0]
    assert isinstance(answer.cause, AlreadyBlocked)
    assert len(verifies(with_card)) == 3


def test_a_new_transaction_knows_nothing_of_the_counter() -> None:
    with_card = bench()
    guard = with_card.keys.guard
    do(with_card, Apdu(commands.pin_state()))
    assert guard.tries(0x80) == 3
    do(with_card, Apdu(commands.get_data(0x7E)))
    assert guard.tries(0x80) is None


def test_set_pin_and_set_puk_change_the_card() -> None:
    with_card = bench(new=NEW_PIN)
    assert do(with_card, SetPin())[0].ok
    assert do(with_card, SetPuk(PUK, NEW_PUK))[0].ok
    assert do(with_card, VerifyPin())[0].sw == 0x63C2, "the old PIN is no longer right"
    assert do(with_card, SetPuk(PUK, NEW_PUK))[0].sw == 0x63C2


def test_unblock_sets_a_new_pin_without_the_old_one() -> None:
    with_card = bench(current=WRONG, new=NEW_PIN, keep=0)
    for _ in range(3):
        do(with_card, VerifyPin())
    assert do(with_card, Unblock(PUK))[0].ok
    after = KeyItems(FixedPins(NEW_PIN), TriesGuard())
    assert after.perform(VerifyPin(), with_card.executor.plain).ok


def test_the_puk_is_guarded_where_its_counter_is_known() -> None:
    with_card = bench()
    for _ in range(2):
        answers = do(with_card, Apdu(get_metadata(0x81)), SetPuk(WRONG, NEW_PUK))
        assert answers[1].sw in (0x63C2, 0x63C1)
    answer = do(with_card, Apdu(get_metadata(0x81)), SetPuk(WRONG, NEW_PUK))[1]
    assert isinstance(answer.cause, LastTry) and "Nothing unblocks a PUK" in answer.cause.advice


@pytest.mark.parametrize("item", [SetPuk(PUK, NEW_PUK), Unblock(PUK)])
def test_a_puk_whose_counter_the_card_does_not_tell_wants_consent(item: Item) -> None:
    asks = Apdu(get_metadata(0x81), frozenset((0x9000, 0x6D00)))
    with_card = bench("sp800-73-5", new=NEW_PIN)
    assert isinstance(do(with_card, asks, item)[1].cause, PukCounterUnknown)
    allowed = bench("sp800-73-5", new=NEW_PIN, keep=0)
    assert do(allowed, asks, item)[1].ok


def test_without_a_pin_nothing_is_sent() -> None:
    with_card = bench(current=None)
    answer = do(with_card, VerifyPin())[0]
    assert isinstance(answer.cause, NoPin) and verifies(with_card) == []
    assert isinstance(do(with_card, Unblock(PUK))[0].cause, NoPin)


def generate(with_card: Bench, slot: int, algorithm: Algorithm, *more: Item, profile: str = "yubikey-5.7") -> Answer:
    def program() -> Program[Answer]:
        yield from authenticate(default_management_key(profile), stage="make")
        answers = yield from ask(Apdu(commands.generate(slot, algorithm)), *more, stage="make")
        made.append(answers[0].require("generating"))
        return answers[-1]

    made: list[bytes] = []
    answer = run(program(), with_card.executor)
    with_card.executor.plain.send(commands.select())
    PUBLIC[id(with_card)] = parse_public_key(algorithm, made[0])
    return answer


PUBLIC: dict[int, PublicKey] = {}


@pytest.mark.parametrize("algorithm", [Algorithm.P256, Algorithm.P384, Algorithm.RSA2048, Algorithm.ED25519])
@pytest.mark.parametrize("slot", [0x9A, 0x9C])
def test_a_request_is_signed_for_a_key_made_in_this_session(algorithm: Algorithm, slot: int) -> None:
    with_card = bench()
    answer = generate(with_card, slot, algorithm, VerifyPin(), SignRequest(slot, SUBJECT))
    request = x509.load_der_x509_csr(answer.require("signing the request"))
    assert request.is_signature_valid
    assert request.subject.rfc4514_string() == "CN=Request"
    key = request.public_key()
    assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey)
    assert key == PUBLIC[id(with_card)]
    assert [entry.slot for entry in with_card.card.log if isinstance(entry, KeyUse)][-1:] == [slot]


def uses(with_card: Bench) -> int:
    return sum(isinstance(entry, KeyUse) and entry.slot != 0x9B for entry in with_card.card.log)


def test_no_request_for_a_key_of_another_slot_or_session() -> None:
    with_card = bench()
    answer = generate(with_card, 0x9A, Algorithm.P256, VerifyPin(), SignRequest(0x9C, SUBJECT))
    assert isinstance(answer.cause, ItemRefused)
    stranger = KeyItems(FixedPins(PIN))
    with pytest.raises(ItemRefused, match="No key was made in slot 9A"):
        stranger.perform(SignRequest(0x9A, SUBJECT), with_card.executor.plain)
    assert uses(with_card) == 0


def test_a_subject_that_is_no_name_is_refused_before_anything_is_signed() -> None:
    with_card = bench()
    answer = generate(with_card, 0x9A, Algorithm.P256, VerifyPin(), SignRequest(0x9A, b"\x30\x01"))
    assert isinstance(answer.cause, ItemRefused) and uses(with_card) == 0


def test_a_request_without_the_pin_answers_with_the_cards_word() -> None:
    with_card = bench()
    assert generate(with_card, 0x9A, Algorithm.P256, SignRequest(0x9A, SUBJECT)).sw == 0x6982


def test_an_x25519_key_has_no_request() -> None:
    with_card = bench()
    answer = generate(with_card, 0x9D, Algorithm.X25519, VerifyPin(), SignRequest(0x9D, SUBJECT))
    assert isinstance(answer.cause, ItemRefused)


@pytest.mark.parametrize("algorithm", [Algorithm.P256, Algorithm.P384, Algorithm.RSA2048, Algorithm.ED25519])
def test_proofs_verify_for_their_audience_and_nonce_only(algorithm: Algorithm) -> None:
    with_card = bench()
    nonce = bytes(range(16))
    proof = generate(with_card, 0x9E, algorithm, Prove(0x9E, algorithm, nonce)).require("proving")
    key = PUBLIC[id(with_card)]
    proofs.verify(proof, audience=proofs.PROOF_AUDIENCE, nonce=nonce, key=key)
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    for audience, number, by in (
        ("https://portal.example", nonce, key),
        (proofs.PROOF_AUDIENCE, bytes(16), key),
        (proofs.PROOF_AUDIENCE, nonce, other),
    ):
        with pytest.raises(proofs.ProofInvalid):
            proofs.verify(proof, audience=audience, nonce=number, key=by)


def test_a_proof_is_no_sign_in_and_the_other_way_round() -> None:
    with_card = bench()
    nonce = bytes(8)
    signed = generate(with_card, 0x9A, Algorithm.P256, VerifyPin(), SignIn(0x11, "https://portal.example", nonce))
    key = PUBLIC[id(with_card)]
    proof = signed.require("signing in")
    proofs.verify(proof, audience="https://portal.example", nonce=nonce, key=key)
    with pytest.raises(proofs.ProofInvalid):
        proofs.verify(proof, audience=proofs.PROOF_AUDIENCE, nonce=nonce, key=key)


def test_the_server_never_chooses_what_is_signed() -> None:
    with_card = bench()
    nonce = bytes(32)
    first = generate(with_card, 0x9E, Algorithm.P256, Prove(0x9E, 0x11, nonce)).data
    second = do(with_card, Prove(0x9E, 0x11, nonce))[0].data
    assert first != second
    digests = {entry.digest for entry in with_card.card.log if isinstance(entry, KeyUse) and entry.slot == 0x9E}
    assert len(digests) == 2


@pytest.mark.parametrize("nonce", [b"", bytes(7), bytes(65)])
def test_a_nonce_that_does_not_fit_is_refused(nonce: bytes) -> None:
    with_card = bench()
    answer = do(with_card, Prove(0x9E, 0x11, nonce))[0]
    assert isinstance(answer.cause, ItemRefused) and uses(with_card) == 0


@pytest.mark.parametrize("code", [0xE1, 0x33])
def test_an_algorithm_that_does_not_sign_is_refused(code: int) -> None:
    assert isinstance(do(bench(), Prove(0x9E, code, bytes(8)))[0].cause, ItemRefused)


@pytest.mark.parametrize("proof", [b"", b"\x30\x00", b"\x30\x80", bytes(40)])
def test_damaged_proofs_are_documented_errors(proof: bytes) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(proofs.ProofInvalid):
        proofs.verify(proof, audience=proofs.PROOF_AUDIENCE, nonce=bytes(8), key=key)


def test_free_key_use_answers_with_the_value() -> None:
    with_card = bench()
    answer = generate(with_card, 0x9E, Algorithm.P256, UseKey(0x9E, 0x11, bytes(32)))
    assert answer.require("signing")[0] == 0x30
    assert do(with_card, UseKey(0x9E, 0x07, bytes(32)))[0].sw in (0x6A80, 0x6A86)
