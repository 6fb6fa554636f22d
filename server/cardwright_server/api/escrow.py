"""``EscrowService`` of the contract."""

from __future__ import annotations

from typing import Final

from cardwright_proto.cms.v1 import escrow_pb2 as pb
from cardwright_proto.cms.v1 import escrow_pb2_grpc

from ..authentication.principal import Principal
from ..escrow.model import Archived, KeyState
from ..escrow.service import Approved, EscrowService, Offered
from ..store.unit import Unit
from . import pages, showing
from . import reading as read
from .calling import Calls, Context
from .choices import Choices

STATES = Choices(KeyState, pb.EscrowedKeyState, "ESCROWED_KEY_STATE")
LONGEST_PASSWORD: Final = 100


class EscrowServicer(escrow_pb2_grpc.EscrowServiceServicer):
    """Decodes, calls the service, encodes."""

    def __init__(self, calls: Calls, service: EscrowService) -> None:
        self._calls = calls
        self._service = service

    async def Find(self, request: pb.FindEscrowedKeysRequest, context: Context) -> pb.FindEscrowedKeysResponse:
        """A page of keys."""

        async def work(unit: Unit, principal: Principal) -> pb.FindEscrowedKeysResponse:
            page = read.page(request.page_size, request.page_token)
            found = await self._service.find(
                unit,
                principal,
                person=read.optional_identifier(request.person, "person"),
                after=pages.after(page),
                limit=page.asked,
            )
            shown, last = page.cut(found)
            return pb.FindEscrowedKeysResponse(keys=map(_key, shown), next_page_token=pages.token(last))

        return await self._calls.read(context, work)

    async def Recover(self, request: pb.RecoverRequest, context: Context) -> pb.RecoverResponse:
        """Approve that keys go to a device."""

        async def work(unit: Unit, principal: Principal) -> Approved:
            asked = read.identifier(request.request, "request")
            return await self._service.recover(unit, principal, asked, read.identifiers(request.keys, "keys"))

        done = await self._calls.write(context, work)
        keys = map(str, done.keys)
        return pb.RecoverResponse(device=str(done.device), keys=keys, expires_at=read.stamp(done.expires_at))

    async def OfferPfx(self, request: pb.OfferPfxRequest, context: Context) -> pb.OfferPfxResponse:
        """Offer a file, and say its password."""

        async def work(principal: Principal) -> Offered:
            return await self._service.offer_pfx(principal, read.identifier(request.key, "key"))

        made = await self._calls.act(context, work)
        password = made.password.reveal().decode("ascii")
        return pb.OfferPfxResponse(offer=str(made.offer), password=password, expires_at=read.stamp(made.expires_at))

    async def ClaimPfx(self, request: pb.ClaimPfxRequest, context: Context) -> pb.ClaimPfxResponse:
        """The file of an offer."""

        async def work(principal: Principal) -> bytes:
            password = read.secret(request.password, "password", LONGEST_PASSWORD)
            return await self._service.claim_pfx(principal, read.identifier(request.offer, "offer"), password)

        return pb.ClaimPfxResponse(file=await self._calls.act(context, work))


def _key(found: Archived) -> pb.EscrowedKey:
    return pb.EscrowedKey(
        id=str(found.id),
        person=showing.identifier(found.person),
        device=str(found.device),
        slot=found.slot.label,
        algorithm=found.algorithm.label,
        fingerprint=found.fingerprint,
        state=STATES.number(found.state),
        current=found.current,
        certificate=found.certificate,
        created_at=read.stamp(found.created_at),
        certified_at=showing.moment(found.certified_at),
        superseded_at=showing.moment(found.superseded_at),
    )
