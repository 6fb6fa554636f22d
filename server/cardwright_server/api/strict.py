"""Refuses messages that are not of this contract, before a servicer sees them: one place for every unary request."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from cardwright_cardops.wire_reading import MAX_MESSAGE, WireUnsupported, refuse_unknown

from .errors import abort
from .reading import RequestMalformed

Handler = Any
"""grpc.RpcMethodHandler, whose fields have no types."""


class StrictMessages(grpc.aio.ServerInterceptor):
    """Ends a call with REQUEST_MALFORMED for octets that are no such message, are too long, or hold unknown fields.

    Without it gRPC answers INTERNAL to octets that it cannot read, and unknown fields pass unseen. Messages of a stream
    that the client sends are judged by who reads them.
    """

    def __init__(self) -> None:
        self._made: dict[str, tuple[Handler, Handler]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """See grpc.aio.ServerInterceptor."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        method = str(handler_call_details.method)
        if (made := self._made.get(method)) is None or made[0] is not handler:
            made = self._made[method] = handler, self._strict(handler)
        return made[1]

    @staticmethod
    def _strict(handler: Handler) -> Handler:
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                _stream(handler.unary_stream), _reader(handler.request_deserializer), handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            _unary(handler.unary_unary), _reader(handler.request_deserializer), handler.response_serializer
        )


def _reader(parse: Callable[[bytes], Message]) -> Callable[[bytes], Message | RequestMalformed]:
    def read(octets: bytes) -> Message | RequestMalformed:
        if len(octets) > MAX_MESSAGE:
            return RequestMalformed(f"A message is longer than {MAX_MESSAGE} octets.")
        try:
            message = parse(octets)
            refuse_unknown(message)
        except WireUnsupported as error:
            return RequestMalformed(error.message)
        except (DecodeError, UnicodeDecodeError, RecursionError):
            return RequestMalformed("These octets are no message of this call.")
        return message

    return read


def _unary(behaviour: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
    async def run(request: Any, context: Any) -> Any:
        if isinstance(request, RequestMalformed):
            await abort(context, request)
        return await behaviour(request, context)

    return run


def _stream(behaviour: Callable[[Any, Any], Any]) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def run(request: Any, context: Any) -> AsyncIterator[Any]:
        if isinstance(request, RequestMalformed):
            await abort(context, request)
        answers = behaviour(request, context)
        if inspect.isawaitable(answers):  # a servicer that writes to the context, in place of a generator
            await answers
            return
        async for answer in answers:
            yield answer

    return run
