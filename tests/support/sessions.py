"""Card sessions in one process: a gRPC server on a Unix socket, a workstation with a guard, and simple neighbours.

Vault, store, planner, guard and virtual card are the real ones. Devices, issuance and escrow are kept in memory and
outlive a server, as a database would.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key
from cryptography.x509.oid import NameOID
from sqlalchemy import event

from cardwright_cardops import wire
from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.guard import Act, GuardedExecutor, State, begin, present_identity
from cardwright_cardops.guard.preview import identity_of, permit_for
from cardwright_cardops.piv.algorithms import Algorithm, ManagementAlgorithm, PrivateKey
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.pins import FixedPins
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.authority import Issued, Pending, Refused
from cardwright_cardops.plan.inventory import Inventory, fingerprint
from cardwright_cardops.plan.observe import EVERYTHING, Look, observe
from cardwright_cardops.plan.records import Kind
from cardwright_cardops.plan.steps import STEP_KINDS
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.direct import DirectCard, DirectConnection
from cardwright_proto.cms.v1 import sessions_pb2, sessions_pb2_grpc
from cardwright_server.api.calling import Calls
from cardwright_server.api.sessions import Streams
from cardwright_server.authentication.authorize import Authorize, Permission
from cardwright_server.authentication.principal import Principal, PrincipalKind
from cardwright_server.devices.due import DueList
from cardwright_server.issuance.errors import OriginRefused
from cardwright_server.issuance.origin import Attested, evaluate
from cardwright_server.issuance.origin import Expected as ExpectedKey
from cardwright_server.policies.document import read
from cardwright_server.policies.model import Policy
from cardwright_server.sessions import store
from cardwright_server.sessions.contents import PlainContents
from cardwright_server.sessions.desk import Stations
from cardwright_server.sessions.due import DueChecks
from cardwright_server.sessions.failures import Failure
from cardwright_server.sessions.hints import Hints
from cardwright_server.sessions.model import Greeting, Outcome
from cardwright_server.sessions.ports import (
    Also,
    CertificateOrder,
    Certificates,
    Contents,
    Devices,
    Escrow,
    Recoverable,
    Task,
)
from cardwright_server.sessions.proving import CardProofs, Holder
from cardwright_server.sessions.resuming import Standing
from cardwright_server.sessions.service import Ports, SessionService
from cardwright_server.store.unit import Database, Unit
from cardwright_server.vault.calls import LocalVault
from cardwright_server.vault.model import ArchiveContext, Authorization, EscrowAlgorithm, PukPurpose, VaultCard, Wrapped
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.card.attestation import root
from tests.oracle.card import Expected, judge
from tests.support.lifecycles import RecordedCredentials, wired
from tests.support.people import allow
from tests.support.session_streams import SEEN, CountedServicer, NoProofs, NoStations, Unrevoked, round_trips
from tests.support.vault import make_core

PIN = b"739146"
POLICY = """
name = "test"
clear_secrets = "{clear}"
objects = ["chuid", "ccc"]
unlock = ["self"]
renew_before_days = {renew}

[[slots]]
slot = "9a"
algorithm = "p256"
profile = "piv-authentication"
least_origin = "{least}"

[[slots]]
slot = "9c"
algorithm = "p256"
profile = "signature"

[[slots]]
slot = "9d"
algorithm = "p256"
key = "escrow"
profile = "key-management"

