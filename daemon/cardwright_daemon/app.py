"""The daemon as a whole: the only place that wires its parts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.workstation import default_folder
from cardwright_proto.agent.v1 import agent_pb2, agent_pb2_grpc

from .answers import FILE, Answers
from .api.cards import CardServicer
from .api.edge import Edge
from .api.escrow import EscrowServicer
from .api.operations import OperationServicer
from .api.pins import PinServicer
from .api.updates import UpdateServicer
from .api.workstation import WorkstationServicer
from .cards import Cards, CardState, Change
from .checking import Checks
from .config import Config
from .desk import Desk, DueNews, News, Surroundings, TokenNews
from .due import DueChecks
from .events import Hub
from .keys import KeyActs
from .link import credentials
from .link.absent import NoServer
from .link.ports import Due, ServerLink
from .link.server import GrpcLink
from .machine import NOTHING_ALLOWED, Machine
from .mandatory import Mandatory
from .operations import Operation, Operations
from .pins import Pins
from .presence import Presence
from .prompts import Prompter
from .proving import Proofs
from .readers import PcscReaders, ReaderSource
from .report import Errors, version_of
from .sessions import Sessions
from .socket import Front, SocketFolder
from .tokens import Device, TokenDevice, Tokens

_log = logging.getLogger(__name__)

MAX_REQUEST: Final = 4 << 20
"""Octets of a message to the daemon; trust anchors and revocation lists are the long ones."""
_GRACE: Final = 0.5


class Daemon:
    """The daemon, running inside ``async with``.

    ``sources``: where readers come from; PC/SC by the configuration unless given. ``link``: the way to the server, by
    the configuration unless given. ``answers``: what the server said is due; in a file by the configuration.
    ``asker`` takes the place of dialogs. ``machine``: what the machine's administrator allows. Without ``api`` there
    is no socket and no gRPC server, only ``desk``: many such daemons fit into one process, for simulated workstations.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        sources: Sequence[ReaderSource] | None = None,
        link: ServerLink | None = None,
        answers: Answers | None = None,
        asker: Prompter | None = None,
        machine: Machine = NOTHING_ALLOWED,
        api: bool = True,
    ) -> None:
        self.config = config or Config()
        self._machine = machine
        self._sources = sources
        self._link = link or link_of(self.config)
        self._answers = answers or (answers_of(self.config) if link is None else Answers())
        self._asker = asker
        self._api = api
        self._open = AsyncExitStack()
        self._folder = SocketFolder(Path(self.config.folder) if self.config.folder else default_folder())
        self._errors = Errors()
        self.hub: Hub[News] = Hub()

    @property
    def socket(self) -> Path:
        """Where clients connect."""
        return self._folder.socket

    async def __aenter__(self) -> Daemon:
        """Start. Raises FolderUnsafe, DaemonRunning, OSError."""
        async with AsyncExitStack() as starting:
            if self._api:
                starting.enter_context(self._folder)
            self.desk = await self._wired(starting)
            if self._api:
                await self._serve(starting)
            self._open = starting.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Stop: no more calls, then operations up to their next safe point, then everything else."""
        await self._open.aclose()

    async def _wired(self, starting: AsyncExitStack) -> Desk:
        operations = Operations(self._operated)
        cards = Cards(operations, self._changed)
        link, proofs = self._link, Proofs(self._link)
        tokens = self._tokens = Tokens(self.config.pkcs11, operations, self._token)
        sessions = Sessions(cards, tokens, operations, link, proofs, software=self._software)
        presence = Presence(cards)
        due = DueChecks(
            cards, tokens, link, self.config.updates, self._is_due, presence.proof,
            until_free=presence.until_free,
            answers=self._answers,
        )  # fmt: skip
        sessions.changed.append(due.changed)
        sessions.ruled.append(due.ruled)
        mandatory = self._mandatory = Mandatory(
            cards, tokens, operations, sessions,
            allowed=self._machine.begin_mandatory,
            refresh=due.asked,
            tell=self._is_due,
            prompter=lambda: self.desk.prompter(Surroundings()),
            spread=due.spread,
        )  # fmt: skip
        keys = KeyActs(cards, operations, link, proofs, software=self._software)
        sources = [PcscReaders()] if self._sources is None and self.config.pcsc else list(self._sources or ())
        starting.push_async_callback(link.stop)
        starting.push_async_callback(cards.stop)
        starting.push_async_callback(tokens.stop)
        starting.push_async_callback(due.stop)
        starting.push_async_callback(sessions.stop)
        starting.push_async_callback(operations.stop)
        starting.callback(sessions.leave)
        starting.push_async_callback(mandatory.stop)
        tokens.start()
        await link.start(due.pushed)
        cards.start(sources)
        return Desk(
            config=self.config,
            hub=self.hub,
            operations=operations,
            cards=cards,
            tokens=tokens,
            pins=Pins(cards, operations),
            checks=Checks(cards, operations),
            link=link,
            proofs=proofs,
            sessions=sessions,
            due=due,
            mandatory=mandatory,
            keys=keys,
            errors=self._errors,
            asker=self._asker,
        )

    async def _serve(self, starting: AsyncExitStack) -> None:
        options = (("grpc.max_receive_message_length", MAX_REQUEST), ("grpc.so_reuseport", 0))
        server = grpc.aio.server(interceptors=(Edge(self._failed),), options=options)
        agent_pb2_grpc.add_CardServiceServicer_to_server(CardServicer(self.desk), server)
        agent_pb2_grpc.add_PinServiceServicer_to_server(PinServicer(self.desk), server)
        agent_pb2_grpc.add_OperationServiceServicer_to_server(OperationServicer(self.desk), server)
        agent_pb2_grpc.add_UpdateServiceServicer_to_server(UpdateServicer(self.desk), server)
        agent_pb2_grpc.add_EscrowServiceServicer_to_server(EscrowServicer(self.desk), server)
        agent_pb2_grpc.add_WorkstationServiceServicer_to_server(WorkstationServicer(self.desk), server)
        healthy = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
        names = [service.full_name for service in agent_pb2.DESCRIPTOR.services_by_name.values()]
        for name in ("", *names):
            await healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
        if self.config.reflection:
            from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]

            reflection.enable_server_reflection((*names, "grpc.health.v1.Health", reflection.SERVICE_NAME), server)
        server.add_insecure_port(f"unix:{self._folder.inner}")
        await server.start()
        starting.push_async_callback(server.stop, _GRACE)
        starting.push_async_callback(healthy.enter_graceful_shutdown)
        self._folder.inner.chmod(0o600)
        front = Front(self._folder, self._refused)
        await front.start()
        starting.push_async_callback(front.stop)

    @staticmethod
    def _software() -> str:
        return f"cardwright {version_of('cardwright')}".strip()

    # ------------------------------------------------------------------------------------------------------- news

    def _operated(self, operation: Operation) -> None:
        if operation.error is not None:
            self._errors.note(operation.error, operation.kind.value)
        self.hub.publish(("operation", operation.id), operation)

    def _changed(self, subject: tuple[str, str], change: Change) -> None:
        card = change.card
        if card is not None and card.problem is not None and change.present:
            self._errors.note(card.problem, "")
        if change.service is not None:
            self._errors.note(change.service, "")
        if card is None or not change.present or card.state is CardState.READING:
            self._tokens.look()
        self.hub.publish(subject, change)

    def _token(self, token: TokenDevice, present: bool) -> None:
        self.hub.publish(("card", token.id), TokenNews(token, present))

    def _is_due(self, card: Device, due: Due) -> None:
        self._mandatory.told(card, due)
        self.hub.publish(("due", card.id), DueNews(card, due))

    def _failed(self, error: CardwrightError, call: str) -> None:
        self._errors.note(error, call.rpartition("/")[2])

    def _refused(self) -> None:
        self.desk.refused += 1


def answers_of(config: Config) -> Answers:
    """The server's last answers, in a file beside the workstation's credentials."""
    if config.server is None:
        return Answers()
    server = config.server
    folder = Path(server.folder) if server.folder else credentials.default_folder()

    def mark() -> bytes:
        return server.address.encode() + credentials.load(folder).anchor

    return Answers(folder / FILE, mark)


def link_of(config: Config) -> ServerLink:
    """The way to the server that the configuration names."""
    if config.server is None:
        return NoServer()
    software = f"cardwright {version_of('cardwright')}".strip()
    folder = Path(config.server.folder) if config.server.folder else None
    return GrpcLink(config.server.address, folder, software=software, check_seconds=config.updates.check_seconds)
