"""The same execution over a line: batches in their wire form, an authority and a journal behind an await."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cardwright_cardops import wire
from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.piv.algorithms import Algorithm, ManagementAlgorithm
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.pins import FixedPins
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.acts import Pace
from cardwright_cardops.plan.authority import Certify, Issued, Question, Reply, Signed, SignFirst
from cardwright_cardops.plan.conduct import conduct_async
from cardwright_cardops.plan.execute import Report
from cardwright_cardops.plan.init import personalize
from cardwright_cardops.plan.inventory import Identity, fingerprint
from cardwright_cardops.plan.local_authority import LocalAuthority
from cardwright_cardops.plan.observe import observe
from cardwright_cardops.plan.policy import DevicePolicy, KeySource, SecretsPolicy, SlotPolicy
from cardwright_cardops.plan.records import Entry, Kind, MemoryJournal
from cardwright_cardops.program.items import Answers, AnyBatch, SignRequest
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.direct import DirectCard, DirectConnection
from cardwright_proto.card.v1 import programs_pb2
from cardwright_simulators.card import Verify, VirtualCard
from cardwright_simulators.reader.faults import FaultyCard
from tests.support.card_init import NOW, PIN, PUK, executor

FOUR = tuple(
    SlotPolicy(
        slot, Algorithm.P256, KeySource.IMPORTED if slot is Slot.KEY_MANAGEMENT else KeySource.GENERATED, "issued"
    )
    for slot in (Slot.AUTHENTICATION, Slot.SIGNATURE, Slot.KEY_MANAGEMENT, Slot.CARD_AUTHENTICATION)
)


@dataclass
class Line:
    """A workstation at the other end: what crosses the line is octets."""

    card: DirectCard
    trips: int = 0
    ended: int = 0
    _end: LocalExecutor = field(init=False)

    def __post_init__(self) -> None:
        pins = FixedPins(Secret(PIN), Secret(PIN))
        self._end = LocalExecutor(DirectConnection(self.card), KeyItems(pins))

    async def execute(self, batch: AnyBatch) -> Answers:
        self.trips += 1
        await asyncio.sleep(0)
        sent = wire.batch_to_wire(batch).SerializeToString()
        answers = self._end.execute(wire.batch_from_wire(wire.parse(sent, programs_pb2.Batch)))
        back = wire.answers_to_wire(answers).SerializeToString()
        return wire.answers_from_wire(wire.parse(back, programs_pb2.Answers), batch)

    async def end_stage(self) -> None:
        self.ended += 1
        self._end.end_stage()


class Issuer:
    """Certificates by a CA, for keys that proved themselves by a request; all else as card init has it."""

    def __init__(self, journal: MemoryJournal) -> None:
        self._journal = journal
        self._local = LocalAuthority(journal=journal, new_puk=Secret(PUK), now=NOW)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
        self.requests: list[bytes] = []

    async def answer(self, questions: tuple[Question, ...]) -> tuple[Reply, ...]:
        await asyncio.sleep(0)
        return tuple(map(self._one, questions))

    def _one(self, question: Question) -> Reply:
        match question:
            case Certify() if (issued := self._issued(question)) is not None:
                return Issued(issued)
            case Certify(private_key=None):
                subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"slot {question.slot.label}")])
                return SignFirst(SignRequest(question.slot, subject.public_bytes()))
            case Certify():
                return Issued(self._issue(question, x509.Name([])))
            case Signed():
                request = x509.load_der_x509_csr(question.answer)
                assert request.is_signature_valid
                assert request.public_key() == question.request.public_key
                self.requests.append(question.answer)
                return Issued(self._issue(question.request, request.subject))
        return self._local.answer((question,))[0]

    def _issued(self, request: Certify) -> bytes | None:
        """The certificate that an interrupted session left behind."""
        mark = fingerprint(request.public_key)
        kept = [row for row in self._journal.entries() if row.kind is Kind.CERTIFICATE and row.fingerprint == mark]
        return next((row.value.reveal() for row in kept if row.value is not None), None)

    def _issue(self, request: Certify, subject: x509.Name) -> bytes:
        builder = x509.CertificateBuilder(
            self.name, subject, request.public_key, len(self.requests) + 1, NOW, NOW + timedelta(days=300)
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.DER)


class Database:
    """A journal behind an await."""

    def __init__(self, journal: MemoryJournal) -> None:
        self._journal = journal

    async def recall(self, identity: Identity) -> tuple[Entry, ...]:
        await asyncio.sleep(0)
        return self._journal.recall(identity)

    async def note(self, entries: tuple[Entry, ...]) -> None:
        await asyncio.sleep(0)
        self._journal.note(entries)


def over(line: Line, policy: DevicePolicy, journal: MemoryJournal, algorithm: ManagementAlgorithm | None) -> Report:
    execution = personalize(policy, now=NOW, pace=Pace.PHASE, management_algorithm=algorithm, certifies_existing=False)
    return asyncio.run(conduct_async(execution, line, Issuer(journal), Database(journal)))


def replacing(**changes: object) -> DevicePolicy:
    return DevicePolicy(slots=FOUR, replace=True, **changes)  # type: ignore[arg-type]


def test_a_whole_personalization_takes_four_round_trips() -> None:
    card, journal = VirtualCard("yubikey-5.7", serial=1), MemoryJournal()
    line = Line(card)
    report = over(line, replacing(), journal, ManagementAlgorithm.AES192)
    assert len(report.done) == 13
    assert (line.trips, line.ended) == (4, 1)
    assert {record.reference for record in card.log if isinstance(record, Verify)} == {0x80, 0x81}
    seen = run(observe(), executor(card))
    assert {row.issuer for row in seen.certificates} == {"CN=Test CA"}
    assert (seen.pin.is_default, seen.puk.is_default, seen.management_key.is_default) == (False, False, False)


def test_without_knowing_the_management_key_s_algorithm_it_takes_six() -> None:
    line = Line(VirtualCard("yubikey-5.7", serial=1))
    assert len(over(line, replacing(), MemoryJournal(), None).done) == 13
    assert line.trips <= 6


def test_renewal_of_two_certificates_takes_four_and_nothing_due_takes_one() -> None:
    card, journal = VirtualCard("yubikey-5.7", serial=1), MemoryJournal()
    over(Line(card), replacing(), journal, ManagementAlgorithm.AES192)
    ending = DevicePolicy(slots=FOUR[:2], replace=True, renew_before=timedelta(days=400))
    line = Line(card)
    report = over(line, ending, journal, ManagementAlgorithm.AES192)
    assert [step.kind for step in report.done] == ["generate-key"] * 2 + ["write-certificate"] * 2
    assert line.trips == 4
    line = Line(card)
    assert over(line, replacing(), journal, ManagementAlgorithm.AES192).done == ()
    assert line.trips == 1


def test_a_wrong_algorithm_of_the_management_key_costs_round_trips_only() -> None:
    line = Line(VirtualCard("yubikey-5.7", serial=1))
    assert len(over(line, replacing(), MemoryJournal(), ManagementAlgorithm.AES128).done) == 13


@pytest.mark.parametrize("fault", ["apdu={0}+:remove", "apdu={0}:remove-after,apdu={1}+:remove"])
def test_one_more_session_finishes_after_any_fault(fault: str) -> None:
    policy = DevicePolicy(slots=FOUR, secrets=SecretsPolicy())
    number = 0
    while True:
        number += 1
        card, journal = VirtualCard("yubikey-5.7", serial=1), MemoryJournal()
        faulty = FaultyCard(card, fault.format(number, number + 1))
        try:
            over(Line(faulty), policy, journal, ManagementAlgorithm.AES192)
        except CardwrightError:
            card.power_off()
        if not faulty.struck:
            break
        over(Line(card), replacing(), journal, ManagementAlgorithm.AES192)
        assert over(Line(card), policy, journal, ManagementAlgorithm.AES192).done == (), f"fault at {number}"
    assert number > 30
