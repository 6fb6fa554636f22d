"""The client of the workstation daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from uuid import UUID

import grpc
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.piv.references import PinReference
from cardwright_cardops.rpc_status import RemoteError
from cardwright_cardops.wire_reading import refuse_unknown
from cardwright_cardops.workstation import SOCKET, default_folder, has_folder, require_own
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_proto.agent.v1 import agent_pb2_grpc

from . import reading as read
from . import retries
from . import values as v
from .errors import DaemonNotRunning, DaemonSilent, OperationLost, told

A = TypeVar("A", bound=Message)

PATIENCE: Final = 60.0
"""Seconds for a call that waits for no person."""
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0
_SERVICE: Final = "cardwright.agent.v1"
REPEATABLE: Final = (
    ("CardService", "ListReaders"),
    ("CardService", "ListCards"),
    ("CardService", "GetInventory"),
    ("CardService", "TraceCard"),
    ("PinService", "GetPinStatus"),
    ("OperationService", "ListOperations"),
    ("OperationService", "WaitOperation"),
    ("WorkstationService", "GetReport"),
)
"""Calls that change nothing and need no server; one that the server does not answer is not asked for again here."""
_OPTIONS: Final = (
    # Not to wait long for a daemon that is being restarted.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
    *retries.options((f"{_SERVICE}.{service}", call) for service, call in REPEATABLE),
)
_REFERENCES: Final = {
    PinReference.PIN: pb.PIN_REFERENCE_PIN,
    PinReference.GLOBAL_PIN: pb.PIN_REFERENCE_GLOBAL_PIN,
    PinReference.PUK: pb.PIN_REFERENCE_PUK,
}
_LOST: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
"""How calls end that a daemon leaves behind when it goes."""
GO_ON_SECONDS: Final = 45.0
"""For the daemon to try again what broke off: its longest pause is shorter."""
AWAY_SECONDS: Final = 20.0
"""For a daemon that went to be there again, while one of its operations is followed: service managers take seconds."""


@dataclass(frozen=True, slots=True)
class _Stubs:
    cards: agent_pb2_grpc.CardServiceAsyncStub
    pins: agent_pb2_grpc.PinServiceAsyncStub
    operations: agent_pb2_grpc.OperationServiceAsyncStub
    updates: agent_pb2_grpc.UpdateServiceAsyncStub
    escrow: agent_pb2_grpc.EscrowServiceAsyncStub
    workstation: agent_pb2_grpc.WorkstationServiceAsyncStub


class DaemonClient:
    """Calls to the daemon of this user. An async context manager.

    ``folder`` is where its socket is; the usual place unless given. Cards are named by their id, which lasts from
    insertion to removal. Every call raises DaemonNotRunning, DaemonSilent, and RemoteError with the code that the
    daemon, the card or the server gave.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        """Connect. Raises DaemonNotRunning, FolderUnsafe."""
        socket = self.folder / SOCKET
        if not has_folder(self.folder):
            raise DaemonNotRunning("No workstation daemon runs.", effect="Nothing was sent to any card.")
        require_own(self.folder)
        if not socket.exists():
            raise DaemonNotRunning("No workstation daemon runs.", effect="Nothing was sent to any card.")
        channel = self._channel = grpc.aio.insecure_channel(f"unix:{socket}", options=_OPTIONS)
        self._stubs = _Stubs(
            agent_pb2_grpc.CardServiceStub(channel),
            agent_pb2_grpc.PinServiceStub(channel),
            agent_pb2_grpc.OperationServiceStub(channel),
            agent_pb2_grpc.UpdateServiceStub(channel),
            agent_pb2_grpc.EscrowServiceStub(channel),
            agent_pb2_grpc.WorkstationServiceStub(channel),
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def _call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Any, A], request: Message, seconds: float | None = PATIENCE
    ) -> A:
        try:
            answer = await method(request, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            raise _known(error) from None
        refuse_unknown(answer)
        return answer

    # ------------------------------------------------------------------------------------------ readers and cards

    async def readers(self) -> v.Readers:
        """All readers, and whether the smart card service and the PKCS#11 modules can be used."""
        return read.readers(await self._call(self._stubs.cards.ListReaders, pb.ListReadersRequest()))

    async def cards(self, *, tokens: bool = False) -> tuple[v.Card, ...]:
        """All cards that are in; ``tokens`` of the configured PKCS#11 modules, too."""
        answer = await self._call(self._stubs.cards.ListCards, pb.ListCardsRequest(tokens=tokens))
        return tuple(map(read.card, answer.cards))

    async def settled_cards(self, *, tokens: bool = False, seconds: float = 20.0) -> tuple[v.Card, ...]:
        """The same once every card that was just put in is known, or after so many seconds."""
        reading = {card.id for card in await self.cards() if card.state is v.CardState.READING}
        if reading:
            try:
                async with asyncio.timeout(seconds):
                    await self._until_known(reading)
            except TimeoutError:
                pass  # a card that hangs is told as it is
        return await self.cards(tokens=tokens)

    async def _until_known(self, reading: set[str]) -> None:
        async with aclosing(self.events()) as events:
            async for event in events:
                if isinstance(event, v.CardChanged) and not (
                    event.present and event.card.state is v.CardState.READING
                ):
                    reading.discard(event.card.id)
                elif isinstance(event, v.Synced | v.Missed):
                    reading &= {card.id for card in await self.cards() if card.state is v.CardState.READING}
                if not reading:
                    return

    async def contents(self, card: str, *, refresh: bool = False) -> v.Contents:
        """What is on a card, as it was read since it was put in; read again with ``refresh``."""
        request = pb.GetInventoryRequest(card=card, refresh=refresh)
        return read.contents(await self._call(self._stubs.cards.GetInventory, request))

    async def check(
        self,
        card: str,
        *,
        level: v.CheckLevel = v.CheckLevel.BASIC,
        at: datetime | None = None,
        trust: Sequence[bytes] = (),
        crls: Sequence[bytes] = (),
        with_pin: bool = False,
        asking: v.Asking | None = None,
    ) -> v.CheckReport:
        """Conformance of a card. ``trust`` and ``crls`` are DER; ``with_pin`` asks for the PIN and tries every key."""
        request = pb.CheckCardRequest(
            card=card, level=read.LEVELS[level], trust=trust, crls=crls, with_pin=with_pin, asking=_asking(asking)
        )  # fmt: skip
        if at is not None:
            request.at.CopyFrom(_stamp(at))
        return read.check_report(await self._call(self._stubs.cards.CheckCard, request, None))

    async def trace(self, card: str) -> tuple[v.TraceEntry, ...]:
        """The redacted record of what went to a card since it was put in."""
        answer = await self._call(self._stubs.cards.TraceCard, pb.TraceCardRequest(card=card))
        return tuple(map(read.trace_entry, answer.entries))

    # ------------------------------------------------------------------------------------------------------ events

    async def events(self) -> AsyncGenerator[v.Event, None]:
        """What is there, then Synced, then what happens; it ends only with its consumer (use ``aclosing``).

        When the daemon goes, the stream says Missed and waits for the next one, which tells everything anew.
        """
        waits, pause = False, _FIRST_PAUSE
        while True:
            call = self._stubs.cards.WatchEvents(pb.WatchEventsRequest(), wait_for_ready=waits)
            try:
                async for message in call:
                    refuse_unknown(message)
                    if message.missed:
                        yield v.Missed(message.missed)
                    event = read.event(message)
                    waits, pause = True, _FIRST_PAUSE
                    yield event
            except grpc.aio.AioRpcError as error:
                if not waits or error.code() not in _LOST or told(error) is not None:
                    raise _known(error) from None
            finally:
                call.cancel()
            yield v.Missed()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    # -------------------------------------------------------------------------------------------------- operations

    async def operations(self) -> tuple[v.Operation, ...]:
        """Those that run and the last that ended, oldest first."""
        answer = await self._call(self._stubs.operations.ListOperations, pb.ListOperationsRequest())
        return tuple(map(read.operation, answer.operations))

    async def wait(self, operation: str) -> v.Operation:
        """An operation when it is over, however it ended."""
        request = pb.WaitOperationRequest(operation=operation)
        return read.operation((await self._call(self._stubs.operations.WaitOperation, request, None)).operation)

    async def cancel(self, operation: str) -> v.Operation:
        """End an operation where that is safe."""
        request = pb.CancelOperationRequest(operation=operation)
        return read.operation((await self._call(self._stubs.operations.CancelOperation, request)).operation)

    async def follow(self, operation: str) -> AsyncGenerator[v.Operation, None]:
        """An operation whenever something of it changes, up to its end.

        Raises OperationLost where the daemon was restarted, or went and does not come back within ``AWAY_SECONDS``.
        """
        told_of_it, away = False, False
        async with aclosing(self.events()) as events:
            while True:
                try:
                    async with asyncio.timeout(AWAY_SECONDS if away else None):
                        event = await anext(events)
                except TimeoutError:
                    raise OperationLost(
                        "The daemon went away in the middle of the operation.",
                        advice="Start it, put the card in again and start again: only what is missing is done.",
                    ) from None
                away = event == v.Missed(None)
                if isinstance(event, v.OperationChanged) and event.operation.id == operation:
                    now, told_of_it = event.operation, True
                elif away:
                    told_of_it = False  # Synced comes when a daemon is there again
                    continue
                elif isinstance(event, v.Missed) or (isinstance(event, v.Synced) and not told_of_it):
                    found = [one for one in await self.operations() if one.id == operation]
                    if not found:
                        raise OperationLost("The daemon was restarted in the middle of the operation.")
                    now = found[0]
                else:
                    continue
                yield now
                if now.over:
                    return

    async def gone_on_with(self, operation: v.Operation, *, seconds: float = GO_ON_SECONDS) -> v.Operation | None:
        """The operation in which the daemon goes on after one that broke off (``Operation.continues``).

        None where the card was taken out, for it has another id when it is back, or where none begins in ``seconds``.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._next_of(operation)
        except TimeoutError:
            return None

    async def _next_of(self, before: v.Operation) -> v.Operation | None:
        is_in = False
        async with aclosing(self.events()) as events:
            async for event in events:
                found: tuple[v.Operation, ...] = ()
                if isinstance(event, v.CardChanged) and event.card.id == before.card:
                    is_in = event.present
                elif isinstance(event, v.OperationChanged):
                    found = (event.operation,)
                elif isinstance(event, v.Missed) and event.count is not None:
                    found = await self.operations()
                elif isinstance(event, v.Synced):
                    found = await self.operations()
                    # A daemon that does not know it was begun afterwards, and has nobody's consent.
                    is_in = is_in and any(one.id == before.id for one in found)
                else:
                    continue
                for one in found:
                    if (one.card, one.kind) == (before.card, before.kind) and _begun(one) > _begun(before):
                        return one
                if not is_in and isinstance(event, v.CardChanged | v.Synced):
                    return None
        return None

    # -------------------------------------------------------------------------------------------------------- PINs

    async def pin_status(self, card: str) -> v.PinStatus:
        """What a card says of PIN and PUK. No try is spent."""
        answer = await self._call(self._stubs.pins.GetPinStatus, pb.GetPinStatusRequest(card=card))
        return v.PinStatus(read.secret(answer.pin), read.secret(answer.puk))

    async def change_pin(
        self,
        card: str,
        reference: PinReference = PinReference.PIN,
        *,
        allow_last_try: bool = False,
        asking: v.Asking | None = None,
    ) -> None:
        """Have the person asked, and PIN, Global PIN or PUK changed."""
        request = pb.ChangePinRequest(
            card=card, reference=_REFERENCES[reference], allow_last_try=allow_last_try, asking=_asking(asking)
        )
        await self._call(self._stubs.pins.ChangePin, request, None)

    async def unblock_pin(self, card: str, *, allow_last_try: bool = False, asking: v.Asking | None = None) -> None:
        """Have the person asked for the PUK and a new PIN."""
        request = pb.UnblockPinRequest(card=card, allow_last_try=allow_last_try, asking=_asking(asking))
        await self._call(self._stubs.pins.UnblockPin, request, None)

    # ----------------------------------------------------------------------------------------------------- updates

    async def due(self, card: str, *, refresh: bool = False) -> v.Due:
        """What the server wants done on a card; its last answer while that holds, unless ``refresh``."""
        answer = await self._call(self._stubs.updates.GetDue, pb.GetDueRequest(card=card, refresh=refresh))
        return read.due(answer.due)

    async def preview(
        self,
        card: str,
        purpose: v.Purpose = v.Purpose.UPDATE,
        *,
        request: UUID | None = None,
        keys: Sequence[str] = (),
    ) -> v.UpdatePreview:
        """What would be done. It can be started for ten minutes, while the card stays in."""
        wanted = pb.PreviewUpdateRequest(
            card=card, purpose=read.PURPOSES[purpose], request=str(request or ""), keys=keys
        )
        return read.preview(await self._call(self._stubs.updates.PreviewUpdate, wanted))

    async def start(
        self,
        card: str,
        preview: v.UpdatePreview,
        *,
        confirmed: Sequence[str] = (),
        asking: v.Asking | None = None,
    ) -> v.Operation:
        """Do what was previewed. ``confirmed``: those of its confirmations that the person gave."""
        request = pb.StartUpdateRequest(
            card=card, digest=preview.digest, confirmed=confirmed, asking=_asking(asking)
        )
        return read.operation((await self._call(self._stubs.updates.StartUpdate, request)).operation)

    async def start_shown(
        self,
        card: str,
        shown: v.UpdatePreview,
        purpose: v.Purpose = v.Purpose.UPDATE,
        *,
        request: UUID | None = None,
        confirmed: Sequence[str] = (),
        asking: v.Asking | None = None,
    ) -> v.Operation | v.UpdatePreview:
        """Do what a person agreed to, even if that preview was given up meanwhile.

        Where the plan is another one by now nothing is begun, and its preview is given back.
        """
        try:
            return await self.start(card, shown, confirmed=confirmed, asking=asking)
        except RemoteError as error:
            if error.code != "NO_SUCH_PREVIEW":
                raise
        now = await self.preview_when_free(card, purpose, request=request)
        if now.digest != shown.digest:
            return now
        return await self.start(card, now, confirmed=confirmed, asking=asking)

    async def preview_when_free(
        self, card: str, purpose: v.Purpose = v.Purpose.UPDATE, *, request: UUID | None = None
    ) -> v.UpdatePreview:
        """A preview, as soon as an operation that has the card is over."""
        while True:
            try:
                return await self.preview(card, purpose, request=request)
            except RemoteError as error:
                if error.code != "CARD_IN_OPERATION":
                    raise
            for one in await self.cards():
                if one.id == card and one.operation:
                    await self.wait(one.operation)

    async def dismiss(self, card: str) -> None:
        """Give the preview up."""
        await self._call(self._stubs.updates.DismissPreview, pb.DismissPreviewRequest(card=card))

    async def postpone(self, card: str, until: datetime) -> v.Due:
        """Not to be offered before then, or the day from which it is mandatory if that is earlier.

        What is mandatory by now ends with UPDATE_MANDATORY.
        """
        request = pb.PostponeUpdateRequest(card=card, until=_stamp(until))
        return read.due((await self._call(self._stubs.updates.PostponeUpdate, request)).due)

    async def methods(self, card: str, purpose: v.Purpose, account: str = "") -> tuple[v.Method, ...]:
        """How the person can prove who they are; any of these is enough, none: nothing has to be proved."""
        request = pb.ListMethodsRequest(card=card, purpose=read.PURPOSES[purpose], account=account)
        answer = await self._call(self._stubs.updates.ListMethods, request)
        return tuple(map(read.method, answer.methods))

    async def prove(
        self,
        card: str,
        purpose: v.Purpose,
        method: v.MethodKind,
        account: str = "",
        *,
        asking: v.Asking | None = None,
    ) -> datetime | None:
        """Have the person asked, and the proof kept by the daemon; until when it can be used."""
        request = pb.ProveRequest(
            card=card,
            purpose=read.PURPOSES[purpose],
            method=read.METHODS[method],
            account=account,
            asking=_asking(asking),
        )
        return read.moment(await self._call(self._stubs.updates.Prove, request, None), "until")

    async def unlock(
        self, card: str, *, request: UUID | None = None, asking: v.Asking | None = None
    ) -> v.Operation:
        """Begin to set a new PIN on a card whose PIN is blocked, through the server."""
        wanted = pb.UnlockRequest(card=card, request=str(request or ""), asking=_asking(asking))
        return read.operation((await self._call(self._stubs.updates.Unlock, wanted)).operation)

    async def reset_forgotten_pin(
        self, card: str, *, request: UUID | None = None, asking: v.Asking | None = None
    ) -> v.Operation:
        """Begin to set a new PIN on a card whose PIN is forgotten, through the server."""
        wanted = pb.ResetForgottenPinRequest(card=card, request=str(request or ""), asking=_asking(asking))
        return read.operation((await self._call(self._stubs.updates.ResetForgottenPin, wanted)).operation)

    # ------------------------------------------------------------------------------------------------------ escrow

    async def escrowed_keys(self, card: str) -> tuple[v.EscrowedKey, ...]:
        """Keys that the server keeps for the holder of a card."""
        answer = await self._call(self._stubs.escrow.ListEscrowedKeys, pb.ListEscrowedKeysRequest(card=card))
        return tuple(map(read.escrowed, answer.keys))

    async def recover(self, card: str, keys: Sequence[str] = (), *, asking: v.Asking | None = None) -> v.Operation:
        """Begin to put keys into retired slots: those with these fingerprints, or all that are not on the card.

        What else is due is done, too: a program with a person shows ``preview(card, Purpose.RECOVER, keys=...)`` first.
        """
        request = pb.RecoverKeysRequest(card=card, keys=keys, asking=_asking(asking))
        return read.operation((await self._call(self._stubs.escrow.RecoverKeys, request)).operation)

    async def pfx(self, card: str, key: str, *, asking: v.Asking | None = None) -> bytes:
        """One key as PKCS #12. It can be claimed once; the daemon shows the person its password."""
        request = pb.DownloadPfxRequest(card=card, key=key, asking=_asking(asking))
        return (await self._call(self._stubs.escrow.DownloadPfx, request, None)).pfx

    # ------------------------------------------------------------------------------------------------- workstation

    async def report(self) -> v.WorkstationReport:
        """The report for the help desk."""
        return read.report(await self._call(self._stubs.workstation.GetReport, pb.GetReportRequest()))

    async def sign_in(self, card: str, link: str, *, asking: v.Asking | None = None) -> str:
        """Sign in to a portal by its one-time link; the address to open in the browser that began it."""
        request = pb.SignInRequest(card=card, link=link, asking=_asking(asking))
        return (await self._call(self._stubs.workstation.SignIn, request, None)).url


def _known(error: grpc.aio.AioRpcError) -> CardwrightError:
    """What the daemon told, or why it told nothing."""
    known = told(error)
    if known is not None:
        return known
    if error.code() in _LOST:
        return DaemonNotRunning("No workstation daemon answers at its socket.")
    return DaemonSilent(f"The daemon's answer cannot be used ({error.code().name}).")


def _begun(operation: v.Operation) -> datetime:
    return operation.started_at or datetime.min.replace(tzinfo=UTC)


def _asking(value: v.Asking | None) -> pb.Asking:
    around = value or v.Asking()
    made = pb.Asking(tty=around.tty, tty_type=around.tty_type, display=around.display)
    if around.current or around.new:
        made.headless.current, made.headless.new = around.current, around.new
    return made


def _stamp(moment: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(moment)
    return made
