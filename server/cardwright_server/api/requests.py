"""``RequestService`` of the contract."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row

from cardwright_proto.cms.v1 import requests_pb2 as pb
from cardwright_proto.cms.v1 import requests_pb2_grpc

from ..authentication.principal import Principal, PrincipalKind
from ..devices.model import Reason
from ..requests.model import Opened, Request, RequestKind, RequestState
from ..requests.service import LONGEST_KEY, Names, RequestService
from ..store.unit import Unit
from . import pages, showing
from . import reading as read
from .calling import Calls, Context
from .choices import Choices
from .devices import REASONS

IDEMPOTENCY_KEY: Final = "idempotency-key"
"""Metadata of the calls that create."""
KINDS = Choices(RequestKind, pb.RequestKind, "REQUEST_KIND")
STATES = Choices(RequestState, pb.RequestState, "REQUEST_STATE")
_MAKERS = {
    PrincipalKind.PERSON.value: pb.REQUEST_MAKER_PERSON,
    PrincipalKind.OPERATOR.value: pb.REQUEST_MAKER_OPERATOR,
    PrincipalKind.SERVICE.value: pb.REQUEST_MAKER_SERVICE,
    PrincipalKind.SYSTEM.value: pb.REQUEST_MAKER_SYSTEM,
}
Create = Callable[[Unit, Principal, UUID, str], Awaitable[Opened]]
Decide = Callable[[Unit, Principal, UUID], Awaitable[Request]]


class RequestServicer(requests_pb2_grpc.RequestServiceServicer):
    """Decodes, calls the service, encodes."""

    def __init__(self, calls: Calls, service: RequestService) -> None:
        self._calls = calls
        self._service = service

    async def CreateIssuance(self, request: pb.CreateIssuanceRequest, context: Context) -> pb.CreatedRequest:
        """Ask that a bound device be written."""
        service = self._service
        return await self._create(
            request.device, context, lambda unit, who, device, key: service.create_issuance(unit, who, device, key=key)
        )

    async def CreateReplacement(self, request: pb.CreateReplacementRequest, context: Context) -> pb.CreatedRequest:
        """Ask for another device in place of this one."""

        async def create(unit: Unit, principal: Principal, device: UUID, key: str) -> Opened:
            reason = REASONS.optional(request.reason, "reason") or Reason.NONE
            return await self._service.create_replacement(unit, principal, device, reason, key=key)

        return await self._create(request.device, context, create)

    async def CreateUnlock(self, request: pb.CreateUnlockRequest, context: Context) -> pb.CreatedRequest:
        """Ask that a PIN be set anew."""
        service = self._service
        return await self._create(
            request.device, context, lambda unit, who, device, key: service.create_unlock(unit, who, device, key=key)
        )

    async def CreateUpdate(self, request: pb.CreateUpdateRequest, context: Context) -> pb.CreatedRequest:
        """Ask that a device be brought to its policy."""
        service = self._service
        return await self._create(
            request.device, context, lambda unit, who, device, key: service.create_update(unit, who, device, key=key)
        )

    async def CreateReissue(self, request: pb.CreateReissueRequest, context: Context) -> pb.CreatedRequest:
        """Ask that a device be written anew as a whole."""
        service = self._service
        return await self._create(
            request.device, context, lambda unit, who, device, key: service.create_reissue(unit, who, device, key=key)
        )

    async def CreateRecycle(self, request: pb.CreateRecycleRequest, context: Context) -> pb.CreatedRequest:
        """Ask that a card be erased."""

        async def create(unit: Unit, principal: Principal, device: UUID, key: str) -> Opened:
            return await self._service.create_recycle(unit, principal, device, found=request.found, key=key)

        return await self._create(request.device, context, create)

    async def CreateTermination(self, request: pb.CreateTerminationRequest, context: Context) -> pb.CreatedRequest:
        """Ask that a device be terminated."""

        async def create(unit: Unit, principal: Principal, device: UUID, key: str) -> Opened:
            reason = REASONS.one(request.reason, "reason")
            return await self._service.create_termination(unit, principal, device, reason, key=key)

        return await self._create(request.device, context, create)

    async def CreateRecovery(self, request: pb.CreateRecoveryRequest, context: Context) -> pb.CreatedRequest:
        """Ask that escrowed keys be put onto a device."""
        service = self._service
        return await self._create(
            request.device, context, lambda unit, who, device, key: service.create_recovery(unit, who, device, key=key)
        )

    async def Approve(self, request: pb.ApproveRequestRequest, context: Context) -> pb.DeviceRequest:
        """Agree."""
        return await self._decide(request.id, context, self._service.approve)

    async def Deny(self, request: pb.DenyRequestRequest, context: Context) -> pb.DeviceRequest:
        """Refuse."""
        return await self._decide(request.id, context, self._service.deny)

    async def Cancel(self, request: pb.CancelRequestRequest, context: Context) -> pb.DeviceRequest:
        """Take a request back."""
        return await self._decide(request.id, context, self._service.cancel)

    async def Get(self, request: pb.GetRequestRequest, context: Context) -> pb.GetRequestResponse:
        """One request, with its history."""

        async def work(unit: Unit, principal: Principal) -> pb.GetRequestResponse:
            identifier = read.identifier(request.id, "id")
            found = await self._service.get(unit, principal, identifier)
            history = await self._service.history(unit, principal, identifier)
            (one,) = await self._shown(unit, principal, [found])
            return pb.GetRequestResponse(request=one, history=map(_step, history))

        return await self._calls.read(context, work)

    async def Find(self, request: pb.FindRequestsRequest, context: Context) -> pb.FindRequestsResponse:
        """A page of requests."""

        async def work(unit: Unit, principal: Principal) -> pb.FindRequestsResponse:
            page = read.page(request.page_size, request.page_token)
            found = await self._service.find(
                unit,
                principal,
                states=STATES.several(request.states, "states"),
                kinds=KINDS.several(request.kinds, "kinds"),
                device=read.optional_identifier(request.device, "device"),
                person=read.optional_identifier(request.person, "person"),
                after=pages.after(page),
                limit=page.asked,
            )
            shown, last = page.cut(found)
            rows = await self._shown(unit, principal, shown)
            return pb.FindRequestsResponse(requests=rows, next_page_token=pages.token(last))

        return await self._calls.read(context, work)

    async def _create(self, device: str, context: Context, create: Create) -> pb.CreatedRequest:
        async def work(unit: Unit, principal: Principal) -> pb.CreatedRequest:
            opened = await create(unit, principal, read.identifier(device, "device"), _key(context))
            (one,) = await self._shown(unit, principal, [opened.request])
            return pb.CreatedRequest(request=one, created=opened.created)

        return await self._calls.write(context, work)

    async def _decide(self, identifier: str, context: Context, decide: Decide) -> pb.DeviceRequest:
        async def work(unit: Unit, principal: Principal) -> pb.DeviceRequest:
            decided = await decide(unit, principal, read.identifier(identifier, "id"))
            (one,) = await self._shown(unit, principal, [decided])
            return one

        return await self._calls.write(context, work)

    async def _shown(self, unit: Unit, principal: Principal, requests: Sequence[Request]) -> list[pb.DeviceRequest]:
        names = await self._service.names(unit, principal.org, requests)
        return [_request(one, names) for one in requests]


def _key(context: Context) -> str:
    """The idempotency key of a call; "" for none. Raises RequestMalformed."""
    given = [value for name, value in context.invocation_metadata() or () if name == IDEMPOTENCY_KEY]
    if not given:
        return ""
    if len(given) > 1:
        raise read.RequestMalformed(f"{IDEMPOTENCY_KEY} is given twice.")
    return read.line(given[0], IDEMPOTENCY_KEY, LONGEST_KEY, least=1)


def _request(found: Request, names: Names) -> pb.DeviceRequest:
    return pb.DeviceRequest(
        id=str(found.id),
        kind=KINDS.number(found.kind),
        state=STATES.number(found.state),
        device=str(found.device),
        card=showing.identifier(found.card),
        person=showing.identifier(found.person),
        reason=REASONS.number(found.reason),
        temporary=found.temporary,
        strict=found.strict,
        made_by=str(found.made_by),
        maker=_MAKERS.get(found.made_by_kind, pb.REQUEST_MAKER_UNSPECIFIED),
        approved_by=showing.identifier(found.approved_by),
        issued_by=showing.identifier(found.issued_by),
        session=showing.identifier(found.session),
        attempts=found.attempts,
        created_at=read.stamp(found.created_at),
        expires_at=showing.moment(found.expires_at),
        closed_at=showing.moment(found.closed_at),
        device_serial=names.serials.get(found.device, ""),
        person_login="" if found.person is None else names.logins.get(found.person, ""),
    )


def _step(row: Row[Any]) -> pb.RequestStep:
    return pb.RequestStep(
        number=row.number,
        at=read.stamp(row.created_at),
        event=row.event,
        before=STATES.number(None if row.source is None else RequestState(row.source)),
        after=STATES.number(RequestState(row.target)),
        actor=row.actor,
        who=showing.identifier(row.who),
    )
