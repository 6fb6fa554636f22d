"""The edge of the local API: every call passes here. Errors become statuses, and unknown fields are refused."""

from __future__ import annotations

import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import PurePath
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.message import DecodeError, Message

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.pinentry import PinentryCancelled
from cardwright_cardops.rpc_status import DETAILS, details_of
from cardwright_cardops.transport.connection import TransportError
from cardwright_cardops.transport.pcsc_errors import NoCard, NoReader, PcscAccessDenied, PcscNotRunning
from cardwright_cardops.wire_reading import WireMalformed, WireUnsupported, refuse_unknown

from ..errors import (
    BadRequest,
    CardInOperation,
    HeadlessPinRefused,
    NoSuchCard,
    NoSuchOperation,
    NotForTokens,
    OperationCancelled,
    StageEnded,
)
from ..link.ports import ServerRefused, ServerUnreachable

_log = logging.getLogger(__name__)

OURS: Final = "/cardwright."

_CODES: Final[tuple[tuple[type[CardwrightError], grpc.StatusCode], ...]] = (
    (NoSuchCard, grpc.StatusCode.NOT_FOUND),
    (NoSuchOperation, grpc.StatusCode.NOT_FOUND),
    (NoReader, grpc.StatusCode.NOT_FOUND),
    (NoCard, grpc.StatusCode.NOT_FOUND),
    (BadRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (WireMalformed, grpc.StatusCode.INVALID_ARGUMENT),
    (WireUnsupported, grpc.StatusCode.UNIMPLEMENTED),
    (NotForTokens, grpc.StatusCode.UNIMPLEMENTED),
    (HeadlessPinRefused, grpc.StatusCode.PERMISSION_DENIED),
    (PcscAccessDenied, grpc.StatusCode.PERMISSION_DENIED),
    (ServerRefused, grpc.StatusCode.PERMISSION_DENIED),
    (PinentryCancelled, grpc.StatusCode.CANCELLED),
    (OperationCancelled, grpc.StatusCode.CANCELLED),
    (PcscNotRunning, grpc.StatusCode.UNAVAILABLE),
    (ServerUnreachable, grpc.StatusCode.UNAVAILABLE),
    (CardInOperation, grpc.StatusCode.ABORTED),
    (StageEnded, grpc.StatusCode.ABORTED),
    (TransportError, grpc.StatusCode.ABORTED),
)
"""From special to general; whatever is not here is FAILED_PRECONDITION: asked for well, not possible now."""

Context = Any
"""grpc.aio.ServicerContext; its two type parameters are not worth their length here."""


def code_of(error: CardwrightError) -> grpc.StatusCode:
    """The gRPC code of an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.FAILED_PRECONDITION)


def _places(error: BaseException) -> str:
    """Files and lines through which an error came."""
    frames = traceback.extract_tb(error.__traceback__)[-20:]
    return " ".join(f"{PurePath(frame.filename).name}:{frame.lineno}" for frame in frames)


def _reader(parse: Callable[[bytes], Message]) -> Callable[[bytes], Message | BadRequest]:
    """Reads a request. Left to itself, gRPC answers UNKNOWN to octets that it cannot read, and logs where it was."""

    def read(octets: bytes) -> Message | BadRequest:
        try:
            return parse(octets)
        except (DecodeError, UnicodeDecodeError, RecursionError):
            return BadRequest("These octets are no message of this call.")

    return read


def _good(request: Message | BadRequest) -> Message:
    if isinstance(request, BadRequest):
        raise request
    refuse_unknown(request)
    return request


class Edge(grpc.aio.ServerInterceptor):
    """``failed`` hears of every error that a call ended with, and of the call's name."""

    def __init__(self, failed: Callable[[CardwrightError, str], None]) -> None:
        self._failed = failed

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handlers of our services; those of health and reflection stay as they are."""
        handler = await continuation(handler_call_details)
        name = str(handler_call_details.method)
        if handler is None or not name.startswith(OURS):
            return handler
        reader, writer = _reader(handler.request_deserializer), handler.response_serializer
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._unary(handler.unary_unary, name), reader, writer)
        return grpc.unary_stream_rpc_method_handler(self._stream(handler.unary_stream, name), reader, writer)

    def _unary(self, call: Callable[[Message, Context], Awaitable[Message]], name: str) -> Any:
        async def wrapped(request: Message | BadRequest, context: Context) -> Message:
            try:
                return await call(_good(request), context)
            except Exception as error:
                await self._abort(context, error, name)

        return wrapped

    def _stream(self, call: Callable[[Message, Context], AsyncIterator[Message]], name: str) -> Any:
        async def wrapped(request: Message | BadRequest, context: Context) -> AsyncIterator[Message]:
            try:
                async for response in call(_good(request), context):
                    yield response
            except Exception as error:
                await self._abort(context, error, name)

        return wrapped

    async def _abort(self, context: Context, error: Exception, name: str) -> NoReturn:
        """End the call with the status of ``error``; what nobody foresaw is told by its kind only."""
        if isinstance(error, CardwrightError):
            known, code = error, code_of(error)
        elif isinstance(error, grpc.aio.AbortError):
            raise error
        else:
            # Its text may hold anything, so only its kind and the way it came are logged.
            _log.error("a call failed with %s at %s", type(error).__name__, _places(error))
            known, code = CardwrightError(f"An unforeseen {type(error).__name__}."), grpc.StatusCode.INTERNAL
        self._failed(known, name)
        await context.abort(code, known.message, ((DETAILS, details_of(known, code.value[0])),))
        raise AssertionError("abort returned")
