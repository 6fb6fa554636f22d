"""The process: everything opened in order, served until it is told to stop, and closed in the opposite order."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import grpc
import msgspec
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]

from cardwright_cardops.durable import write_whole
from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.secret import Secret
from cardwright_proto.cms.v1 import sessions_pb2, sessions_pb2_grpc

from . import logs, servicers
from .api.around import Around, Gate
from .api.backlog import CORE_OPTIONS, Backlog
from .api.calling import Calls
from .api.identify import Identifier
from .api.strict import StrictMessages
from .app import CHAIN, Domains, wire
from .audit.sealer import Sealer
from .authentication.matrix import RULES
from .condition import Condition
from .config import Installation, host_and_port, names_of, require_files, secret_file
from .founding import NotFounded, open_database, require_journal
from .http.app import make_app as make_status_app
from .http.serve import serving as serving_http
from .issuance import store as certificates
from .issuance.authorities import organization
from .issuance.crl import CrlPublisher
from .issuance.jobs import jobs
from .issuance.model import Purpose
from .issuance.ocsp import OcspResponder
from .joins.certificates import root_certificate
from .joins.following import CertificatesFollowChannels, DevicesFollowPeople
from .joins.recipients import PersonsConcerned
from .limits import Admission, Limits
from .loss import DatabaseMissing, SameFile, require_database
from .metrics import Metrics
from .metrics import make_app as make_metrics_app
from .notify.mail import MailConsumer
from .notify.outbox import Consumer, Dispatcher
from .notify.sender import MailServer, Security, Sender
from .opening import OpenVault, has_vault, open_vault, own_folder
from .operation.restore import require_whole
from .people.ldap_directory import LdapDirectory
from .release import LONGEST_MESSAGE
from .store.errors import StoreError
from .store.migrate import require_current
from .store.purge import purge
from .store.second_medium import SecondMedium
from .store.unit import Database, Unit
from .system import SystemService, Watched, parts
from .timers import Timers
from .tls import Credentials, TlsFiles
from .vault.errors import VaultError
from .vault.model import LockState

SCHEDULE_EVERY: Final = timedelta(minutes=1)
PURGE_EVERY: Final = timedelta(hours=1)
REWRAP_EVERY: Final = timedelta(minutes=1)
HEALTH_EVERY: Final = timedelta(seconds=5)
LOOK_EVERY: Final = timedelta(minutes=1)
_OPTIONS: Final = (
    # What is somewhat too long is refused by name (StrictMessages); what is far too long ends in gRPC, unread.
    ("grpc.max_receive_message_length", 2 * LONGEST_MESSAGE),
    ("grpc.max_send_message_length", 4 * LONGEST_MESSAGE),
    ("grpc.max_metadata_size", 16 * 1024),
    # A connection that does not come to its handshake is let go; 120 seconds are gRPC's own.
    ("grpc.server_handshake_timeout_ms", 20_000),
    # Two servers on one port would each get a part of the calls, unseen.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.ping_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    *CORE_OPTIONS,
)


class ListenFailed(CardwrightError):
    """An address cannot be listened on."""

    code = "LISTEN_FAILED"
    default_effect = "Nothing was started."
    default_advice = "Stop what uses the address, or configure another one under [listen]."


class VaultEnded(CardwrightError):
    """The vault's process ended by itself, so the server could do nothing more."""

    code = "VAULT_ENDED"
    default_effect = "Open card sessions were ended; what they recorded stays."
    default_advice = "See what the vault wrote before, then start the server again."


class Addresses(msgspec.Struct, frozen=True):
    """Where a running server listens; "" for not at all. ``name``: one that its TLS certificate has."""

    pid: int
    local: str
    calls: str
    entry: str
    http: str
    metrics: str
    name: str


