"""One connection to the server: calls, and what their failures mean here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import grpc

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.rpc_status import DETAILS, RemoteError, error_of

from .credentials import Credentials, NotEnrolled
from .ports import Proof, ServerRefused, ServerUnreachable

MAX_MESSAGE: Final = 1 << 20
SESSION: Final = "cardwright-session"
OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    # A line that died without a word (a cable, a NAT) is found out within a minute and a half. A ping has a timeout of
    # its own beside that of keepalive, and after two pings without data no more would be sent.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 20_000),
)
_REFUSED: Final = frozenset({"CALLER_NOT_ADMITTED", "CONNECTION_ENDED"})
"""The server's codes for a workstation that it does not accept."""
_AWAY: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})


def open_channel(address: str, credentials: Credentials) -> grpc.aio.Channel:
    """A channel that shows the workstation's certificate and trusts the server's root alone. Raises NotEnrolled."""
    if not credentials.usable():
        raise NotEnrolled("The certificate of this workstation has ended.")
    shown = grpc.ssl_channel_credentials(credentials.anchor, credentials.key, credentials.chain)
    return grpc.aio.secure_channel(address, shown, options=OPTIONS)


def open_entry(address: str, anchor: bytes) -> grpc.aio.Channel:
    """A channel for who has no certificate yet; ``anchor`` is the server's root, PEM."""
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(anchor), options=OPTIONS)


def proved(proof: Proof | None) -> Sequence[tuple[str, str]]:
    """Metadata that says what the person proved."""
    return () if proof is None else ((SESSION, proof.token.reveal().decode("ascii")),)


async def ask(method: Any, request: Any, *, proof: Proof | None = None, seconds: float) -> Any:
    """One unary call. Raises ServerUnreachable, ServerRefused, and what the server told."""
    try:
        return await method(request, timeout=seconds, metadata=proved(proof))
    except grpc.aio.AioRpcError as error:
        raise meaning_of(error) from None


def meaning_of(error: grpc.aio.AioRpcError) -> CardwrightError:
    """What the server told, or why it told nothing."""
    for name, value in error.trailing_metadata() or ():
        if name == DETAILS and isinstance(value, bytes) and (told := error_of(value)) is not None:
            return _refused(told) if told.code in _REFUSED else told
    code = error.code()
    if code in _AWAY:
        return ServerUnreachable("The server does not answer, or is not the one that this workstation knows.")
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return ServerRefused("The server does not accept the certificate of this workstation.")
    # The server's own texts come with a code of ours; anything else may be from whatever stands in between.
    return ServerUnreachable(f"The call failed on its way ({code.name}).")


def _refused(told: RemoteError) -> ServerRefused:
    return ServerRefused(told.message, effect=told.effect, advice=told.advice)
