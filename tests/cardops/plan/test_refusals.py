"""Bad input and bad cards: each has its own error, and nothing is half done without the error saying so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.iso7816.status import NoSpace, VerificationFailed
from cardwright_cardops.piv.algorithms import Algorithm, PinPolicy, PublicKey, UnsupportedAlgorithm
from cardwright_cardops.piv.management_key import ManagementKeyRefused
from cardwright_cardops.piv.pins import LastTry
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.authority import (
    AuthorityRefused,
    Certify,
    Issued,
    Pending,
    Preflight,
    Question,
    Refused,
    Reply,
)
from cardwright_cardops.plan.candidates import ManagementKeyUnknown, PukBlocked, PukUnknown
from cardwright_cardops.plan.capabilities import CapabilityMissing
from cardwright_cardops.plan.conduct import conduct
from cardwright_cardops.plan.execute import CertificateUnfit, ObjectTooLarge, ReadBackDiffers
from cardwright_cardops.plan.init import PlanChanged, Secrets, initialize, look_for, personalize
from cardwright_cardops.plan.local_authority import LocalAuthority, SecretMalformed
from cardwright_cardops.plan.observe import NotPivCard, observe
from cardwright_cardops.plan.planner import KeyInUse, SelfSigningImpossible, plan
from cardwright_cardops.plan.policy import DevicePolicy, SecretsPolicy, SlotPolicy, parse_keys
from cardwright_cardops.plan.records import Entry, JournalFailed, MemoryJournal
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.connection import CardUnresponsive
from cardwright_simulators.card import ManagementAuthentication, Verify, VirtualCard, Write
from cardwright_simulators.reader.faults import FaultyCard
from tests.support.card_init import CASES, LEFT_ALONE, NOW, P256, PIN, PUK, Case, executor


def spoiled(card: VirtualCard, *apdus: str) -> None:
    for apdu in ("00A4040009A00000030800001000", *apdus):
        card.transmit(bytes.fromhex(apdu))


WRONG_PIN = "0020008008" + "39" * 8
CHANGE_PUK = "00240081103132333435363738" + "39" * 8
WRONG_PUK = "0024008110" + "30" * 8 + "39" * 8


def case(keys: str, profile: str = "yubikey-5.7", **changes: object) -> Case:
    return replace(Case(profile, keys, {}), **changes)  # type: ignore[arg-type]


REFUSED_BEFORE_ANY_WRITE = [
    pytest.param(case("9d=x25519"), SelfSigningImpossible, id="a key that cannot sign itself"),
    pytest.param(case("9d=x25519:import"), SelfSigningImpossible, id="an imported key that cannot sign itself"),
    pytest.param(case("9a=rsa4096", "yubikey-5.4"), CapabilityMissing, id="an algorithm that came later"),
    pytest.param(case("9a=ed25519", "pivapplet"), CapabilityMissing, id="an algorithm that is not announced"),
    pytest.param(case("95=p256", "pivapplet"), CapabilityMissing, id="a slot that the applet lacks"),
    pytest.param(
        case("9d=p256:import", "sp800-73-5", secrets=LEFT_ALONE), CapabilityMissing, id="import into a standard card"
    ),
    pytest.param(
        case("9d=p256", "sp800-73-5", secrets=LEFT_ALONE), SelfSigningImpossible, id="an agreement key of the standard"
    ),
    pytest.param(case("9a=p256", "sp800-73-5"), CapabilityMissing, id="another management key for a standard card"),
    pytest.param(
        case("9a=p256", "tdes-only", secrets=SecretsPolicy(retries=(5, 5))), CapabilityMissing, id="tries not told"
    ),
]


@pytest.mark.parametrize(("wanted", "error"), REFUSED_BEFORE_ANY_WRITE)
def test_what_the_card_cannot_do_is_refused_before_the_first_write(
    wanted: Case, error: type[CardwrightError]
) -> None:
    card = wanted.card()
    with pytest.raises(error) as caught:
        wanted.run(card, MemoryJournal())
    assert "Nothing" in caught.value.effect
    assert not [record for record in card.log if isinstance(record, Write | Verify | ManagementAuthentication)]


@pytest.mark.parametrize("pin_policy", [PinPolicy.MATCH_ONCE, PinPolicy.MATCH_ALWAYS])
def test_a_key_that_wants_a_fingerprint_is_refused_before_the_first_write(pin_policy: PinPolicy) -> None:
    """A card without a sensor refuses GENERATE, when the key that was to go is written down as gone already."""
    card, journal = VirtualCard("yubikey-5.7"), MemoryJournal()
    policy = DevicePolicy(slots=(SlotPolicy(Slot.AUTHENTICATION, Algorithm.P256, pin_policy=pin_policy),))
    with pytest.raises(CapabilityMissing) as caught:
        initialize(executor(card), policy, Secrets(new_puk=Secret(PUK)), journal, now=NOW)
    assert caught.value.capability == "match" and journal.entries() == ()
    assert not [record for record in card.log if isinstance(record, Write | Verify | ManagementAuthentication)]


def test_a_card_of_another_kind_is_not_a_piv_card() -> None:
    class OtherCard:
        atr = bytes.fromhex("3B00")

        def transmit(self, command: bytes) -> bytes:
            return b"\x6a\x82"

        def reset(self) -> None:
            raise AssertionError

    with pytest.raises(NotPivCard) as caught:
        CASES["yubikey-5.7"].run(OtherCard(), MemoryJournal())
    assert caught.value.sw == 0x6A82


def test_a_dead_card_is_said_to_be_dead() -> None:
    card = VirtualCard("yubikey-5.7")
    with pytest.raises(CardUnresponsive):
        CASES["yubikey-5.7"].run(FaultyCard(card, "apdu=1+:unsent"), MemoryJournal())


def test_an_unknown_management_key_is_not_guessed() -> None:
    card, wanted = VirtualCard("yubikey-5.7"), case("9a=p256")
    card._core.state.management.value, card._core.state.management.default = bytes(range(24)), False
    before = card.state_hash()
    with pytest.raises(ManagementKeyUnknown):
        wanted.run(card, MemoryJournal())
    assert card.state_hash() == before
    assert not [record for record in card.log if isinstance(record, ManagementAuthentication)]


def test_a_wrong_management_key_is_tried_once() -> None:
    card, wanted = VirtualCard("yubikey-5.7"), case("9a=p256", given_key=bytes(24))
    card._core.state.management.value, card._core.state.management.default = bytes(range(24)), False
    before = card.state_hash()
    with pytest.raises(ManagementKeyRefused):
        wanted.run(card, MemoryJournal())
    assert card.state_hash() == before
    assert len([record for record in card.log if isinstance(record, ManagementAuthentication)]) == 1


def test_a_card_that_accepts_any_management_key_gets_no_secret() -> None:
    """The mutual protocol: a card that says yes must prove that it has the same key before a PUK is sent."""

    class Impostor(VirtualCard):
        def transmit(self, command: bytes) -> bytes:
            answer = super().transmit(command)
            if command[1] == 0x87 and command[3] == 0x9B and answer[-2:] == b"\x90\x00" and answer[2] == 0x82:
                return answer[:-3] + bytes((answer[-3] ^ 1,)) + answer[-2:]
            return answer

    card = Impostor("yubikey-5.7")
    with pytest.raises(ManagementKeyRefused):
        case("9a=p256").run(card, MemoryJournal())
    assert not [record for record in card.log if isinstance(record, Verify | Write)]


def test_a_blocked_puk_is_said_before_anything_is_written() -> None:
    card = VirtualCard("yubikey-5.7")
    spoiled(card, *[WRONG_PUK] * 3)
    before = card.state_hash()
    with pytest.raises(PukBlocked) as caught:
        case("9a=p256").run(card, MemoryJournal())
    assert "Nothing" in caught.value.effect
    assert card.state_hash() == before


def test_the_last_try_of_the_puk_is_not_spent() -> None:
    card = VirtualCard("yubikey-5.7")
    spoiled(card, *[WRONG_PUK] * 2)
    with pytest.raises(LastTry):
        case("9a=p256").run(card, MemoryJournal())
    assert card._core.state.references[0x81].tries == 1


def test_a_puk_that_somebody_changed_is_asked_for_and_wrong_ones_stop_at_once() -> None:
    card = VirtualCard("yubikey-5.7")
    spoiled(card, CHANGE_PUK)
    with pytest.raises(VerificationFailed) as caught:
        case("9a=p256").run(card, MemoryJournal())
    assert caught.value.tries_left == 2
    with pytest.raises(PukUnknown):
        initialize(executor(card), case("9a=p256").policy, Secrets(), MemoryJournal(), now=NOW)
    assert card._core.state.references[0x81].tries == 2


def test_a_puk_that_the_person_gives_sets_the_pin() -> None:
    card, journal = VirtualCard("yubikey-5.7", serial=12345678), MemoryJournal()
    spoiled(card, CHANGE_PUK)
    wanted = Case("yubikey-5.7", "9a=p256", {0x9A: (P256, True)}, puk=b"9" * 8)
    wanted.run(card, journal)
    assert wanted.faults_of(card, journal) == []


def test_a_blocked_pin_is_unblocked_by_the_way() -> None:
    card, journal = VirtualCard("yubikey-5.7", serial=12345678), MemoryJournal()
    spoiled(card, *[WRONG_PIN] * 3)
    wanted = Case("yubikey-5.7", "9a=p256", {0x9A: (P256, True)})
    wanted.run(card, journal)
    assert wanted.faults_of(card, journal) == []


def test_a_wrong_pin_stops_with_its_tries() -> None:
    wanted, journal = Case("yubikey-5.7", "9a=p256", {0x9A: (P256, True)}), MemoryJournal()
    card = wanted.card()
    wanted.run(card, journal)
    more = DevicePolicy(slots=parse_keys("9a=p256,9c=p256"))
    with pytest.raises(VerificationFailed) as caught:
        initialize(executor(card, pin=b"000000"), more, Secrets(), journal, now=NOW)
    assert caught.value.tries_left == 2
    assert caught.value.effect == "One try is spent; nothing else on the card changed."
    wanted = Case("yubikey-5.7", "9a=p256,9c=p256", {0x9A: (P256, True), 0x9C: (P256, True)})
    wanted.run(card, journal)
    assert wanted.faults_of(card, journal) == []


def test_keys_that_are_in_use_are_not_overwritten() -> None:
    wanted, journal = Case("yubikey-5.7", "9a=p256", {0x9A: (P256, True)}), MemoryJournal()
    card = wanted.card()
    wanted.run(card, journal)
    before = card.state_hash()
    with pytest.raises(KeyInUse) as caught:
        case("9a=rsa2048").run(card, journal)
    assert "9A" in caught.value.message
    assert card.state_hash() == before


def test_a_full_card_says_what_is_done() -> None:
    wanted, journal = CASES["yubikey-5.7"], MemoryJournal()
    card = wanted.card()
    with pytest.raises(NoSpace) as caught:
        wanted.run(FaultyCard(card, "ins=DB@4:full"), journal)
    assert "of 13 steps are done; starting again does the rest." in caught.value.effect
    wanted.run(card, journal)
    assert wanted.faults_of(card, journal) == []


def test_a_journal_that_cannot_be_kept_stops_before_the_card_changes() -> None:
    class FullDisk(MemoryJournal):
        def note(self, entries: tuple[Entry, ...]) -> None:
            raise JournalFailed("The disk is full.")

    card = VirtualCard("yubikey-5.7")
    before = card.state_hash()
    with pytest.raises(JournalFailed):
        CASES["yubikey-5.7"].run(card, FullDisk())
    assert card.state_hash() == before


def test_a_card_that_forgets_what_was_written_is_found_out() -> None:
    class Forgetful(VirtualCard):
        def transmit(self, command: bytes) -> bytes:
            if command[1] == 0xDB and bytes.fromhex("5C035FC107") in command:
                return b"\x90\x00"
            return super().transmit(command)

    card = Forgetful("yubikey-5.7")
    with pytest.raises(CardwrightError) as caught:
        CASES["yubikey-5.7"].run(card, MemoryJournal())
    assert caught.value.code in ("READ_BACK_DIFFERS", "NOT_FOUND")
    assert "13 of 13 steps are done" in caught.value.effect


def test_a_card_that_alters_what_was_written_is_found_out() -> None:
    with pytest.raises(ReadBackDiffers):
        wanted = CASES["yubikey-5.7"]
        card = wanted.card()
        wanted.run(FaultyCard(card, "ins=CB@3:corrupt"), MemoryJournal())


@pytest.mark.parametrize("expected", ["00" * 32, "ff" * 32, "x"])
def test_a_plan_is_named_by_its_digest_and_nothing_near_it(expected: str) -> None:
    wanted = case("9a=p256")
    card = wanted.card()
    before = card.state_hash()
    with pytest.raises(PlanChanged):
        secrets = Secrets(new_puk=Secret(PUK))
        initialize(executor(card), wanted.policy, secrets, MemoryJournal(), now=NOW, expected=expected)
    assert card.state_hash() == before


def test_a_plan_that_was_not_shown_is_not_carried_out() -> None:
    wanted = case("9a=p256")
    card = wanted.card()
    seen = run(observe(look_for(wanted.policy)), executor(card))
    digest = plan(wanted.policy, seen, now=NOW).digest
    spoiled(card, CHANGE_PUK)
    with pytest.raises(PlanChanged):
        secrets = Secrets(new_puk=Secret(PUK))
        initialize(executor(card), wanted.policy, secrets, MemoryJournal(), now=NOW, expected=digest)


@pytest.mark.parametrize(
    "secrets", [Secrets(new_puk=Secret(b"1234567")), Secrets(puk=Secret(b"")), Secrets(management_key=Secret(b"key"))]
)
def test_secrets_that_no_card_takes_are_refused(secrets: Secrets) -> None:
    card = VirtualCard("yubikey-5.7")
    with pytest.raises(SecretMalformed):
        initialize(executor(card), case("9a=p256").policy, secrets, MemoryJournal(), now=NOW)
    assert card.apdu_count == 0


def test_unknown_algorithms_have_a_word_of_their_own() -> None:
    with pytest.raises(UnsupportedAlgorithm):
        parse_keys("9a=dsa")


@dataclass
class Altered:
    """The local authority with one answer replaced."""

    inner: LocalAuthority
    question: type
    reply: Callable[[Question], Reply]

    def answer(self, questions: tuple[Question, ...]) -> tuple[Reply, ...]:
        return tuple(
            self.reply(one) if isinstance(one, self.question) else self.inner.answer((one,))[0] for one in questions
        )


def certificate(public: PublicKey, octets: int = 1) -> bytes:
    """A certificate for ``public`` by nobody, with an extension of so many octets."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nobody")])
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.999.1"), bytes(octets))
    builder = x509.CertificateBuilder(name, name, public, 1, NOW, NOW + timedelta(days=9))
    builder = builder.add_extension(extension, critical=False)
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.DER)


