"""The client of the server, for portals and tools: one channel with mutual TLS, typed calls, errors with codes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Self, TypeVar

import grpc
from google.protobuf.message import Message

from cardwright_cardops.errors import CardwrightError

from . import retries
from .errors import ServerRefused, ServerUnreachable, told
from .identity import OperatorFile

A = TypeVar("A", bound=Message)
S = TypeVar("S")

PATIENCE: Final = 60.0
"""Seconds for one call."""
PAGE: Final = 200
SESSION: Final = "cardwright-session"
_AWAY: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
REPEATABLE: Final = (
    ("AuditService", "Find"),
    ("AuthenticationService", "Methods"),
    ("AuthenticationService", "ListQuestions"),
    ("CertificateService", "Get"),
    ("CertificateService", "Find"),
    ("CertificateService", "Authorities"),
    ("DeviceService", "Get"),
    ("DeviceService", "Find"),
    ("DeviceService", "FindLots"),
    ("EscrowService", "Find"),
    ("GroupService", "Find"),
    ("NotifyService", "Find"),
    ("OperatorService", "Find"),
    ("PersonService", "Get"),
    ("PersonService", "Find"),
    ("PolicyService", "Get"),
    ("PolicyService", "Find"),
    ("RequestService", "Get"),
    ("RequestService", "Find"),
    ("SystemService", "Status"),
    ("WorkstationService", "Find"),
)
"""Calls that change nothing."""
OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.use_local_subchannel_pool", 1),
    *retries.options((f"cardwright.cms.v1.{service}", call) for service, call in REPEATABLE),
)


class ServerClient(AbstractAsyncContextManager["ServerClient"]):
    """Calls to one server at ``address`` (HOST:PORT), as the operator or portal whose file is ``identity``.

    ``session`` is the token of what a person proved (AuthenticationService.Prove); it goes with every call and can be
    set and taken back at any time.
    """

    def __init__(self, address: str, identity: OperatorFile, *, session: str = "") -> None:
        credentials = grpc.ssl_channel_credentials(identity.root, identity.key, identity.chain)
        self.channel = grpc.aio.secure_channel(address, credentials, options=OPTIONS)
        """For the stubs of the contract: ``PersonServiceStub(client.channel)``."""
        self.session = session

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.channel.close()

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Any, A],
        request: Message,
        *,
        seconds: float = PATIENCE,
        **metadata: str,
    ) -> A:
        """The answer to a unary call of a stub. Names of ``metadata`` have hyphens for underscores.

        ``idempotency_key`` makes a call that creates something safe to repeat. Raises RemoteError with the server's
        code, ServerUnreachable, ServerRefused.
        """
        try:
            return await method(request, metadata=self._metadata(metadata), timeout=seconds)
        except grpc.aio.AioRpcError as error:
            raise known(error) from None

    async def stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Any, A],
        request: Message,
        *,
        seconds: float | None = None,
        **metadata: str,
    ) -> AsyncGenerator[A, None]:
        """What a call answers bit by bit. Leaving earlier cancels it: use ``aclosing``. Raises as ``call``."""
        answers = method(request, metadata=self._metadata(metadata), timeout=seconds)
        try:
            async for answer in answers:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise known(error) from None
        finally:
            answers.cancel()

    def _metadata(self, given: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        pairs = tuple((name.replace("_", "-"), value) for name, value in given.items())
        return (*pairs, (SESSION, self.session)) if self.session else pairs

    async def pages(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Any, Any], request: Any, rows: str
    ) -> AsyncIterator[Any]:
        """Every entry of a listing, page by page; ``rows`` is the field of the answer. Raises as ``call``."""
        wanted = type(request)()
        wanted.CopyFrom(request)
        wanted.page_size = wanted.page_size or PAGE
        while True:
            answer = await self.call(method, wanted)
            entries: Iterable[Any] = getattr(answer, rows)
            for entry in entries:
                yield entry
            if not answer.next_page_token:
                return
            wanted.page_token = answer.next_page_token


def known(error: Any) -> CardwrightError:
    """What the server told in a grpc.RpcError (also grpc.aio's), or why it told nothing."""
    remote = told(error)
    if remote is not None:
        return remote
    if error.code() in _AWAY:
        return ServerUnreachable("The server does not answer, or is not the one that the operator's file names.")
    return ServerRefused(f"The server refused, or what stands in between ({error.code().name}).")