[[slots]]
slot = "9e"
algorithm = "p256"
profile = "card-authentication"
"""
STEPS = tuple(STEP_KINDS)
ITEMS = ("apdu", "verify_pin", "set_pin", "unblock", "set_puk", "block", "prove", "sign_request", "sign_in")


def policy(*, clear: str = "any", least: str = "unproven", renew: int = 30) -> Policy:
    """Four P-256 keys, one of them escrowed."""
    return read(POLICY.format(clear=clear, least=least, renew=renew))


@dataclass
class Office:
    """Devices, issuance and escrow: one device, one CA, one archive."""

    vault: LocalVault
    now: datetime
    policy: Policy = field(default_factory=policy)
    org: UUID = field(default_factory=uuid4)
    device: UUID = field(default_factory=uuid4)
    guid: UUID = field(default_factory=uuid4)
    trusted: bool = False
    late: bool = False
    short: frozenset[str] = frozenset()
    """Slots whose certificates last 40 days only."""
    issued: bool = False
    held: bool = False
    finished_with: list[Outcome] = field(default_factory=list)
    at_work: set[UUID] = field(default_factory=set)
    states: dict[tuple[str, str], str] = field(default_factory=dict)
    certificates: dict[tuple[str, str], bytes] = field(default_factory=dict)
    archive: dict[str, tuple[Wrapped, ArchiveContext]] = field(default_factory=dict)
    orders: list[CertificateOrder] = field(default_factory=list)
    old: Sequence[Recoverable] = ()
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    # -------------------------------------------------------------------------------------------------- Devices

    async def task(self, unit: Unit, principal: Principal, greeting: Greeting) -> Task:
        return Task(
            self.org,
            self.device,
            greeting.purpose,
            self.policy,
            self.guid,
            (self.now + timedelta(days=1000)).date(),
            serial="12345678",
            trusted=self.trusted,
            unlockable=self.issued and not self.held,
        )

    async def holder(self, unit: Unit, org: UUID, guid: UUID) -> Holder | None:
        return None

    async def begin(self, unit: Unit, permission: Permission, task: Task, session: UUID) -> None:
        self.at_work.add(session)

    async def ended(
        self, unit: Unit, org: UUID, request: UUID | None, session: UUID, failure: Failure | None
    ) -> None:
        self.at_work.discard(session)

    async def exposed(self, unit: Unit, task: Task, workstation: UUID | None, puk: str) -> None:
        pass

    async def still_wanted(self, unit: Unit, task: Task) -> None:
        pass

    async def locking(self, unit: Unit, task: Task) -> None:
        pass

    async def finished(
        self, unit: Unit, principal: Principal, task: Task, session: UUID, outcome: Outcome, card: Inventory
    ) -> None:
        self.issued = self.issued or outcome is Outcome.DONE
        self.finished_with.append(outcome)
        self.at_work.discard(session)

    # --------------------------------------------------------------------------------------------- Certificates

    async def subject(self, task: Task, slot: Slot, profile: str) -> bytes:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Holder {slot.label}")]).public_bytes()

    async def require_names(self, task: Task, profiles: Set[str]) -> None:
        pass

    async def certify(
        self, orders: Sequence[CertificateOrder], also: Also | None = None
    ) -> tuple[Issued | Pending | Refused, ...]:
        self.orders += orders
        return tuple([self._answer(one) for one in orders])

    def _answer(self, order: CertificateOrder) -> Issued | Pending | Refused:
        if order.statement:
            expected = ExpectedKey(spki(order.public_key), order.slot, serial=order.task.serial)
            try:
                evaluate(Attested(order.statement, order.signer), expected, (root(),))
            except OriginRefused as refusal:
                return Refused(refusal.message)
        return Pending() if self.late and order.slot.label != "9D" else self._certified(order)

    def _certified(self, order: CertificateOrder) -> Issued:
        place = order.slot.label, fingerprint(order.public_key)
        if place not in self.certificates:
            names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"urn:uuid:{self.guid}")])
            issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Holder {order.slot.label}")])
            days = 40 if order.slot.label in self.short else 300
            start, end = self.now - timedelta(hours=1), self.now + timedelta(days=days)
            number = x509.random_serial_number()
            built = x509.CertificateBuilder(issuer, subject, order.public_key, number, start, end)
            made = built.add_extension(names, critical=False).sign(self.key, hashes.SHA256())
            self.certificates[place] = made.public_bytes(Encoding.DER)
            self.states[place] = "held"
        return Issued(self.certificates[place])

    async def revoked(self, unit: Unit, task: Task) -> frozenset[str]:
        return frozenset({mark for (_, mark), state in self.states.items() if state == "revoked"})

    async def settle(
        self, unit: Unit, principal: Principal, task: Task, session: UUID, keys: Mapping[Slot, str], bare: Set[str]
    ) -> None:
        good = {(slot.label, mark) for slot, mark in keys.items()}
        for place in self.states:
            if place[1] not in bare:
                self.states[place] = "good" if place in good else "revoked"

    # --------------------------------------------------------------------------------------------------- Escrow

    async def key_(self, task: Task, session: UUID, slot: Slot, algorithm: Algorithm, mark: str) -> PrivateKey:
        if not mark:
            org, owner = str(task.org), str(task.device)
            made = await self.vault.generate_keypair_for_escrow(EscrowAlgorithm(algorithm.label), org, owner)
            mark = hashes_of(made.public_key)
            self.archive[mark] = made.wrapped, ArchiveContext(org, owner, made.public_key)
        wrapped, context = self.archive[mark]
        behalf = Authorization(str(task.device), str(session))
        secret = await self.vault.unwrap_for_card(wrapped, context, behalf)
        key = load_der_private_key(secret.reveal(), None)
        assert isinstance(key, PrivateKey)
        return key

    @property
    def good(self) -> set[tuple[str, str]]:
        """(slot, fingerprint) of the certificates that count."""
        return {place for place, state in self.states.items() if state == "good"}


def hashes_of(public_key: bytes) -> str:
    """Hex SHA-256."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(public_key)
    return digest.finalize().hex()


