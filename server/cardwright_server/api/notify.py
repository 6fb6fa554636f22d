"""``NotifyService`` of the contract."""

from __future__ import annotations

from typing import Any, Final

from cardwright_proto.cms.v1 import notify_pb2 as pb
from cardwright_proto.cms.v1 import notify_pb2_grpc

from ..authentication.principal import Principal
from ..notify import store
from ..notify.service import NotifyService
from ..notify.store import Sending
from ..notify.templates import COMMON, LONGEST_BODY, LONGEST_SUBJECT, Template
from ..store.unit import Unit
from . import pages, showing
from . import reading as read
from .calling import Calls, Context

LONGEST_EVENT: Final = 80
_STATES = {
    int(pb.MAIL_STATE_QUEUED): store.QUEUED,
    int(pb.MAIL_STATE_SENDING): store.SENDING,
    int(pb.MAIL_STATE_SENT): store.SENT,
    int(pb.MAIL_STATE_DEAD): store.DEAD,
}
_NUMBERS: dict[str, Any] = {state: number for number, state in _STATES.items()}


class NotifyServicer(notify_pb2_grpc.NotifyServiceServicer):
    """Decodes, calls the service, encodes."""

    def __init__(self, calls: Calls, service: NotifyService) -> None:
        self._calls = calls
        self._service = service

    async def SetTemplate(self, request: pb.SetTemplateRequest, context: Context) -> pb.MailTemplate:
        """Replace the text for an event, or go back to the shipped one."""

        async def work(unit: Unit, principal: Principal) -> tuple[Template, bool]:
            event = read.line(request.event, "event", LONGEST_EVENT, least=1)
            subject = read.block(request.subject, "subject", LONGEST_SUBJECT)
            body = read.block(request.body, "body", LONGEST_BODY)
            return await self._service.set_template(unit, principal, event, subject, body)

        return _template(*await self._calls.write(context, work))

    async def Find(self, request: pb.FindNotificationsRequest, context: Context) -> pb.FindNotificationsResponse:
        """A page of mails, newest first, and the texts if asked for."""

        async def work(unit: Unit, principal: Principal) -> pb.FindNotificationsResponse:
            page = read.page(request.page_size, request.page_token, keys=2)
            event = read.line(request.event, "event", LONGEST_EVENT) or None
            state = read.optional_choice(_STATES, request.state, "state")
            before = pages.after_moment(page)
            found = await self._service.find(unit, principal, event=event, state=state, before=before, limit=page.asked)
            shown, last = page.cut(found)
            texts = await self._service.templates(unit, principal, event) if request.templates else []
            return pb.FindNotificationsResponse(
                notifications=map(_notification, shown),
                next_page_token="" if last is None else read.page_token(last.created_at.isoformat(), str(last.id)),
                templates=[_template(*one) for one in texts],
            )

        return await self._calls.read(context, work)


def _template(template: Template, own: bool) -> pb.MailTemplate:
    return pb.MailTemplate(
        event=template.event,
        subject=template.subject,
        body=template.body,
        placeholders=sorted(COMMON | template.data),
        own=own,
    )


def _notification(found: Sending) -> pb.Notification:
    return pb.Notification(
        id=str(found.id),
        event=found.template,
        recipient=found.recipient,
        state=_NUMBERS[found.state],
        attempts=found.attempts,
        created_at=read.stamp(found.created_at),
        due_at=showing.moment(found.due_at if found.state == store.QUEUED else None),
        closed_at=showing.moment(found.closed_at),
        error=found.error,
    )