@dataclass(slots=True)
class _State:
    file: SameFile
    lost: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Has the DatabaseMissing of a database that is gone."""
    able: Condition = field(default_factory=lambda: Condition("database-and-vault"))
    serving: bool = False
    draining: bool = False


@dataclass(frozen=True, slots=True)
class _Process:
    """What a running process is made of."""

    installation: Installation
    domains: Domains
    vault: OpenVault
    metrics: Metrics
    timers: Timers
    tls: TlsFiles
    credentials: Credentials
    health: health.aio.HealthServicer
    state: _State


async def serve(
    installation: Installation,
    passphrase: Secret | None,
    stop: asyncio.Event,
    ready: Callable[[Addresses], None] = lambda addresses: None,
) -> None:
    """Serve until ``stop`` is set, then drain. ``ready`` is told when everything answers.

    Raises what is wrong at the start (ConfigurationRefused, DataFolderInUse, RestoreUnfinished, SchemaMismatch,
    NotFounded, SecondMediumUnavailable, SecondMediumDamaged, VaultUnlockRefused, ListenFailed, StoreError),
    VaultEnded, and DatabaseMissing.
    """
    if installation.vault is not None and not has_vault(installation.vault):
        raise NotFounded(f"there is no vault in {installation.vault}")
    require_files(installation.config)
    async with AsyncExitStack() as stack:
        stack.enter_context(own_folder(installation))
        require_whole(installation)
        await require_database(installation)
        await require_current(installation.database)
        database = await stack.enter_async_context(open_database(installation))
        org = await organization(database)
        if org is None:
            raise NotFounded("the installation was begun, but not finished")
        require_journal(database, org)
        vault = await stack.enter_async_context(open_vault(installation, passphrase, administer=False))
        tls = TlsFiles(installation.tls, *names_of(installation.config))
        metrics = Metrics(RULES.keys())
        domains = wire(installation, database, vault.client, org, servers=(tls,), registry=metrics.registry)
        stack.callback(domains.close)
        timers = Timers(lambda state, failed: metrics.task(state, failed=failed))
        stack.push_async_callback(timers.stop)
        process = _Process(
            installation,
            domains,
            vault,
            metrics,
            timers,
            tls,
            Credentials(tls),
            health.aio.HealthServicer(),
            _State(SameFile(installation)),
        )
        await _run(process, stack, stop, ready)


async def _run(
    process: _Process, stack: AsyncExitStack, stop: asyncio.Event, ready: Callable[[Addresses], None]
) -> None:
    installation, domains, config = process.installation, process.domains, process.installation.config
    try:
        await _certificates(process)
    except CardwrightError as error:
        # What is there may be good for long; the task tries again, and says so.
        structlog.get_logger().warning("renewal-failed", code=error.code)
        await _use_certificates(process)
    await domains.watch.refresh()
    started = datetime.now(UTC)
    sealer = Sealer(domains.database, domains.vault, chain=CHAIN, epoch=(await domains.vault.status()).epoch)
    sender = _sender(installation, domains.database)
    dispatcher = Dispatcher(domains.database, _consumers(installation, domains))
    conditions = tuple(one.condition for one in _outside(domains))
    watched = Watched(domains.database, domains.vault, process.timers, sealer, dispatcher, sender, conditions, started)
    sessions, streams = (
        Admission("card sessions", config.limits.sessions),
        Admission("streams", config.limits.streams),
    )
    identifier = Identifier(
        domains.database,
        domains.org,
        domains.workstations,
        domains.operators,
        domains.authentication,
        domains.stations.note,
    )
    backlog = Backlog(config.limits.waiting)
    gate = Gate(identifier, domains.watch, sessions, streams, backlog)
    calls = Calls(domains.database, identifier, Limits(config.limits.rates()), process.metrics)
    server = grpc.aio.server(interceptors=[Around(process.metrics, gate), StrictMessages()], options=_OPTIONS)
    operators = domains.operator_certificates
    system = SystemService(domains.authorize, domains.first, operators, watched, installation, domains.masters)
    named = servicers.register(server, calls, domains, system, lambda: (sessions.taken, streams.taken))
    health_pb2_grpc.add_HealthServicer_to_server(process.health, server)
    reflection.enable_server_reflection((*named, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    addresses = await _listen(process, stack, server)

    async def drain() -> None:
        await process.health.enter_graceful_shutdown()
        process.state.draining, process.state.serving = True, False
        gate.draining.set()
        structlog.get_logger().info("draining", count=sessions.taken)
        await server.stop(config.drain.seconds)

    _watch_all(process, sealer)
    process.metrics.watch_parts(lambda: ((one.name, one.good) for one in parts(watched)))
    process.metrics.watch("cardwright_backlog_seconds", "How long calls wait.", lambda: backlog.seconds)
    _timers(process, sealer, dispatcher, sender, named)
    await server.start()
    process.timers.forever("backlog", lambda: _watch_backlog(backlog, installation))
    stack.push_async_callback(_seal_rest, sealer)
    stack.push_async_callback(drain)
    await _look_after(process, named)
    process.metrics.started(started)
    write_whole(installation.listening, msgspec.json.encode(addresses))
    stack.callback(installation.listening.unlink, missing_ok=True)
    structlog.get_logger().info("serving", pid=os.getpid(), port=host_and_port(addresses.calls)[1])
    notify("READY=1")
    ready(addresses)
    # What was loaded stays for good: no collection, nor that at the end of the process, needs to look at it again.
    gc.collect()
    gc.freeze()
    # What is left are the thousands of objects of standing streams. By default all of them are looked at several times
    # a second when much is asked, and whoever asks meanwhile waits for that.
    gc.set_threshold(20_000, 20, 100)
    ended = asyncio.ensure_future(process.vault.ended())
    stopping = asyncio.ensure_future(stop.wait())
    waits: set[asyncio.Future[Any]] = {ended, stopping, process.state.lost}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        notify("STOPPING=1")
        if process.state.lost.done():
            await process.state.lost
        if ended.done():
            raise VaultEnded(f"the vault's process ended (exit status {ended.result()})")
    finally:
        for one in waits:
            one.cancel()


async def _certificates(process: _Process) -> None:
    """Renew what is due of the server's own, and use it for the next connections. Raises VaultError, StoreError."""
    domains = process.domains
    renewing = next(job for job in _jobs(domains) if job.name == "renew-own-certificates")
    await renewing.work()
    await _use_certificates(process)


