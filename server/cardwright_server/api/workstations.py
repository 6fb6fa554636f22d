"""``WorkstationService`` of the contract."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from cardwright_proto.cms.v1 import workstations_pb2 as pb
from cardwright_proto.cms.v1 import workstations_pb2_grpc

from ..authentication.principal import Principal
from ..store.unit import Unit
from ..workstations.issuer import LONGEST_REQUEST
from ..workstations.model import EnrolmentToken, StationCertificate, StationClass, StationState, Workstation
from ..workstations.service import WorkstationService
from . import pages, showing
from . import reading as read
from .calling import Calls, Context
from .choices import Choices

LONGEST_HOST: Final = 260
LONGEST_TOKEN: Final = 300
LONGEST_REASON: Final = 40
CLASSES = Choices(StationClass, pb.StationClass, "STATION_CLASS")
STATES = Choices(StationState, pb.StationState, "STATION_STATE")


class WorkstationServicer(workstations_pb2_grpc.WorkstationServiceServicer):
    """Decodes, calls the service, encodes."""

    def __init__(self, calls: Calls, service: WorkstationService) -> None:
        self._calls = calls
        self._service = service

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Context) -> pb.CreateTokenResponse:
        """A token for one host."""

        async def act(principal: Principal) -> tuple[EnrolmentToken, datetime]:
            host = read.line(request.host, "host", LONGEST_HOST, least=1)
            station_class = CLASSES.one(request.station_class, "station_class")
            return await self._service.create_token(principal, host, station_class)

        token, ends = await self._calls.act(context, act)
        return pb.CreateTokenResponse(token=token.text(), expires_at=read.stamp(ends))

    async def Enrol(self, request: pb.EnrolRequest, context: Context) -> pb.StationCertificate:
        """A token and a request for a certificate."""

        async def act(principal: Principal) -> StationCertificate:
            token = EnrolmentToken.parse(read.line(request.token, "token", LONGEST_TOKEN, least=1))
            host = read.line(request.host, "host", LONGEST_HOST, least=1)
            csr = read.octets(request.request, "request", 1, LONGEST_REQUEST)
            return await self._service.enrol(principal, token, host, csr)

        return _certificate(await self._calls.act(context, act))

    async def Renew(self, request: pb.RenewRequest, context: Context) -> pb.StationCertificate:
        """A certificate for a new key of the caller."""

        async def act(principal: Principal) -> StationCertificate:
            return await self._service.renew(principal, read.octets(request.request, "request", 1, LONGEST_REQUEST))

        return _certificate(await self._calls.act(context, act))

    async def Revoke(self, request: pb.RevokeWorkstationRequest, context: Context) -> pb.Workstation:
        """Void a workstation's certificates."""

        async def work(unit: Unit, principal: Principal) -> Workstation:
            identifier = read.identifier(request.id, "id")
            reason = read.line(request.reason, "reason", LONGEST_REASON, least=1)
            return await self._service.revoke(unit, principal, identifier, reason)

        return _workstation(await self._calls.write(context, work))

    async def Find(self, request: pb.FindWorkstationsRequest, context: Context) -> pb.FindWorkstationsResponse:
        """A page of workstations."""

        async def work(unit: Unit, principal: Principal) -> pb.FindWorkstationsResponse:
            page = read.page(request.page_size, request.page_token, keys=2)
            after = pages.after_text(page)
            shown, last = page.cut(await self._service.find(unit, principal, after=after, limit=page.asked))
            token = "" if last is None else read.page_token(last.host, str(last.id))
            return pb.FindWorkstationsResponse(workstations=map(_workstation, shown), next_page_token=token)

        return await self._calls.read(context, work)


def _workstation(found: Workstation) -> pb.Workstation:
    return pb.Workstation(
        id=str(found.id),
        host=found.host,
        station_class=CLASSES.number(found.station_class),
        state=STATES.number(found.state),
        revoked_at=showing.moment(found.revoked_at),
    )


def _certificate(made: StationCertificate) -> pb.StationCertificate:
    return pb.StationCertificate(
        certificate=made.certificate,
        not_before=read.stamp(made.not_before),
        not_after=read.stamp(made.not_after),
        renew_at=read.stamp(made.renew_at),
    )
