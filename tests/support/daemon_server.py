"""A server in this process, behind the daemon's ServerLink: real plans and batches, a CA of a few lines, no store.

Everything it records outlives its sessions, as a database would.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.piv.algorithms import ManagementAlgorithm
from cardwright_cardops.plan.acts import STAGE, Circumstances, Pace
from cardwright_cardops.plan.authority import Certify, Issued, ObjectContent, Question, Reply, Signed, SignFirst
from cardwright_cardops.plan.conduct import Execution, Recall, conduct_async
from cardwright_cardops.plan.execute import Report, execute
from cardwright_cardops.plan.init import look_for, personalize
from cardwright_cardops.plan.inventory import Identity, fingerprint
from cardwright_cardops.plan.local_authority import LocalAuthority
from cardwright_cardops.plan.locking import lock, state_of_pin
from cardwright_cardops.plan.observe import Look, observe
from cardwright_cardops.plan.pin_rules import PinRules
from cardwright_cardops.plan.planner import plan
from cardwright_cardops.plan.policy import DevicePolicy, SecretsPolicy, parse_keys
from cardwright_cardops.plan.records import Entry, Kind, MemoryJournal, fold
from cardwright_cardops.plan.steps import Plan, SetPin, SetPuk, Step, WriteObject
from cardwright_cardops.program.items import Answers, AnyBatch, SignRequest
from cardwright_cardops.secret import Secret
from cardwright_daemon.link.ports import (
    CardProving,
    CardSession,
    Due,
    DueItem,
    EndStage,
    EscrowedKey,
    Execute,
    Finished,
    Greeted,
    LinkState,
    Message,
    Method,
    MethodKind,
    Opening,
    Outcome,
    Pfx,
    Preview,
    Progress,
    Proof,
    Purpose,
    Push,
    ServerUnreachable,
    SignInChallenge,
    StepAnswers,
)

PUK = b"46824682"
KEYS = "9a=p256,9c=p256,9d=p256:import,9e=p256"
POLICY = DevicePolicy(slots=parse_keys(KEYS), secrets=SecretsPolicy())

OnBatch = Callable[[int, AnyBatch], Awaitable[AnyBatch]]


async def as_it_is(number: int, batch: AnyBatch) -> AnyBatch:
    """Every batch goes as the program made it."""
    return batch


@dataclass
class Server:
    """A ServerLink. ``on_batch`` sees each batch of a session with its number, from 1: it may change it, or raise."""

    policy: DevicePolicy = POLICY
    on_batch: OnBatch = as_it_is
    state: LinkState = LinkState.CONNECTED
    error: CardwrightError | None = None
    due_is: Due = field(default_factory=Due)
    pin_rules: PinRules | None = None
    asked: list[Identity] = field(default_factory=list)
    was_asked: asyncio.Event = field(default_factory=asyncio.Event)
    watched: tuple[Identity, ...] = ()
    openings: list[Opening] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    journals: dict[str, MemoryJournal] = field(default_factory=dict)
    consented: list[bytes] = field(default_factory=list)
    unasked: list[bool] = field(default_factory=list)
    proved: list[tuple[MethodKind, dict[str, bytes]]] = field(default_factory=list)
    batches: int = 0
    left: int = 0
    """Sessions whose line was let go without a word."""
    keys: tuple[EscrowedKey, ...] = ()
    signed_in: list[bytes] = field(default_factory=list)
    ca: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    pushed: Callable[[Push], None] | None = None
    shows: Callable[[Plan], Plan] = lambda steps: steps
    """The plan that it shows, and carries out, in place of the right one."""

    def journal(self, serial: str) -> MemoryJournal:
        """What is recorded of a card."""
        return self.journals.setdefault(serial, MemoryJournal())

    async def start(self, pushed: Callable[[Push], None]) -> None:
        self.pushed = pushed

    async def stop(self) -> None:
        for session in self.sessions:
            await session.close()

    def watch(self, cards: Sequence[Identity]) -> None:
        """See ``ServerLink``."""
        self.watched = tuple(cards)

    async def due(self, card: Identity, proof: bytes = b"") -> Due:
        self.asked.append(card)
        self.was_asked.set()
        if self.error is not None:
            raise self.error
        return self.due_is

    async def methods(self, card: Identity, purpose: Purpose | None, account: str) -> tuple[Method, ...]:
        return (
            Method(MethodKind.DIRECTORY_PASSWORD),
            Method(MethodKind.SECURITY_ANSWERS, (("a", "First pet?"), ("b", "First car?"))),
        )

    async def prove(
        self, card: Identity, purpose: Purpose, account: str, kind: MethodKind, values: Mapping[str, Secret]
    ) -> Proof:
        self.proved.append((kind, {name: value.reveal() for name, value in values.items()}))
        return Proof(Secret(b"token"), datetime.now(UTC) + timedelta(minutes=5))

    async def prove_by_card(self, opening: Opening) -> CardProving:
        """See ``ServerLink``."""
        self.openings.append(opening)
        return Proving(self)

    async def open(self, opening: Opening) -> CardSession:
        if self.error is not None:
            raise self.error
        self.openings.append(opening)
        self.sessions.append(Session(self, opening))
        return self.sessions[-1]

    async def escrowed(self, card: Identity, proof: Proof | None) -> tuple[EscrowedKey, ...]:
        return self.keys

    async def pfx(self, card: Identity, key: str, proof: Proof | None) -> Pfx:
        return Pfx(b"PFX " + key.encode(), Secret(b"pfx-password"))

    async def sign_in_challenge(self, link: str) -> SignInChallenge:
        return SignInChallenge("https://portal.example", b"nonce of the portal")

    async def sign_in(self, link: str, token: bytes) -> str:
        self.signed_in.append(token)
        return "https://portal.example/once"


class Proving:
    """A proof by card; what was signed is in ``Server.signed_in``."""

    challenge = SignInChallenge("urn:cardwright:server:test", b"nonce of the server, 32 octets..")

    def __init__(self, server: Server) -> None:
        self._server = server

    async def finish(self, token: bytes) -> Proof:
        """See ``CardProving``."""
        self._server.signed_in.append(token)
        return Proof(Secret(b"token by card"), datetime.now(UTC) + timedelta(minutes=5))

    async def close(self) -> None:
        """Nothing to do."""


class Session:
    """One session, driven by a task."""

    def __init__(self, server: Server, opening: Opening) -> None:
        self._server = server
        self._opening = opening
        self._out: asyncio.Queue[Message | CardwrightError] = asyncio.Queue()
        self._in: asyncio.Queue[Any] = asyncio.Queue()
        self._task = asyncio.create_task(self._drive())
        self.number = 0
        self.closed = False

    async def messages(self) -> AsyncIterator[Message]:
        while True:
            message = await self._out.get()
            if isinstance(message, CardwrightError):
                raise message
            yield message
            if isinstance(message, Finished):
                return

    async def consent(self, plan: bytes, *, unasked: bool = False) -> None:
        self._server.unasked.append(unasked)
        self._server.consented.append(plan)
        await self._in.put(plan)

    async def refuse(self) -> None:
        await self._in.put(None)

    async def answer(self, number: int, answers: Answers | StepAnswers | CardwrightError) -> None:
        assert number == self.number
        await self._in.put(answers)

    async def close(self, *, silently: bool = False) -> None:
        self.closed = True
        self._server.left += silently
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    # -------------------------------------------------------------------------------- what the server does

    async def _drive(self) -> None:
        try:
            await self._out.put(Greeted(uuid4()))
            await self._out.put(Finished(await self._conduct()))
        except CardwrightError as error:
            await self._out.put(error)
        except Exception as error:  # a server that breaks is a line that is lost
            await self._out.put(ServerUnreachable(f"The server ended with {type(error).__name__}."))

    async def _conduct(self) -> Outcome:
        opening, server = self._opening, self._server
        now = datetime.now(UTC)
        journal = server.journal(opening.card.identity.serial)
        authority = Authority(server, LocalAuthority(journal=journal, new_puk=Secret(PUK), now=now), journal)
        records = fold(journal.recall(opening.card.identity))
        alone: Look | None = None
        if opening.purpose in (Purpose.UNLOCK, Purpose.FORGOTTEN_PIN):
            alone = look_for(server.policy)
            steps = Plan(server.policy.name, opening.card.identity, (SetPuk(), SetPin()))
        elif opening.purpose is Purpose.LOCK:
            steps, alone = lock(server.policy.name, opening.card), state_of_pin(STAGE)
        else:
            steps = plan(server.policy, opening.card, records, now=now, certifies_existing=False)
        steps = server.shows(steps)
        if not steps:
            return Outcome.NOTHING_DUE
        await self._out.put(Preview(steps, authority.contents(steps, opening), server.pin_rules))
        if await self._in.get() != bytes.fromhex(steps.digest):
            raise CardwrightError("refused")
        if alone is not None:
            execution = carried_out(steps, alone)
        else:
            execution = personalize(
                server.policy, now=now, expected=steps.digest, pace=Pace.PHASE,
                management_algorithm=ManagementAlgorithm.AES192, certifies_existing=False,
            )  # fmt: skip
        done = 0

        def progress(step: Step, is_done: bool) -> None:
            nonlocal done
            done += is_done
            self._out.put_nowait(Progress(step.kind, 100 * done // len(steps.steps)))

        await conduct_async(execution, self, authority, _Journal(journal), progress)
        return Outcome.DONE

    async def execute(self, batch: AnyBatch) -> Answers:
        self.number += 1
        self._server.batches += 1
        try:
            sent = await self._server.on_batch(self.number, batch)
        except ConnectionError:
            # The line is gone: nothing more comes, and nothing is heard.
            await self._out.put(ServerUnreachable("The line to the server is lost."))
            await asyncio.Event().wait()
        await self._out.put(Execute(self.number, sent))
        answers = await self._in.get()
        if isinstance(answers, CardwrightError):
            raise answers
        return answers  # type: ignore[no-any-return]

    async def end_stage(self) -> None:
        await self._out.put(EndStage())


def carried_out(steps: Plan, look: Look) -> Execution[Report]:
    """The steps of a plan that no policy asks for, after ``look``."""
    card = yield from observe(look)
    records = fold((yield Recall(card.identity)))
    return (yield from execute(steps, card, Circumstances(records, pace=Pace.PHASE)))


@dataclass
class Authority:
    """The local authority, with a CA that wants requests of cards."""

    server: Server
    local: LocalAuthority
    journal: MemoryJournal

    def contents(self, steps: Plan, opening: Opening) -> dict[int, bytes]:
        """SHA-256 of what will be written to data objects."""
        made = {}
        for step in steps.steps:
            if isinstance(step, WriteObject):
                (reply,) = self.local.answer((ObjectContent(step.tag, opening.card, {}),))
                assert isinstance(reply, Issued)
                made[step.tag] = hashlib.sha256(reply.content).digest()
        return made

    async def answer(self, questions: tuple[Question, ...]) -> tuple[Reply, ...]:
        return tuple(self._answer(question) for question in questions)

    def _answer(self, question: Question) -> Reply:
        match question:
            case Certify() if (made := self._made_before(question)) is not None:
                return made
            case Certify(private_key=None):
                name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Holder {question.slot.label}")])
                return SignFirst(SignRequest(question.slot, name.public_bytes()))
            case Certify():
                return self._issued(question)
            case Signed(request=request, answer=answer):
                signed = x509.load_der_x509_csr(answer)
                assert signed.is_signature_valid and signed.public_key() == request.public_key
                return self._issued(request)
        (reply,) = self.local.answer((question,))
        return reply

    def _made_before(self, request: Certify) -> Issued | None:
        """The certificate that an earlier session recorded for this very key."""
        mark = fingerprint(request.public_key)
        for row in self.journal.entries():
            if row.kind is Kind.CERTIFICATE and (row.slot, row.fingerprint) == (request.slot, mark) and row.value:
                return Issued(row.value.reveal())
        return None

    def _issued(self, request: Certify) -> Issued:
        now = datetime.now(UTC)
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Holder {request.slot.label}")])
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"urn:uuid:{self.local.guid}")])
        built = x509.CertificateBuilder(
            issuer, subject, request.public_key, x509.random_serial_number(), now, now + timedelta(days=300)
        ).add_extension(names, critical=False)
        return Issued(built.sign(self.server.ca, hashes.SHA256()).public_bytes(Encoding.DER))


class _Journal:
    """A journal behind an await."""

    def __init__(self, journal: MemoryJournal) -> None:
        self._journal = journal

    async def recall(self, identity: Identity) -> tuple[Entry, ...]:
        return self._journal.recall(identity)

    async def note(self, entries: tuple[Entry, ...]) -> None:
        self._journal.note(entries)


def a_lock(*, mandatory: bool = True) -> Due:
    """An operator wants the card locked, now."""
    now = datetime.now(UTC)
    return Due((DueItem("lock", now),), purpose=Purpose.LOCK, mandatory_from=now if mandatory else None)


def an_update(guid: UUID | None = None) -> Due:
    """Something is due, for an hour."""
    now = datetime.now(UTC)
    return Due((DueItem("renewal", now),), until=now + timedelta(hours=1))