@dataclass
class _Escrow:
    office: Office

    async def key(
        self,
        task: Task,
        session: UUID,
        slot: Slot,
        algorithm: Algorithm,
        fingerprint: str,
        sent: Set[str] | None = None,
    ) -> PrivateKey:
        return await self.office.key_(task, session, slot, algorithm, fingerprint)

    async def recoverable(self, unit: Unit, task: Task, replaced: Set[str]) -> Sequence[Recoverable]:
        return self.office.old


class Cut(Exception):
    """The workstation hangs up here."""


@dataclass
class Trip:
    """What a workstation saw. ``error`` is what the server said; ``trips`` are round trips, see ``round_trips``."""

    outcome: int = 0
    authentication: str = ""
    error: str = ""
    status: str = ""
    trips: int = 0
    order: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    percentages: list[int] = field(default_factory=list)
    preview: sessions_pb2.Preview | None = None


Change = Callable[[sessions_pb2.RunRequest], sessions_pb2.RunRequest]


def as_it_is(value: Any) -> Any:
    """What an honest workstation says."""
    return value


FREELY = Look(objects=EVERYTHING.objects)
"""Every slot in use and every object that is free to read, in few commands for a fresh card."""


def on_message(number: int, act: Callable[[], Awaitable[object]]) -> Callable[[Any], Awaitable[None]]:
    """Before the workstation's message of this number, 0 is the first."""
    sent = -1

    async def before(message: sessions_pb2.RunRequest) -> None:
        nonlocal sent
        sent += 1
        if sent == number:
            await act()

    return before


