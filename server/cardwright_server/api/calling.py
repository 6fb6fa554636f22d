"""How a call runs: who calls is found out, limits are asked, the work gets one unit, errors become statuses.

Servicers decode, name their work and encode; everything that is the same for all calls is here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import grpc
import structlog

from cardwright_cardops.errors import CardwrightError

from ..audit.model import AuditEntry, Outcome, Target
from ..authentication.errors import AuthorizationError
from ..authentication.principal import Principal, PrincipalKind
from ..limits import Limits, Scope
from ..store.errors import StoreError
from ..store.unit import Database, Unit
from .errors import abort
from .refusals import CallFailed, CallTooLong

T = TypeVar("T")
Context = Any
"""grpc.aio.ServicerContext of a call; its two type parameters are not worth their length here."""
Identify = Callable[[Context], Awaitable[Principal]]
"""Who makes a call, by its transport and metadata. Raises CardwrightError."""

PATIENCE = timedelta(seconds=60)
"""For one call that is no stream, whatever longer deadline its caller sets."""
procedure: ContextVar[str] = ContextVar("procedure", default="")
"""The remote procedure that this task serves, as the matrix calls it (``DeviceService.Bind``)."""


class Watch(Protocol):
    """What is counted about calls (``metrics.Metrics`` is one)."""

    def denied(self, call: str) -> None:
        """A call was refused by authorization."""

    def limited(self, call: str) -> None:
        """A call was turned away because there were too many."""


class Unwatched:
    """A ``Watch`` that counts nothing."""

    def denied(self, call: str) -> None:
        """See ``Watch``."""

    def limited(self, call: str) -> None:
        """See ``Watch``."""


class Calls:
    """Runs a call's work in one unit for the caller that transport and metadata show.

    Errors become gRPC statuses; a call that authorization denies leaves an audit entry, although its unit did not
    commit. ``limits``: buckets per caller; None: none.
    """

    def __init__(
        self,
        database: Database,
        identify: Identify,
        limits: Limits | None = None,
        watch: Watch | None = None,
        patience: timedelta = PATIENCE,
    ) -> None:
        self._database = database
        self._identify = identify
        self._limits = limits
        self._watch = watch or Unwatched()
        self._patience = patience.total_seconds()

    async def write(self, context: Context, work: Callable[[Unit, Principal], Awaitable[T]]) -> T:
        """Run ``work`` in a transaction that commits (``Database.transact``: it may run more than once)."""
        return await self.act(context, lambda principal: self._database.transact(lambda unit: work(unit, principal)))

    async def read(self, context: Context, work: Callable[[Unit, Principal], Awaitable[T]]) -> T:
        """Run ``work`` on one snapshot."""
        return await self.act(context, lambda principal: self._database.read(lambda unit: work(unit, principal)))

    async def act(
        self, context: Context, work: Callable[[Principal], Awaitable[T]], patience: timedelta | None = None
    ) -> T:
        """Run ``work`` of a service that opens its own units. ``patience`` in place of the usual one."""
        try:
            async with asyncio.timeout(self._patience_for(context, patience)):
                principal = await self._admitted(context)
                try:
                    return await work(principal)
                except AuthorizationError as error:
                    await self.note_denial(principal, error)
                    raise
        except TimeoutError:
            await abort(context, CallTooLong("the call took too long"))
        except CardwrightError as error:
            await abort(context, error)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception:
            structlog.get_logger().error("call-failed", call=procedure.get(), exc_info=True)
            await abort(context, CallFailed("the call failed"))

    async def caller(self, context: Context) -> Principal:
        """For streams: who calls, within their limits. Raises CardwrightError."""
        return await self._admitted(context)

    async def note_denial(self, principal: Principal, error: AuthorizationError) -> None:
        """Leave an audit entry about a denied call, in a unit of its own. The denial stands if it cannot be kept."""
        call = procedure.get()
        self._watch.denied(call)

        async def note(unit: Unit) -> None:
            facts = {"call": call or "unknown", "code": error.code}
            target = Target("call")
            unit.audit(AuditEntry(principal.org, principal.who, "authorization.denied", target, Outcome.REFUSED, facts))

        try:
            await self._database.transact(note)
        except StoreError as lost:
            structlog.get_logger().error("denial-not-recorded", call=call, code=lost.code)

    async def _admitted(self, context: Context) -> Principal:
        principal = await self._identify(context)
        if self._limits is not None:
            try:
                self._limits.take(dict(_scopes(principal)))
            except CardwrightError:
                self._watch.limited(procedure.get())
                raise
        return principal

    def _patience_for(self, context: Context, patience: timedelta | None) -> float:
        most = self._patience if patience is None else patience.total_seconds()
        remaining = context.time_remaining()
        return most if remaining is None else min(most, float(remaining))


def _scopes(principal: Principal) -> Iterable[tuple[Scope, Hashable]]:
    """Whose buckets a call takes from. An address counts for those who are nobody: others share one behind a proxy."""
    if principal.workstation is not None:
        yield Scope.WORKSTATION, principal.workstation
    match principal.kind:
        case PrincipalKind.OPERATOR | PrincipalKind.SERVICE:
            yield Scope.OPERATOR, principal.id
        case PrincipalKind.PERSON:
            yield Scope.PERSON, principal.id
        case PrincipalKind.ANYONE:
            yield Scope.ADDRESS, principal.address
