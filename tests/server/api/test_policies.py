"""PolicyService over gRPC: four eyes, paging, and nothing recorded of what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import grpc
import pytest

from cardwright_proto.cms.v1 import policies_pb2 as pb
from cardwright_server.authentication.principal import Principal
from cardwright_server.people.model import Role
from cardwright_server.policies.document import shipped
from cardwright_server.store.unit import Database
from tests.support.managed import Managed, managed
from tests.support.people import make_operator


@pytest.fixture
async def served(database: Database, tmp_path: Path) -> AsyncIterator[Managed]:
    async with managed(database, tmp_path) as made:
        yield made


@pytest.fixture
async def author(served: Managed) -> Principal:
    return await make_operator(served.world.database, served.world.org, Role.ADMINISTRATOR)


async def test_a_version_from_draft_to_assignment(served: Managed, author: Principal) -> None:
    world = served.world
    text = shipped("developer")
    draft = await served.call("PolicyService.Draft", pb.DraftPolicyRequest(text=text), author)
    assert (draft.name, draft.number, draft.state) == ("developer", 1, pb.POLICY_STATE_DRAFT)
    assert (draft.drafted_by, draft.published_by) == (str(author.person), "")
    assert not draft.HasField("published_at")
    made = await served.call("PolicyService.Publish", pb.PublishPolicyRequest(id=draft.id), world.officer)
    assert (made.state, made.published_by) == (pb.POLICY_STATE_PUBLISHED, str(world.officer.person))
    assert made.HasField("published_at")
    assign = pb.AssignPolicyRequest(name="developer", group=str(world.group))
    await served.call("PolicyService.Assign", assign, author)
    shown = await served.call("PolicyService.Get", pb.GetPolicyRequest(id=draft.id), world.helper)
    assert (shown.text, list(shown.groups), shown.version) == (text, [str(world.group)], made)
    assign.withdraw = True
    await served.call("PolicyService.Assign", assign, author)
    shown = await served.call("PolicyService.Get", pb.GetPolicyRequest(id=draft.id), world.helper)
    assert list(shown.groups) == []


async def test_shipped_drafts_and_those_given_up(served: Managed, author: Principal) -> None:
    draft = await served.call("PolicyService.Draft", pb.DraftPolicyRequest(shipped="piv"), author)
    gone = await served.call("PolicyService.Draft", pb.DraftPolicyRequest(discard=draft.id), author)
    assert (gone.id, gone.state) == (draft.id, pb.POLICY_STATE_DISCARDED)
    publish = pb.PublishPolicyRequest(id=draft.id)
    assert await served.refused("PolicyService.Publish", publish, served.world.officer) == (
        "FAILED_PRECONDITION",
        "ILLEGAL_TRANSITION",
    )


async def test_pages_have_everything_once(served: Managed, author: Principal) -> None:
    for _ in range(3):
        await served.call("PolicyService.Draft", pb.DraftPolicyRequest(shipped="developer"), author)
    found, token = [], ""
    while True:
        page = await served.call(
            "PolicyService.Find", pb.FindPoliciesRequest(page_size=2, page_token=token), served.world.helper
        )
        found += page.versions
        token = page.next_page_token
        if not token:
            break
        assert len(page.versions) == 2
    assert [(one.name, one.number) for one in found] == [("civ", 1), *(("developer", number) for number in (1, 2, 3))]
    wanted = pb.FindPoliciesRequest(name="developer", states=[pb.POLICY_STATE_DRAFT], page_size=3)
    page = await served.call("PolicyService.Find", wanted, served.world.helper)
    assert ([one.number for one in page.versions], page.next_page_token) == ([1, 2, 3], "")
    wanted.states.append(pb.POLICY_STATE_DISCARDED)
    del wanted.states[0]
    assert not (await served.call("PolicyService.Find", wanted, served.world.helper)).versions


async def test_two_officers_who_publish_at_once(served: Managed, author: Principal) -> None:
    world = served.world
    draft = await served.call("PolicyService.Draft", pb.DraftPolicyRequest(shipped="developer"), author)
    officers = [world.officer, await make_operator(world.database, world.org, Role.SECURITY_OFFICER)]
    publish = pb.PublishPolicyRequest(id=draft.id)
    ended = await asyncio.gather(
        *(served.call("PolicyService.Publish", publish, one) for one in officers), return_exceptions=True
    )
    assert sum(isinstance(one, grpc.aio.AioRpcError) for one in ended) == 1
    shown = await served.call("PolicyService.Get", pb.GetPolicyRequest(id=draft.id), world.helper)
    assert shown.version.state == pb.POLICY_STATE_PUBLISHED


async def test_refusals_record_nothing(served: Managed, author: Principal) -> None:
    world = served.world
    draft = await served.call("PolicyService.Draft", pb.DraftPolicyRequest(shipped="developer"), author)
    before = await served.recorded()
    malformed = ("INVALID_ARGUMENT", "REQUEST_MALFORMED")
    unknown = pb.PublishPolicyRequest(id=draft.id).SerializeToString() + b"\x7a\x01x"
    for name, request, who in (
        ("Draft", pb.DraftPolicyRequest(), author),
        ("Draft", pb.DraftPolicyRequest(text="x" * (64 * 1024 + 1)), author),
        ("Draft", pb.DraftPolicyRequest(shipped="a\nb"), author),
        ("Draft", pb.DraftPolicyRequest(discard="1"), author),
        ("Draft", b"\xff\xff\xff", author),
        ("Publish", pb.PublishPolicyRequest(), world.officer),
        ("Publish", pb.PublishPolicyRequest(id=draft.id.upper()), world.officer),
        ("Publish", unknown, world.officer),
        ("Assign", pb.AssignPolicyRequest(name="civ"), author),
        ("Assign", pb.AssignPolicyRequest(group=str(world.group)), author),
        ("Get", pb.GetPolicyRequest(id="x"), world.helper),
        ("Find", pb.FindPoliciesRequest(page_size=201), world.helper),
        ("Find", pb.FindPoliciesRequest(page_token="x"), world.helper),
        ("Find", pb.FindPoliciesRequest(name="x" * 61), world.helper),
        ("Find", pb.FindPoliciesRequest(states=[pb.POLICY_STATE_UNSPECIFIED]), world.helper),
        ("Find", pb.FindPoliciesRequest(states=[99]), world.helper),  # type: ignore[list-item]
        ("Find", pb.FindPoliciesRequest(states=[pb.POLICY_STATE_DRAFT] * 5), world.helper),
    ):
        assert await served.refused(f"PolicyService.{name}", request, who) == malformed, (name, request)
    for name, request, who, refusal in (
        ("Draft", pb.DraftPolicyRequest(text="name = 1"), author, ("INVALID_ARGUMENT", "POLICY_INVALID")),
        ("Draft", pb.DraftPolicyRequest(shipped="unheard-of"), author, ("NOT_FOUND", "NO_SUCH_POLICY")),
        ("Publish", pb.PublishPolicyRequest(id=str(uuid4())), world.officer, ("NOT_FOUND", "NO_SUCH_POLICY")),
        ("Get", pb.GetPolicyRequest(id=str(uuid4())), world.helper, ("NOT_FOUND", "NO_SUCH_POLICY")),
        ("Assign", pb.AssignPolicyRequest(name="civ", group=str(uuid4())), author, ("NOT_FOUND", "NO_SUCH_GROUP")),
        ("Assign", pb.AssignPolicyRequest(name="no", group=str(world.group)), author, ("NOT_FOUND", "NO_SUCH_POLICY")),
    ):
        assert await served.refused(f"PolicyService.{name}", request, who) == refusal, (name, request)
    assert await served.recorded() == before


async def test_who_may_not(served: Managed, author: Principal) -> None:
    world = served.world
    both = await make_operator(world.database, world.org, Role.ADMINISTRATOR, Role.SECURITY_OFFICER)
    draft = await served.call("PolicyService.Draft", pb.DraftPolicyRequest(shipped="developer"), both)
    publish, denied = pb.PublishPolicyRequest(id=draft.id), "PERMISSION_DENIED"
    assert (await served.refused("PolicyService.Publish", publish, both))[0] == denied
    assert (await served.refused("PolicyService.Publish", publish, author))[0] == denied
    assert (await served.refused("PolicyService.Publish", publish, None))[0] == "UNAUTHENTICATED"
    for name, request in (
        ("Draft", pb.DraftPolicyRequest(shipped="civ")),
        ("Assign", pb.AssignPolicyRequest(name="civ", group=str(world.group))),
    ):
        assert (await served.refused(f"PolicyService.{name}", request, world.officer))[0] == denied