async def _use_certificates(process: _Process) -> None:
    """Raises TlsUnusable, StoreError."""
    domains = process.domains

    async def read(unit: Unit) -> tuple[bytes, list[bytes]]:
        clients = [
            one.certificate
            for one in await certificates.authorities(unit)
            if one.purpose is Purpose.WORKSTATIONS and one.certificate and not one.foreign
        ]
        return await root_certificate(unit, domains.org), clients

    process.credentials.refresh(*await domains.database.read(read))


def _jobs(domains: Domains) -> Sequence[Any]:
    return jobs(domains.database, domains.issuance, domains.own, CrlPublisher(domains.vault))


async def _listen(process: _Process, stack: AsyncExitStack, server: grpc.aio.Server) -> Addresses:
    """Raises ListenFailed."""
    installation, config = process.installation, process.installation.config.listen
    installation.local_socket.unlink(missing_ok=True)
    server.add_insecure_port(f"unix:{installation.local_socket}")
    calls = _bind(server, config.calls, process.credentials.make(client_certificates=True))
    entry = _bind(server, config.entry, process.credentials.make(client_certificates=False)) if config.entry else ""
    responder = OcspResponder(process.domains.database, process.domains.vault)
    status_app = make_status_app(process.domains.database, responder)
    metrics_app = make_metrics_app(process.metrics, lambda: process.state.serving)
    served = []
    for text, app in ((config.http, status_app), (config.metrics, metrics_app)):
        if not text:
            served.append("")
            continue
        try:
            host, port = await stack.enter_async_context(serving_http(app, *host_and_port(text)))
        except OSError as error:
            raise ListenFailed(f"{text} cannot be listened on: {error.strerror}") from error
        served.append(_joined(host, port))
    names, numbers = names_of(installation.config)
    http, metrics = served
    return Addresses(
        os.getpid(), str(installation.local_socket), calls, entry, http, metrics, name=(*names, *numbers)[0]
    )


def _bind(server: grpc.aio.Server, text: str, credentials: grpc.ServerCredentials) -> str:
    host, port = host_and_port(text)
    try:
        bound = server.add_secure_port(_joined(host, port), credentials)
    except RuntimeError as error:
        raise ListenFailed(f"{text} cannot be listened on") from error
    return _joined(host, bound)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _consumers(installation: Installation, domains: Domains) -> list[Consumer]:
    found: list[Consumer] = [DevicesFollowPeople(domains.devices), CertificatesFollowChannels()]
    mail = installation.config.mail
    if mail.host:
        concerned = PersonsConcerned(domains.people, mail.organization)
        found.append(MailConsumer(concerned, domain=mail.sender.rpartition("@")[2], portal=mail.portal))
    return found


def _sender(installation: Installation, database: Database) -> Sender | None:
    """Raises ConfigurationRefused."""
    mail = installation.config.mail
    if not mail.host:
        return None
    security, password = Security(mail.security), Secret(secret_file(mail.password_file))
    server = MailServer(
        mail.host,
        mail.port,
        mail.sender,
        mail.sender_name,
        security,
        mail.username,
        password,
        mail.ca_file or None,
    )
    return Sender(database, server)


