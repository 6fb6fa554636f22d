"""The audit for who may look into it: find, verify, anchor, by authorized calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from cardwright_cardops.errors import CardwrightError

from ..authentication.authorize import Authorize, CallTarget
from ..authentication.matrix import Call
from ..authentication.principal import Principal
from ..limits import Admission
from ..store.unit import Database, Unit
from . import service
from .model import AuditEntry, Fact, Outcome, Target
from .service import Found
from .store import Filter
from .verify import Anchor, Expectations, Progress, PublicKey, Report

MOST_RESULTS = 201
"""One more than a page shows, so that its reader sees whether anything follows."""
WAITING = timedelta(seconds=30)
"""How long an entry may wait for its block before that is a finding."""
MOST_ANCHORS = 50


class BadAnchor(CardwrightError):
    """A text that is no anchor, or too many of them."""

    code = "BAD_ANCHOR"
    default_effect = "Nothing was verified."
    default_advice = "Give the anchors as they were printed, one text each."


class AuditService:
    """Authorized looks into the audit.

    ``keys`` gives the public keys that may have signed blocks, by name; ``chain`` as in ``Sealer``.
    """

    def __init__(
        self,
        database: Database,
        authorize: Authorize,
        keys: Callable[[], Awaitable[Mapping[str, PublicKey]]],
        *,
        chain: str = "server",
    ) -> None:
        self._database = database
        self._authorize = authorize
        self._keys = keys
        self._chain = chain
        self._verifying = Admission("verifying the audit", 1)

    async def find(
        self,
        unit: Unit,
        principal: Principal,
        wanted: Filter,
        *,
        before: tuple[datetime, UUID] | None = None,
        limit: int = MOST_RESULTS,
    ) -> Sequence[Found]:
        """Entries of the caller's organization, newest first. Raises AuthorizationError."""
        await self._authorize(unit, principal, Call("AuditService.Find"), CallTarget(principal.org))
        most = min(limit, MOST_RESULTS)
        return await service.find(unit, principal.org, wanted, before=before, limit=most)

    async def permit(self, principal: Principal, anchors: Sequence[str], since: str = "") -> Expectations:
        """What a verification is to expect. Raises AuthorizationError, BadAnchor, VaultError."""

        async def permit(unit: Unit) -> datetime:
            await self._authorize(unit, principal, Call("AuditService.Verify"), CallTarget(principal.org))
            return unit.now

        now = await self._database.read(permit)
        parsed, begin = _anchors(anchors), _anchors([since] if since else [])
        keys = await self._keys()
        return Expectations(keys, parsed, self._chain, now, since=begin[0] if begin else None)

    async def verify(self, principal: Principal, expected: Expectations) -> AsyncGenerator[Progress | Report, None]:
        """Judge the chain in the database as ``permit`` allowed, one at a time in this process.

        Gives how far it is after each page of blocks, and the report in the end; that it was done is recorded before.
        Raises ServerBusy, StoreError.
        """
        with self._verifying:
            async for step in service.judging(self._database, expected, waiting=WAITING):
                if isinstance(step, Report):
                    await self._database.transact(partial(_record, principal, step))
                yield step

    async def anchor(self, principal: Principal) -> Anchor | None:
        """The anchor of the newest signed block; None before the first. Raises AuthorizationError."""

        async def permit(unit: Unit) -> None:
            await self._authorize(unit, principal, Call("AuditService.Anchor"), CallTarget(principal.org))

        await self._database.read(permit)
        return await service.latest_anchor(self._database, self._chain)


class Details:
    """``people.erasure.Keeper`` of what stands beside the chain."""

    async def forget(self, unit: Unit, principal: Principal, person: UUID) -> None:
        """See ``Keeper``; the chain stays valid."""
        await service.erase(unit, principal.org, person)


async def _record(principal: Principal, report: Report, unit: Unit) -> None:
    facts: dict[str, Fact] = {"blocks": report.blocks, "findings": len(report.findings)}
    outcome = Outcome.DONE if report.valid else Outcome.FAILED
    target = Target("organization", principal.org)
    unit.audit(AuditEntry(principal.org, principal.who, "audit.verified", target, outcome, facts))


def _anchors(texts: Sequence[str]) -> tuple[Anchor, ...]:
    if len(texts) > MOST_ANCHORS:
        raise BadAnchor(f"at most {MOST_ANCHORS} anchors are taken at once")
    try:
        return tuple(Anchor.parse(text) for text in texts)
    except ValueError:
        raise BadAnchor("one of the anchors is none") from None
