"""AuditService over gRPC: what auditors of one organization see, and whether the chain is whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

from cardwright_proto.cms.v1 import audit_pb2 as pb
from cardwright_server.api.audit import AuditServicer
from cardwright_server.audit.desk import AuditService
from cardwright_server.audit.model import AuditEntry, Fact, Target
from cardwright_server.audit.sealer import Sealer
from cardwright_server.audit.verify import PublicKey
from cardwright_server.authentication.principal import Principal
from cardwright_server.people.model import Role
from cardwright_server.store.audit_tables import audit_entry
from cardwright_server.store.unit import Database, Unit
from tests.support.api import Api, serving
from tests.support.audit import Signer
from tests.support.people import authorizer, make_operator


@dataclass
class World:
    """An organization behind the API, and a sealer."""

    database: Database
    api: Api
    sealer: Sealer
    auditor: Principal

    async def record(self, action: str, target: UUID, facts: Mapping[str, Fact]) -> None:
        """An act of the auditor's."""
        entry = AuditEntry(
            self.auditor.org, self.auditor.who, action, Target("device", target), facts=facts, personal={"n": "Ada"}
        )

        async def work(unit: Unit) -> None:
            unit.audit(entry)

        await self.database.transact(work)

    async def find(self, **wanted: object) -> pb.FindAuditResponse:
        """A page."""
        request = pb.FindAuditRequest(**wanted)  # type: ignore[arg-type]
        found: pb.FindAuditResponse = await self.api.call("AuditService.Find", request, self.auditor)
        return found


    async def verify(self, **wanted: object) -> pb.VerifyAuditResponse:
        """The last word about the chain; the others say how far it is."""
        request = pb.VerifyAuditRequest(**wanted)  # type: ignore[arg-type]
        answers, refused = await self.api.stream("AuditService.Verify", [request], self.auditor)
        assert refused is None
        assert [one.finished for one in answers] == [*[False] * (len(answers) - 1), True]
        return answers[-1]  # type: ignore[no-any-return]


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    signer = Signer()

    async def keys() -> Mapping[str, PublicKey]:
        return signer.public

    service = AuditService(database, authorizer(), keys)
    async with serving(database, lambda calls: [AuditServicer(calls, service)]) as api:
        auditor = await make_operator(database, uuid4(), Role.AUDITOR)
        yield World(database, api, Sealer(database, signer), auditor)


async def test_records_are_found_by_what_they_say_and_page_by_page(world: World) -> None:
    device = uuid4()
    facts: dict[str, Fact] = {"count": 3, "forced": True, "from": "stock", "reason": None}
    await world.record("device.bind", device, facts)
    for _ in range(4):
        await world.record("device.issue", device, {})
    await world.sealer.step()

    [one] = (await world.find(action="device.bind")).records
    assert (one.target, one.target_kind, one.who, one.person, one.who_kind, one.outcome, one.block) == (
        str(device),
        "device",
        str(world.auditor.id),
        str(world.auditor.person),
        "operator",
        pb.AUDIT_OUTCOME_DONE,
        1,
    )
    kinds = {fact.name: (fact, fact.WhichOneof("value")) for fact in one.facts}
    told = {name: (kind, getattr(fact, kind or "name")) for name, (fact, kind) in kinds.items()}
    assert told == {
        "count": ("number", 3),
        "forced": ("truth", True),
        "from": ("text", "stock"),
        "reason": (None, "reason"),
    }
    assert one.personal["n"] == "Ada"

    seen, token = [], ""
    while True:
        page = await world.find(target=str(device), page_size=2, page_token=token)
        seen += [record.id for record in page.records]
        token = page.next_page_token
        if not token:
            break
    assert len(seen) == len(set(seen)) == 5
    assert [record.id for record in (await world.find(action="device.", page_size=200)).records] == seen
    later = pb.FindAuditRequest(since=one.at, until=one.at).since
    assert not (await world.find(action="device.bind", until=later)).records
    assert len((await world.find(action="device.bind", since=later)).records) == 1


async def test_the_chain_is_judged_and_anchored(world: World) -> None:
    assert (await world.api.call("AuditService.Anchor", pb.AnchorAuditRequest(), world.auditor)).anchor == ""
    await world.record("device.bind", uuid4(), {})
    await world.sealer.step()
    anchor = (await world.api.call("AuditService.Anchor", pb.AnchorAuditRequest(), world.auditor)).anchor
    good = await world.verify(anchors=[anchor])
    assert (good.valid, good.blocks, good.anchor, list(good.findings)) == (True, 1, anchor, [])
    assert (await world.find(action="audit.verified")).records

    await world.database.transact(
        lambda unit: unit.execute(update(audit_entry).where(audit_entry.c.block == 1).values(action="device.issue"))
    )
    bad = await world.verify(anchors=[anchor])
    assert (bad.valid, [one.fault for one in bad.findings][:1]) == (False, ["entries"])
    ahead = anchor.replace(":1:", ":9:")
    cut = await world.verify(anchors=[ahead])
    assert "cut" in {one.fault for one in cut.findings}


async def test_refusals(world: World) -> None:
    malformed = ("INVALID_ARGUMENT", "REQUEST_MALFORMED")
    for request in (
        pb.FindAuditRequest(target="x"),
        pb.FindAuditRequest(action="x" * 81),
        pb.FindAuditRequest(page_token="WyIyMDI2IiwieCJd"),
        pb.FindAuditRequest(page_size=201),
    ):
        assert await world.api.refused("AuditService.Find", request, world.auditor) == malformed
    never = pb.FindAuditRequest()
    never.since.seconds = 1 << 60
    assert await world.api.refused("AuditService.Find", never, world.auditor) == malformed
    verify = pb.VerifyAuditRequest(anchors=["no anchor"])
    for wrong in (verify, pb.VerifyAuditRequest(since="no anchor")):
        answers, refused = await world.api.stream("AuditService.Verify", [wrong], world.auditor)
        assert (answers, refused) == ([], ("INVALID_ARGUMENT", "BAD_ANCHOR"))
    desk = await make_operator(world.database, world.auditor.org, Role.HELP_DESK)
    denied = ("PERMISSION_DENIED", "ACCESS_DENIED")
    assert await world.api.refused("AuditService.Find", pb.FindAuditRequest(), desk) == denied
    # A denial is itself on record.
    [noted] = (await world.find(action="authorization.denied")).records
    assert (noted.outcome, noted.who) == (pb.AUDIT_OUTCOME_REFUSED, str(desk.id))
