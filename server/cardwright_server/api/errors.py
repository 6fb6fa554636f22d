"""Which gRPC code an error of the server ends a call with, and what its details say besides."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, NoReturn

import grpc

from cardwright_cardops import rpc_status
from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.wire import WireMalformed, WireUnsupported

from ..audit.desk import BadAnchor
from ..authentication.answers import BadAnswer
from ..authentication.enrolment import BadQuestion, NoOpenUnlock
from ..authentication.errors import (
    AuthorizationError,
    MethodLocked,
    MethodNotOffered,
    ProofExpired,
    ProofRefused,
    ProofRequired,
)
from ..devices.errors import BadDevice, DeviceKnown, NoSuchDevice
from ..escrow.errors import EscrowQuota, NoSuchEscrowedKey
from ..issuance.errors import NoSuchAuthority, NoSuchCertificate, WrongRole
from ..limits import LimitExceeded, ServerBusy
from ..machine import GuardRefused, IllegalTransition
from ..notify.errors import TemplateInvalid
from ..people.directory import DirectoryError, NoSuchBranch
from ..people.errors import BadAttribute, KeyTaken, LoginTaken, NoSuchGroup, NoSuchOperator, NoSuchPerson
from ..people.naming import BadName
from ..policies.errors import NoSuchPolicy, PolicyContradictory, PolicyInvalid
from ..release import VersionsApart
from ..requests.errors import NoSuchRequest
from ..sessions.errors import (
    CardInSession,
    LineLost,
    PeerTooOld,
    SessionCancelled,
    SessionLost,
    SessionProtocolBroken,
)
from ..store.errors import StaleVersion, StoreError
from ..vault.errors import VaultLocked, VaultQuota, VaultUnavailable
from ..workstations.errors import BadHost, BadReason, BadRequest, NoSuchWorkstation
from .reading import RequestMalformed
from .refusals import CallFailed, CallTooLong, ConnectionEnded, NotAdmitted, ServerStopping

_CODES: Final[tuple[tuple[type[CardwrightError], grpc.StatusCode], ...]] = (
    (RequestMalformed, grpc.StatusCode.INVALID_ARGUMENT),
    (NotAdmitted, grpc.StatusCode.UNAUTHENTICATED),
    (ConnectionEnded, grpc.StatusCode.UNAUTHENTICATED),
    (ServerStopping, grpc.StatusCode.UNAVAILABLE),
    (CallTooLong, grpc.StatusCode.DEADLINE_EXCEEDED),
    (CallFailed, grpc.StatusCode.INTERNAL),
    (VersionsApart, grpc.StatusCode.UNIMPLEMENTED),
    (ProofRequired, grpc.StatusCode.UNAUTHENTICATED),
    (ProofExpired, grpc.StatusCode.UNAUTHENTICATED),
    (ProofRefused, grpc.StatusCode.UNAUTHENTICATED),
    (MethodLocked, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (MethodNotOffered, grpc.StatusCode.INVALID_ARGUMENT),
    (WrongRole, grpc.StatusCode.UNAUTHENTICATED),
    (LimitExceeded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (ServerBusy, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (AuthorizationError, grpc.StatusCode.PERMISSION_DENIED),
    (NoSuchDevice, grpc.StatusCode.NOT_FOUND),
    (NoSuchRequest, grpc.StatusCode.NOT_FOUND),
    (NoSuchPolicy, grpc.StatusCode.NOT_FOUND),
    (NoSuchCertificate, grpc.StatusCode.NOT_FOUND),
    (NoSuchEscrowedKey, grpc.StatusCode.NOT_FOUND),
    (NoSuchAuthority, grpc.StatusCode.NOT_FOUND),
    (NoSuchPerson, grpc.StatusCode.NOT_FOUND),
    (NoOpenUnlock, grpc.StatusCode.NOT_FOUND),
    (NoSuchGroup, grpc.StatusCode.NOT_FOUND),
    (NoSuchOperator, grpc.StatusCode.NOT_FOUND),
    (NoSuchWorkstation, grpc.StatusCode.NOT_FOUND),
    (DeviceKnown, grpc.StatusCode.ALREADY_EXISTS),
    (BadDevice, grpc.StatusCode.INVALID_ARGUMENT),
    (PolicyInvalid, grpc.StatusCode.INVALID_ARGUMENT),
    (PolicyContradictory, grpc.StatusCode.INVALID_ARGUMENT),
    (VaultQuota, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (EscrowQuota, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (VaultLocked, grpc.StatusCode.UNAVAILABLE),
    (VaultUnavailable, grpc.StatusCode.UNAVAILABLE),
    (LoginTaken, grpc.StatusCode.ALREADY_EXISTS),
    (KeyTaken, grpc.StatusCode.ALREADY_EXISTS),
    (BadName, grpc.StatusCode.INVALID_ARGUMENT),
    (BadAttribute, grpc.StatusCode.INVALID_ARGUMENT),
    (BadAnswer, grpc.StatusCode.INVALID_ARGUMENT),
    (BadAnchor, grpc.StatusCode.INVALID_ARGUMENT),
    (BadQuestion, grpc.StatusCode.INVALID_ARGUMENT),
    (BadHost, grpc.StatusCode.INVALID_ARGUMENT),
    (BadReason, grpc.StatusCode.INVALID_ARGUMENT),
    (BadRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (TemplateInvalid, grpc.StatusCode.INVALID_ARGUMENT),
    (NoSuchBranch, grpc.StatusCode.NOT_FOUND),
    (DirectoryError, grpc.StatusCode.UNAVAILABLE),
    (CardInSession, grpc.StatusCode.ABORTED),
    (SessionLost, grpc.StatusCode.ABORTED),
    (StaleVersion, grpc.StatusCode.ABORTED),
    (SessionCancelled, grpc.StatusCode.CANCELLED),
    (LineLost, grpc.StatusCode.UNAVAILABLE),
    (StoreError, grpc.StatusCode.UNAVAILABLE),
    (SessionProtocolBroken, grpc.StatusCode.INVALID_ARGUMENT),
    (WireMalformed, grpc.StatusCode.INVALID_ARGUMENT),
    (WireUnsupported, grpc.StatusCode.UNIMPLEMENTED),
    (PeerTooOld, grpc.StatusCode.UNIMPLEMENTED),
    (IllegalTransition, grpc.StatusCode.FAILED_PRECONDITION),
    (GuardRefused, grpc.StatusCode.FAILED_PRECONDITION),
)
"""From special to general; whatever is not here is FAILED_PRECONDITION: asked for well, not possible now."""


def details_of(error: CardwrightError) -> tuple[grpc.StatusCode, bytes]:
    """The code, and the google.rpc.Status whose ErrorInfo says it all: effect and advice are its metadata.

    Where it helps, ``retry_after`` is there (seconds), and ``methods`` (those by which the caller might prove enough).
    """
    code = next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.FAILED_PRECONDITION)
    more: dict[str, str] = {}
    after = getattr(error, "retry_after", None)
    if after is not None:
        seconds = after.total_seconds() if isinstance(after, timedelta) else after
        more["retry_after"] = f"{seconds:.3f}"
    return code, rpc_status.details_of(error, code.value[0], more)


async def abort(context: Any, error: CardwrightError) -> NoReturn:
    """End the call of ``context`` (grpc.aio.ServicerContext) with the status of ``error``."""
    code, details = details_of(error)
    await context.abort(code, error.message, ((rpc_status.DETAILS, details),))
    raise AssertionError("abort returned")