def for_another_key(question: Question) -> Reply:
    return Issued(certificate(ec.generate_private_key(ec.SECP256R1()).public_key()))


def too_large(question: Question) -> Reply:
    assert isinstance(question, Certify)
    return Issued(certificate(question.public_key, 4000))


@pytest.mark.parametrize(
    ("question", "reply", "error"),
    [
        (Preflight, lambda one: Refused("the card is suspended."), AuthorityRefused),
        (Certify, lambda one: Issued(b"\x30\x03\x02\x01\x00"), CertificateUnfit),
        (Certify, for_another_key, CertificateUnfit),
        (Certify, too_large, ObjectTooLarge),
        (Certify, lambda one: Refused("not entitled."), AuthorityRefused),
    ],
)
def test_what_an_authority_gives_is_looked_at_before_it_is_written(
    question: type, reply: Callable[[Question], Reply], error: type[CardwrightError]
) -> None:
    card, journal = VirtualCard("yubikey-5.7"), MemoryJournal()
    authority = Altered(LocalAuthority(journal=journal, new_puk=Secret(PUK), now=NOW), question, reply)
    with pytest.raises(error):
        conduct(personalize(case("9a=p256").policy, now=NOW), executor(card), authority, journal)
    assert Write("object", 0x5FC105) not in card.log