def _timers(
    process: _Process, sealer: Sealer, dispatcher: Dispatcher, sender: Sender | None, named: Iterable[str]
) -> None:
    domains, timers, services = process.domains, process.timers, tuple(named)

    async def expire_escrow() -> None:
        while await domains.database.transact(lambda unit: domains.escrow.expire(unit)):
            pass

    for job in _jobs(domains):
        work: Callable[[], Awaitable[object]] = job.work
        if job.name == "renew-own-certificates":
            work = lambda: _certificates(process)  # noqa: E731
        timers.every(job.name, job.every, work)
    timers.every("requests-and-devices", SCHEDULE_EVERY, domains.scheduler.run)
    timers.every("escrow-offers", SCHEDULE_EVERY, expire_escrow)
    timers.every("purge", PURGE_EVERY, lambda: purge(domains.database))
    timers.every("rewrap", REWRAP_EVERY, domains.masters.run)
    timers.every("look-outside", LOOK_EVERY, lambda: _look_outside(domains))
    timers.every("health", HEALTH_EVERY, lambda: _look_after(process, services))
    timers.forever("revocations", domains.watch.run)
    timers.forever("hints", domains.hints.run)
    timers.forever("audit-sealer", sealer.run)
    timers.forever("outbox-dispatcher", dispatcher.run)
    if sender is not None:
        timers.forever("mail-sender", sender.run)


def _watch_all(process: _Process, sealer: Sealer) -> None:
    database = process.domains.database
    watch = process.metrics.watch
    watch("cardwright_database_retries", "Units that were begun again.", lambda: float(database.retries))
    watch("cardwright_audit_failures", "Failures of the sealer since it last went well.", lambda: sealer.failures)
    left = process.domains.masters
    watch("cardwright_rewrap_left", "Seals by older master keys.", lambda: float(sum(left.left.values())))
    watch("cardwright_serving", "Whether this process answers.", lambda: float(process.state.serving))


async def _look_after(process: _Process, named: Iterable[str]) -> None:
    """Whether database and vault answer, for the health service. Raises nothing of theirs."""
    state, wrong = process.state, ""
    try:
        state.file.require()
    except DatabaseMissing as error:
        if not state.lost.done():
            state.lost.set_exception(error)
    try:
        await process.domains.database.read(_nothing, timed=False)
        if (await process.domains.vault.status()).state is not LockState.UNLOCKED:
            wrong = "VAULT_LOCKED"
    except (StoreError, VaultError) as error:
        wrong = error.code
    if wrong:
        state.able.bad(wrong)
    else:
        state.able.good()
    state.serving = not wrong and not state.draining
    status = health_pb2.HealthCheckResponse.SERVING if not wrong else health_pb2.HealthCheckResponse.NOT_SERVING
    for name in ("", *named):
        await process.health.set(name, status)


def _outside(domains: Domains) -> list[LdapDirectory | SecondMedium]:
    """What may fail while database and vault answer: then the server goes on with what does not need it."""
    return [one for one in (domains.database.second_medium, domains.directory) if one is not None]


async def _look_outside(domains: Domains) -> None:
    for one in _outside(domains):
        await one.check()


async def _watch_backlog(backlog: Backlog, installation: Installation) -> None:
    """Ask oneself, for ever, over the host's own socket."""
    async with grpc.aio.insecure_channel(f"unix:{installation.local_socket}") as line:
        due, request = sessions_pb2_grpc.SessionServiceStub(line).Due, sessions_pb2.DueRequest()
        await backlog.run(lambda: due(request, metadata=(backlog.mark,), wait_for_ready=True))


async def _nothing(unit: Unit) -> None:
    """A transaction that shows that there is a database."""
    await certificates.authorities(unit)


async def _seal_rest(sealer: Sealer) -> None:
    """What was recorded until now gets into a block before the process ends."""
    with suppress(CardwrightError):
        while await sealer.step():
            pass


def notify(text: str) -> None:
    """Tell systemd (sd_notify(3)), if it asked."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address.startswith(("/", "@")):
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
            line.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
            line.sendall(text.encode())


def main(
    installation: Installation, passphrase: Secret | None, ready: Callable[[Addresses], None] = lambda addresses: None
) -> None:
    """Serve until SIGTERM or SIGINT. Raises as ``serve``."""
    logs.configure()
    take_descriptors()

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await serve(installation, passphrase, stop, ready)

    asyncio.run(run())


def take_descriptors() -> None:
    """As many open files as this process may have. At first it has 1,024, whoever started it: fewer than streams."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def read_addresses(path: Path) -> Addresses | None:
    """Where the server of a data folder listens; None if none has said so."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Addresses)
    except (OSError, msgspec.MsgspecError):
        return None
