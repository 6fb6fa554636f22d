"""Around every call: its name and its measure; around every stream also its end, when the caller may stay no longer."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import grpc
import structlog

from cardwright_cardops.errors import CardwrightError

from ..limits import Admission
from ..metrics import Metrics
from ..workstations.watch import RevocationWatch
from .backlog import Backlog
from .calling import Context, procedure
from .errors import abort
from .identify import Identifier
from .refusals import CallFailed, ConnectionEnded, ServerStopping

OURS: Final = "/cardwright."
SESSIONS: Final = "SessionService.Run"


class Gate:
    """Which calls are taken now, and when a stream has to end. Used by ``Around``."""

    def __init__(
        self,
        identifier: Identifier,
        watch: RevocationWatch,
        sessions: Admission,
        streams: Admission,
        backlog: Backlog | None = None,
    ) -> None:
        self._identifier = identifier
        self._backlog = backlog
        self._watch = watch
        self._sessions = sessions
        self._streams = streams
        self.draining = asyncio.Event()
        """Set when the server stops: card sessions go on for a while, everything else ends."""

    def own(self, name: str, context: Context) -> bool:
        """Whether the process made this call itself, to see when it is taken up."""
        return self._backlog is not None and self._backlog.own(name, context)

    def admit(self, name: str) -> None:
        """Before a call is looked at, whoever makes it. Raises ServerStopping, ServerBusy."""
        if self.draining.is_set():
            raise ServerStopping("the server is being stopped")
        if self._backlog is not None:
            self._backlog.admit(name)

    async def run(self, name: str, context: Context, work: Callable[[], Awaitable[None]]) -> None:
        """Run a stream's work until it ends or has to. Raises CardwrightError."""
        self.admit(name)
        principal, ends = await self._identifier.connection(context)
        with ExitStack() as stack:
            stack.enter_context(self._streams)
            if name == SESSIONS:
                stack.enter_context(self._sessions)
            reasons: dict[asyncio.Event, CardwrightError] = {}
            if principal.workstation is not None:
                revoked = stack.enter_context(self._watch.stream(principal.workstation))
                reasons[revoked] = ConnectionEnded("the workstation's certificate counts no more")
            if name != SESSIONS:
                reasons[self.draining] = ServerStopping("the server is being stopped")
            await _until(work, reasons, ends)


async def _until(
    work: Callable[[], Awaitable[None]], reasons: dict[asyncio.Event, CardwrightError], ends: datetime | None
) -> None:
    """Run ``work`` until it ends; end it when one of the events comes, or at ``ends``."""
    waits = {asyncio.ensure_future(event.wait()): error for event, error in reasons.items()}
    doing = asyncio.ensure_future(work())
    patience = None if ends is None else max(0.0, (ends - datetime.now(UTC)).total_seconds())
    try:
        await asyncio.wait({doing, *waits}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            await doing
            return
        came = next((error for wait, error in waits.items() if wait.done()), None)
        doing.cancel()
        await asyncio.wait({doing})
        raise came or ConnectionEnded("the connection's certificate has ended")
    finally:
        for wait in (doing, *waits):
            wait.cancel()
        await asyncio.gather(doing, *waits, return_exceptions=True)


class Around(grpc.aio.ServerInterceptor):
    """Names, measures and bounds calls. One for all ports."""

    def __init__(self, metrics: Metrics, gate: Gate) -> None:
        self._metrics = metrics
        self._gate = gate
        self._made: dict[str, tuple[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """See ``ServerInterceptor``."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = str(handler_call_details.method)
        if (made := self._made.get(method)) is None or made[0] is not handler:
            made = self._made[method] = handler, self._around(method, handler)
        return made[1]

    def _around(self, method: str, handler: Any) -> Any:
        name, ours = name_of(method), method.startswith(OURS)
        if handler.unary_unary is not None:
            return handler._replace(unary_unary=self._unary(name, handler.unary_unary, ours))
        kind = "unary_stream" if handler.unary_stream is not None else "stream_stream"
        return handler._replace(**{kind: self._stream(name, getattr(handler, kind), ours)})

    def _unary(self, name: str, behaviour: Callable[[Any, Context], Awaitable[Any]], ours: bool) -> Any:
        async def call(request: Any, context: Context) -> Any:
            if ours and self._gate.own(name, context):
                await context.abort(grpc.StatusCode.ABORTED)
            procedure.set(name)
            with self._measured(name, context):
                if ours:
                    try:
                        self._gate.admit(name)
                    except CardwrightError as error:
                        await abort(context, error)
                return await behaviour(request, context)

        return call

    def _stream(self, name: str, behaviour: Callable[[Any, Context], Any], ours: bool) -> Any:
        async def whole(request: Any, context: Context) -> None:
            if not inspect.isasyncgenfunction(behaviour):
                await behaviour(request, context)
                return
            async for message in behaviour(request, context):
                await context.write(message)

        async def call(request: Any, context: Context) -> None:
            procedure.set(name)
            with self._measured(name, context):
                self._metrics.stream(name, 1)
                try:
                    if ours:
                        await self._gate.run(name, context, lambda: whole(request, context))
                    else:
                        await whole(request, context)
                except CardwrightError as error:
                    await abort(context, error)
                except grpc.aio.AbortError:
                    raise
                except Exception:
                    structlog.get_logger().error("call-failed", call=name, exc_info=True)
                    await abort(context, CallFailed("the call failed"))
                finally:
                    self._metrics.stream(name, -1)

        return call

    @contextmanager
    def _measured(self, name: str, context: Context) -> Iterator[None]:
        began = time.monotonic()
        status = "CANCELLED"
        try:
            yield
            status = _status(context)
        except grpc.aio.AbortError:
            status = _status(context)
            raise
        except Exception:
            status = "UNKNOWN"
            raise
        finally:
            self._metrics.called(name, status, time.monotonic() - began)


def name_of(method: str) -> str:
    """``/cardwright.cms.v1.DeviceService/Bind`` as the matrix calls it: ``DeviceService.Bind``."""
    service, _, call = method.rpartition("/")
    return f"{service.rpartition('.')[2]}.{call}"


def _status(context: Context) -> str:
    code = context.code()
    if isinstance(code, grpc.StatusCode):
        return code.name
    return next((one.name for one in grpc.StatusCode if one.value[0] == code), "OK")
