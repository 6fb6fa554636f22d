"""``PolicyService`` of the contract."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from cardwright_proto.cms.v1 import policies_pb2 as pb
from cardwright_proto.cms.v1 import policies_pb2_grpc

from ..authentication.principal import Principal
from ..policies.model import PolicyVersion, VersionState
from ..policies.service import PolicyService
from ..store.unit import Unit
from . import pages, showing
from . import reading as read
from .calling import Calls, Context
from .choices import Choices

LONGEST_DOCUMENT: Final = 64 * 1024
LONGEST_NAME: Final = 60
STATES = Choices(VersionState, pb.PolicyState, "POLICY_STATE")


class PolicyServicer(policies_pb2_grpc.PolicyServiceServicer):
    """Decodes, calls the service, encodes."""

    def __init__(self, calls: Calls, service: PolicyService) -> None:
        self._calls = calls
        self._service = service

    async def Draft(self, request: pb.DraftPolicyRequest, context: Context) -> pb.PolicyVersion:
        """Write down a new version, or give one up."""

        async def work(unit: Unit, principal: Principal) -> PolicyVersion:
            match request.WhichOneof("what"):
                case "text":
                    text = read.block(request.text, "text", LONGEST_DOCUMENT)
                    return await self._service.draft(unit, principal, text)
                case "shipped":
                    name = read.line(request.shipped, "shipped", LONGEST_NAME, least=1)
                    return await self._service.draft_shipped(unit, principal, name)
                case "discard":
                    version = read.identifier(request.discard, "discard")
                    return await self._service.discard(unit, principal, version)
                case _:
                    raise read.RequestMalformed("what is not given.")

        return _version(await self._calls.write(context, work))

    async def Publish(self, request: pb.PublishPolicyRequest, context: Context) -> pb.PolicyVersion:
        """Put a draft in force."""

        async def work(unit: Unit, principal: Principal) -> PolicyVersion:
            return await self._service.publish(unit, principal, read.identifier(request.id, "id"))

        return _version(await self._calls.write(context, work))

    async def Assign(self, request: pb.AssignPolicyRequest, context: Context) -> pb.AssignPolicyResponse:
        """Let a policy apply to a group, or no more."""

        async def work(unit: Unit, principal: Principal) -> None:
            name = read.line(request.name, "name", LONGEST_NAME, least=1)
            group = read.identifier(request.group, "group")
            act = self._service.unassign if request.withdraw else self._service.assign
            await act(unit, principal, name, group)

        await self._calls.write(context, work)
        return pb.AssignPolicyResponse()

    async def Get(self, request: pb.GetPolicyRequest, context: Context) -> pb.GetPolicyResponse:
        """One version, with its text."""

        async def work(unit: Unit, principal: Principal) -> tuple[PolicyVersion, list[UUID]]:
            identifier = read.identifier(request.id, "id")
            found = await self._service.get(unit, principal, identifier)
            return found, await self._service.groups(unit, principal, identifier)

        found, groups = await self._calls.read(context, work)
        return pb.GetPolicyResponse(version=_version(found), text=found.text, groups=map(str, groups))

    async def Find(self, request: pb.FindPoliciesRequest, context: Context) -> pb.FindPoliciesResponse:
        """A page of versions."""

        async def work(unit: Unit, principal: Principal) -> pb.FindPoliciesResponse:
            page = read.page(request.page_size, request.page_token)
            found = await self._service.find(
                unit,
                principal,
                read.line(request.name, "name", LONGEST_NAME) or None,
                states=STATES.several(request.states, "states"),
                after=pages.after(page),
                limit=page.asked,
            )
            shown, last = page.cut(found)
            return pb.FindPoliciesResponse(versions=map(_version, shown), next_page_token=pages.token(last))

        return await self._calls.read(context, work)


def _version(found: PolicyVersion) -> pb.PolicyVersion:
    return pb.PolicyVersion(
        id=str(found.id),
        policy=str(found.policy),
        name=found.name,
        number=found.number,
        state=STATES.number(found.state),
        digest=found.digest,
        drafted_by=str(found.drafted_by),
        published_by=showing.identifier(found.published_by),
        published_at=showing.moment(found.published_at),
    )