def test_a_certificate_that_is_not_ready_ends_the_session_well() -> None:
    card, journal = VirtualCard("yubikey-5.7", serial=12345678), MemoryJournal()
    wanted = Case("yubikey-5.7", "9a=p256", {0x9A: (P256, True)})
    local = LocalAuthority(journal=journal, new_puk=Secret(PUK), now=NOW)
    authority = Altered(local, Certify, lambda one: Pending())
    report = conduct(personalize(wanted.policy, now=NOW), executor(card), authority, journal)
    assert report.pending == (Slot.AUTHENTICATION,)
    assert report.inventory.certificates == ()
    assert [step.kind for step in wanted.run(card, journal).done] == ["write-certificate"]
    assert wanted.faults_of(card, journal) == []


@pytest.mark.parametrize("profile", ["yubikey-5.7", "yubikey-5.4 short", "pivapplet"])
def test_a_pin_that_the_card_keeps_is_proved_before_anything_is_written(profile: str) -> None:
    wanted = CASES[profile]
    card = wanted.card()
    references = card._core.state.references
    references[0x80] = replace(references[0x80], value=b"999999\xff\xff", default=False)
    puk, journal = references[0x81].value, MemoryJournal()
    with pytest.raises(VerificationFailed) as caught:
        wanted.run(card, journal)
    assert caught.value.tries_left == 2 and "done" not in caught.value.effect
    assert not [record for record in card.log if isinstance(record, Write)] and references[0x81].value == puk
    references[0x80] = replace(references[0x80], value=PIN.ljust(8, b"\xff"), tries=3)
    wanted.run(card, journal)
    assert wanted.faults_of(card, journal) == []
