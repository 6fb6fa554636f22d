"""What operators ask of notifications: the texts, and what became of the mails."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from ..audit.model import AuditEntry, Fact, Target
from ..authentication.authorize import Authorize, CallTarget
from ..authentication.matrix import Call
from ..authentication.principal import Principal
from ..store.unit import Unit
from . import store
from .errors import TemplateInvalid
from .mail import keep_template, template_in_use
from .store import Sending
from .templates import Template, shipped

MOST_RESULTS = 201
"""One more than a page shows, so that its reader sees whether anything follows."""


class NotifyService:
    """Texts and mails of an organization. Stateless."""

    def __init__(self, authorize: Authorize) -> None:
        self._authorize = authorize

    async def set_template(
        self, unit: Unit, principal: Principal, event: str, subject: str, body: str
    ) -> tuple[Template, bool]:
        """Replace the text for an event, or with two empty texts go back to the shipped one; what then is in use.

        Raises AuthorizationError, TemplateInvalid.
        """
        org = principal.org
        await self._authorize(unit, principal, Call("NotifyService.SetTemplate"), CallTarget(org))
        if event not in shipped():
            raise TemplateInvalid("no mail is sent for this event")
        own = bool(subject or body)
        if own:
            await keep_template(unit, org, event, subject, body)
        else:
            await store.forget_template(unit, org, event)
        facts: dict[str, Fact] = {"event": event, "own": own}
        unit.audit(AuditEntry(org, principal.who, "notify.template-set", Target("organization", org), facts=facts))
        return await template_in_use(unit, org, event)

    async def find(
        self,
        unit: Unit,
        principal: Principal,
        *,
        event: str | None = None,
        state: str | None = None,
        before: tuple[datetime, UUID] | None = None,
        limit: int = MOST_RESULTS,
    ) -> list[Sending]:
        """Mails, newest first, from beyond ``before`` (when made, id). Raises AuthorizationError."""
        await self._authorize(unit, principal, Call("NotifyService.Find"), CallTarget(principal.org))
        most = min(limit, MOST_RESULTS)
        return await store.find(unit, principal.org, template=event, state=state, before=before, limit=most)

    async def templates(
        self, unit: Unit, principal: Principal, event: str | None = None
    ) -> list[tuple[Template, bool]]:
        """The texts in use, of one event or of all, and whether they are the organization's own.

        Raises AuthorizationError.
        """
        await self._authorize(unit, principal, Call("NotifyService.Find"), CallTarget(principal.org))
        names = sorted(shipped()) if event is None else [event] if event in shipped() else []
        return [await template_in_use(unit, principal.org, name) for name in names]