@dataclass
class Station:
    """A workstation: reads the card, has its person agree, and lets the guard judge every batch."""

    card: DirectCard
    pin: bytes = PIN
    agrees: bool = True
    confirms: bool = True
    """Whether they type the confirmation for erasing or locking a card, leaving a key, setting tries; no other."""
    guarded: bool = True
    steps: Sequence[str] = STEPS
    items: Sequence[str] = ITEMS
    change: Change = as_it_is
    inventory: Callable[[Inventory], Inventory] = as_it_is
    look: Look = FREELY
    before: Callable[[sessions_pb2.RunRequest], Awaitable[None]] | None = None
    wrap: Callable[[Any], Any] = as_it_is
    metadata: Sequence[tuple[str, str]] = ()

    async def run(
        self,
        socket: str,
        purpose: sessions_pb2.Purpose.ValueType = sessions_pb2.PURPOSE_ISSUE,
        *,
        cut: int | None = None,
        request: str = "",
    ) -> Trip:
        """One session. ``cut``: hang up before sending the message with this number (0 is the hello)."""
        trip = Trip()
        local = LocalExecutor(DirectConnection(self.card), KeyItems(FixedPins(Secret(self.pin), Secret(self.pin))))
        seen = run(observe(self.look), local)
        if self.look is FREELY and any(seen.retired_counts or ()):
            seen = run(observe(replace(FREELY, retired=True)), local)
        seen = self.inventory(seen)
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            call: Any = sessions_pb2_grpc.SessionServiceStub(channel).Run(metadata=tuple(self.metadata))
            hello = sessions_pb2.ClientHello(
                protocol=1,
                steps=self.steps,
                items=self.items,
                max_batch=1 << 20,
                software="test",
                reader="reader",
                purpose=purpose,
                request=request,
                card=wire.inventory_to_wire(seen),
            )
            executor: Any = local
            sent = 0

            async def say(message: sessions_pb2.RunRequest) -> None:
                nonlocal sent
                if sent == cut:
                    raise Cut
                if self.before is not None:
                    await self.before(message)
                sent += 1
                trip.order.append("write")
                await call.write(self.change(message))

            try:
                await say(sessions_pb2.RunRequest(hello=hello))
                while (message := await call.read()) is not grpc.aio.EOF:
                    kind = message.WhichOneof("kind") or ""
                    trip.order.append("read")
                    trip.messages.append(kind)
                    match kind:
                        case "preview":
                            trip.preview = message.preview
                            executor = self.wrap(self._permitted(local, message.preview, seen, purpose))
                            digest = bytes.fromhex(wire.plan_from_wire(message.preview.plan).digest)
                            consent = sessions_pb2.Consent(plan=digest, refused=not self.agrees)
                            await say(sessions_pb2.RunRequest(consent=consent))
                        case "batch" if trip.preview is None or self.agrees:
                            await say(sessions_pb2.RunRequest(answers=self._answers(executor, message.batch)))
                        case "end_stage":
                            executor.end_stage()
                        case "progress":
                            trip.percentages.append(message.progress.percentage)
                        case "finished":
                            trip.outcome = message.finished.outcome
                            trip.authentication = message.finished.authentication
                        case "error":
                            trip.error = message.error.code
            except Cut:
                call.cancel()
            except grpc.aio.AioRpcError as error:
                trip.status = f"{error.code().name}"
                trip.error = trip.error or reason_of(error)
            finally:
                local.end_stage()
        trip.trips = round_trips(trip.order, SEEN.get(socket, [])[-1:])
        return trip

    def _permitted(self, local: LocalExecutor, preview: sessions_pb2.Preview, seen: Inventory, purpose: int) -> Any:
        if not self.guarded:
            return local
        plan = wire.plan_from_wire(preview.plan)
        contents = {int(row.tag, 16): row.digest for row in preview.contents}
        wipes, locks = (purpose == one for one in (sessions_pb2.PURPOSE_RECYCLE, sessions_pb2.PURPOSE_LOCK))
        acts = (Act.RESET,) if wipes else (Act.LOCK_CARD,) if locks else (Act.LEAVE_KEY, Act.SET_RETRIES)
        confirmed = frozenset(acts) if self.confirms else frozenset[Act]()
        permit = permit_for(
            plan.document(), seen.document(), contents=contents, confirmed=confirmed, wipes=wipes, locks=locks
        )
        identity = identity_of(seen.document())
        if preview.card_keys or preview.card_key_unknown:
            identity = present_identity(local, identity, preview.card_keys, unknown=preview.card_key_unknown)
        state = begin(permit, identity, plan=bytes.fromhex(plan.digest))
        assert isinstance(state, State)
        return GuardedExecutor(local, state, unbroken=lambda: True)

    @staticmethod
    def _answers(executor: Any, message: sessions_pb2.Batch) -> sessions_pb2.BatchAnswers:
        try:
            answers = executor.execute(wire.batch_from_wire(message.batch))
        except CardwrightError as error:
            return sessions_pb2.BatchAnswers(number=message.number, refused=wire.error_to_wire(error))
        return sessions_pb2.BatchAnswers(number=message.number, answers=wire.answers_to_wire(answers))


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The stable code in a status."""
    from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]
    from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin":
            info = ErrorInfo()
            Status.FromString(value).details[0].Unpack(info)
            return str(info.reason)
    return ""


def a_workstation(org: UUID) -> Principal:
    """The principal of a workstation's stream."""
    identifier = uuid4()
    return Principal(PrincipalKind.WORKSTATION, identifier, org, front="test", workstation=identifier)


