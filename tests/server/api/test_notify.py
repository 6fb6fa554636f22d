"""NotifyService over gRPC: an organization's own texts, and what became of mails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import uuid4

import pytest

from cardwright_proto.cms.v1 import notify_pb2 as pb
from cardwright_server.api.notify import NotifyServicer
from cardwright_server.authentication.principal import Principal
from cardwright_server.notify.service import NotifyService
from cardwright_server.notify.store import queue
from cardwright_server.notify.templates import shipped
from cardwright_server.people.model import Role
from cardwright_server.store.ids import new_id
from cardwright_server.store.unit import Database, Unit
from tests.support.api import Api, serving
from tests.support.people import authorizer, make_operator

EVENT = "device.bind"


@dataclass
class World:
    """An organization behind the API."""

    database: Database
    api: Api
    admin: Principal

    async def mail(self, recipient: str, event: str = EVENT) -> None:
        """A mail that waits."""
        values = {
            "event": new_id(),
            "template": event,
            "recipient": recipient,
            "subject": "subject",
            "body": "a body that nobody is shown",
            "message_id": f"<{uuid4()}@example.org>",
        }

        async def work(unit: Unit) -> None:
            await queue(unit, self.admin.org, values)

        await self.database.transact(work)

    async def find(self, **wanted: object) -> pb.FindNotificationsResponse:
        """A page."""
        request = pb.FindNotificationsRequest(**wanted)  # type: ignore[arg-type]
        found: pb.FindNotificationsResponse = await self.api.call("NotifyService.Find", request, self.admin)
        return found


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    service = NotifyService(authorizer())
    async with serving(database, lambda calls: [NotifyServicer(calls, service)]) as api:
        yield World(database, api, await make_operator(database, uuid4(), Role.ADMINISTRATOR))


async def test_a_text_of_ones_own_and_back(world: World) -> None:
    request = pb.SetTemplateRequest(event=EVENT, subject="Your card, $person", body="Dear $person,\n\n$portal\n")
    made = await world.api.call("NotifyService.SetTemplate", request, world.admin)
    assert (made.own, made.subject, made.body) == (True, request.subject, request.body)
    assert {"person", "portal", "organization"} <= set(made.placeholders)
    texts = {one.event: one for one in (await world.find(templates=True)).templates}
    assert texts.keys() == shipped().keys()
    assert [event for event, one in texts.items() if one.own] == [EVENT]
    [one] = (await world.find(templates=True, event=EVENT)).templates
    assert one == made
    stranger = await make_operator(world.database, uuid4(), Role.ADMINISTRATOR)
    elsewhere = await world.api.call(
        "NotifyService.Find", pb.FindNotificationsRequest(templates=True, event=EVENT), stranger
    )
    assert not elsewhere.templates[0].own
    back = await world.api.call("NotifyService.SetTemplate", pb.SetTemplateRequest(event=EVENT), world.admin)
    assert (back.own, back.body) == (False, shipped()[EVENT].body)


async def test_mails_by_pages_without_their_text(world: World) -> None:
    for number in range(3):
        await world.mail(f"p{number}@example.org")
    await world.mail("other@example.org", "device.issue")
    seen: list[pb.Notification] = []
    token = ""
    while True:
        page = await world.find(event=EVENT, state=pb.MAIL_STATE_QUEUED, page_size=2, page_token=token)
        seen += page.notifications
        token = page.next_page_token
        if not token:
            break
    assert sorted(one.recipient for one in seen) == [f"p{number}@example.org" for number in range(3)]
    assert all(one.HasField("due_at") and not one.HasField("closed_at") for one in seen)
    assert b"nobody is shown" not in b"".join(one.SerializeToString() for one in seen)
    assert not (await world.find(state=pb.MAIL_STATE_DEAD)).notifications
    assert len((await world.find()).notifications) == 4


async def test_refusals_change_nothing(world: World) -> None:
    invalid, malformed = ("INVALID_ARGUMENT", "TEMPLATE_INVALID"), ("INVALID_ARGUMENT", "REQUEST_MALFORMED")
    for request, refusal in (
        (pb.SetTemplateRequest(subject="a", body="b"), malformed),
        (pb.SetTemplateRequest(event=EVENT, subject="s" * 151, body="b"), malformed),
        (pb.SetTemplateRequest(event=EVENT, subject="a", body="b" * 8001), malformed),
        (pb.SetTemplateRequest(event="no.event", subject="a", body="b"), invalid),
        (pb.SetTemplateRequest(event="no.event"), invalid),
        (pb.SetTemplateRequest(event=EVENT, subject="a"), invalid),
        (pb.SetTemplateRequest(event=EVENT, subject="a\nBcc: all", body="b"), invalid),
        (pb.SetTemplateRequest(event=EVENT, subject="a", body="$nothing"), invalid),
    ):
        assert await world.api.refused("NotifyService.SetTemplate", request, world.admin) == refusal, request
    auditor = await make_operator(world.database, world.admin.org, Role.AUDITOR)
    good = pb.SetTemplateRequest(event=EVENT, subject="a", body="b")
    assert await world.api.refused("NotifyService.SetTemplate", good, auditor) == ("PERMISSION_DENIED", "ACCESS_DENIED")
    assert not any(one.own for one in (await world.find(templates=True)).templates)
    for find in (pb.FindNotificationsRequest(page_token="x"), pb.FindNotificationsRequest(state=9)):  # type: ignore[arg-type]
        assert await world.api.refused("NotifyService.Find", find, auditor) == malformed
