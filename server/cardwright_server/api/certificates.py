"""``CertificateService`` of the contract."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

from cardwright_proto.cms.v1 import certificates_pb2 as pb
from cardwright_proto.cms.v1 import certificates_pb2_grpc

from ..authentication.principal import Principal
from ..issuance.model import Authority, Certificate, CertificateState, HolderKind, Purpose, RevocationReason
from ..issuance.status import CertificateService
from ..store.unit import Unit
from . import pages, showing
from . import reading as read
from .calling import Calls, Context
from .choices import Choices

STATES = Choices(CertificateState, pb.CertificateState, "CERTIFICATE_STATE")
HOLDERS = Choices(HolderKind, pb.CertificateHolder, "CERTIFICATE_HOLDER")
REASONS = Choices(
    RevocationReason,
    pb.RevocationReason,
    "REVOCATION_REASON",
    renamed={RevocationReason.UNSPECIFIED: "UNTOLD"},
)
PURPOSES = Choices(Purpose, pb.AuthorityPurpose, "AUTHORITY_PURPOSE")
Rotate = Callable[[Principal], Awaitable[Certificate]]
"""``OwnCertificates.rotate_signer`` with its database and ``Authorize``: it opens its own units."""
_SERIAL: Final = re.compile(r"(?:[0-9a-f]{1,40})?")


class CertificateServicer(certificates_pb2_grpc.CertificateServiceServicer):
    """Decodes, calls the service, encodes."""

    def __init__(self, calls: Calls, service: CertificateService, rotate: Rotate) -> None:
        self._calls = calls
        self._service = service
        self._rotate = rotate

    async def Get(self, request: pb.GetCertificateRequest, context: Context) -> pb.Certificate:
        """One certificate, with its DER."""

        async def work(unit: Unit, principal: Principal) -> Certificate:
            return await self._service.get(unit, principal, read.identifier(request.id, "id"))

        return _certificate(await self._calls.read(context, work))

    async def Find(self, request: pb.FindCertificatesRequest, context: Context) -> pb.FindCertificatesResponse:
        """A page of certificates."""

        async def work(unit: Unit, principal: Principal) -> pb.FindCertificatesResponse:
            page = read.page(request.page_size, request.page_token)
            found = await self._service.find(
                unit,
                principal,
                person=read.optional_identifier(request.person, "person"),
                serial=_serial(request.serial),
                device=read.optional_identifier(request.device, "device"),
                after=pages.after(page),
                limit=page.asked,
            )
            shown, last = page.cut(found)
            listed = [_certificate(one, der=False) for one in shown]
            return pb.FindCertificatesResponse(certificates=listed, next_page_token=pages.token(last))

        return await self._calls.read(context, work)

    async def Revoke(self, request: pb.RevokeCertificateRequest, context: Context) -> pb.Certificate:
        """End a certificate for good."""

        async def work(unit: Unit, principal: Principal) -> Certificate:
            reason = REASONS.one(request.reason, "reason")
            return await self._service.revoke(unit, principal, read.identifier(request.id, "id"), reason)

        return _certificate(await self._calls.write(context, work))

    async def Authorities(self, request: pb.FindAuthoritiesRequest, context: Context) -> pb.FindAuthoritiesResponse:
        """Every authority."""
        found = await self._calls.read(context, self._service.authorities)
        return pb.FindAuthoritiesResponse(authorities=map(_authority, found))

    async def RotateSigner(self, request: pb.RotateSignerRequest, context: Context) -> pb.RotateSignerResponse:
        """Certify content-signing keys that were made since."""
        return pb.RotateSignerResponse(certificate=_certificate(await self._calls.act(context, self._rotate)))


def _serial(text: str) -> str:
    """A serial number as the books have it, or "". Raises RequestMalformed."""
    if _SERIAL.fullmatch(text.lower()) is None:
        raise read.RequestMalformed("serial is not hexadecimal, or longer than 20 octets.")
    return text.lower()


def _certificate(found: Certificate, *, der: bool = True) -> pb.Certificate:
    return pb.Certificate(
        id=str(found.id),
        authority=str(found.authority),
        serial=found.serial,
        profile=found.profile,
        profile_version=found.profile_version,
        holder_kind=HOLDERS.number(found.holder.kind),
        holder=str(found.holder.id),
        part=found.holder.part,
        person=showing.identifier(found.holder.person),
        key=found.key,
        origin=found.origin,
        state=STATES.number(found.state),
        holds=sorted(found.holds),
        status_at=read.stamp(found.status_at),
        reason=REASONS.number(found.reason),
        not_before=read.stamp(found.not_before),
        not_after=read.stamp(found.not_after),
        der=found.certificate if der else b"",
    )


def _authority(found: Authority) -> pb.Authority:
    return pb.Authority(
        id=str(found.id),
        name=found.name,
        purpose=PURPOSES.number(found.purpose),
        foreign=found.foreign,
        active=found.active,
        certificate=found.certificate,
    )