@asynccontextmanager
async def serving(
    database: Database,
    office: Office,
    authorize: Authorize = allow,
    principal: Principal | None = None,
    certificates: Certificates | None = None,
    devices: Devices | None = None,
    contents: Contents | None = None,
    escrow: Escrow | None = None,
    streams: Streams | None = None,
    proofs: CardProofs | None = None,
    stations: Stations | None = None,
    standing: Standing | None = None,
) -> AsyncIterator[str]:
    """A server; gives the path of its socket. What is given takes the place of the office, or of plain contents."""
    caller = principal or a_workstation(office.org)

    async def identify(context: object) -> Principal:
        return caller

    folder = Path(tempfile.mkdtemp(prefix="cw-", dir="/tmp"))  # a socket's path has 107 octets at most
    ports = Ports(
        devices or office,
        certificates or office,
        contents or PlainContents(),
        escrow or _Escrow(office),
        office.vault,
        standing or NoProofs(),
    )
    server = grpc.aio.server()
    service = SessionService(database, authorize, ports)
    requests = wired(authorize, RecordedCredentials()).requests
    checks = DueChecks(database, authorize, DueList(), requests, stations or NoStations())
    hints = Hints(database, timedelta(milliseconds=50))
    signs = proofs or CardProofs(database, authorize, office, NoProofs())
    servicer = CountedServicer(Calls(database, identify), service, signs, checks, hints, streams or Unrevoked())
    servicer.seen = SEEN.setdefault(f"{folder}/socket", [])
    sessions_pb2_grpc.add_SessionServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{folder}/socket")
    await server.start()
    await hints.step()
    hinting = asyncio.create_task(hints.run())
    try:
        yield f"{folder}/socket"
    finally:
        hinting.cancel()
        await asyncio.wait({hinting})  # its connection goes back before anybody closes the database
        del SEEN[f"{folder}/socket"]
        await server.stop(None)
        shutil.rmtree(folder, ignore_errors=True)


def make_office(folder: Path, **changes: Any) -> Office:
    """An office with a new vault, at the time of this host."""
    now = datetime.now(UTC)
    core = make_core(folder / f"vault-{uuid4()}", lambda: now.timestamp())
    return replace(Office(LocalVault(core), now), **changes)


def spki(public: Any) -> bytes:
    """DER SubjectPublicKeyInfo."""
    der: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der


def fresh_card() -> VirtualCard:
    """A token as it leaves the factory."""
    return VirtualCard("yubikey-5.7", serial=12345678)


@contextmanager
def commits_of(database: Database) -> Iterator[list[int]]:
    """One entry for each transaction that was committed while inside."""
    seen: list[int] = []
    def note(_connection: object) -> None:
        seen.append(len(seen))

    event.listen(database.engine.sync_engine, "commit", note)
    try:
        yield seen
    finally:
        event.remove(database.engine.sync_engine, "commit", note)


async def secrets_of(office: Office, database: Database) -> tuple[bytes, frozenset[bytes]]:
    """The newest PUK, and every management key, that the vault made for the card by what is recorded."""
    entries = (await database.read(lambda unit: store.records(unit, office.org, office.device))).entries
    names = {kind: [row for row in entries if row.kind is kind and "." in row.reference] for kind in Kind}
    behalf = Authorization("test", "test")
    puk = await office.vault.puk(_card(office, names[Kind.PUK][-1].reference), PukPurpose.SET, behalf)
    keys = [
        await office.vault.new_management_key(
            _card(office, row.reference), ManagementAlgorithm(row.algorithm or 0), behalf
        )
        for row in names[Kind.MANAGEMENT_KEY]
    ]
    return puk.reveal(), frozenset(key.reveal() for key in keys)


def _card(office: Office, name: str) -> VaultCard:
    generation, master = name.split(".")
    return VaultCard(str(office.org), str(office.device), int(generation), int(master))


FOUR = {0x9A: (0x11, True), 0x9C: (0x11, True), 0x9D: (0x11, False), 0x9E: (0x11, True)}


async def faults_of(card: VirtualCard, office: Office, database: Database, pin: bytes = PIN) -> list[str]:
    """What the judge finds wrong with an issued card, and with the books about it."""
    puk, keys = await secrets_of(office, database)
    expected = Expected(FOUR, pin, puk, keys, now=office.now, issuer=office.key.public_key())
    wrong = judge(card.snapshot(), expected)
    held = {f"{row.slot.label}": row.fingerprint for row in run(observe(), reader(card)).keys}
    if office.good != set(held.items()):
        wrong.append("certificates that count are not those of the keys on the card")
    if held["9D"] not in office.archive:
        wrong.append("the key of 9D is not in the archive")
    return wrong


def reader(card: DirectCard) -> LocalExecutor:
    """Reads a card."""
    return LocalExecutor(DirectConnection(card), KeyItems(FixedPins(None)))
