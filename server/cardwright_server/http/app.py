"""One Starlette application: revocation lists, OCSP, certificates of authorities. Plain HTTP, nothing secret.

Everything is signed by itself, answers are bounded in size and in what they cost, and say how long caches may keep them
(RFC 5019 section 6).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Final

from asn1crypto import cms
from asn1crypto import x509 as asn1_x509
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..issuance import crl, ocsp, store
from ..issuance.model import Authority
from ..store.errors import StoreError
from ..store.unit import Database, Unit

MAX_GET: Final = 1024
MOST_AGE: Final = 60
"""Seconds that a cache keeps a list: a change is out within a minute, and seen after another."""
MOST_OCSP_AGE: Final = 300
_CRL, _CER, _P7C = "application/pkix-crl", "application/pkix-cert", "application/pkcs7-mime"
_OCSP_REQUEST, _OCSP_RESPONSE = "application/ocsp-request", "application/ocsp-response"
Handler = Callable[[Request], Awaitable[Response]]


def make_app(database: Database, responder: ocsp.OcspResponder) -> Starlette:
    """The application; any number of processes may run it."""

    async def revocation_list(request: Request) -> Response:
        async def read(unit: Unit) -> tuple[crl.PublishedList | None, datetime]:
            authority = await store.authority_by_name(unit, request.path_params["name"])
            found = await crl.current(unit, authority.id) if authority is not None and not authority.foreign else None
            return found, unit.now

        found, now = await database.read(read)
        if found is None:
            return _missing()
        return _cached(request, found.crl, _CRL, f"crl-{found.number}", found.this_update, found.next_update, now)

    async def certificate(request: Request) -> Response:
        authority = await _authority(request)
        if authority is None:
            return _missing()
        made = authority.x509
        tag = f"ca-{made.serial_number:x}"
        now = datetime.now(UTC)
        return _cached(
            request, authority.certificate, _CER, tag, made.not_valid_before_utc, made.not_valid_after_utc, now
        )

    async def bundle(request: Request) -> Response:
        authority = await _authority(request)
        if authority is None:
            return _missing()
        body = certificates_only(await database.read(lambda unit: _issued_authorities(unit, authority)))
        return Response(body, media_type=_P7C, headers={"Cache-Control": f"public, max-age={MOST_AGE}"})

    async def _authority(request: Request) -> Authority | None:
        name = request.path_params["name"]
        found = await database.read(lambda unit: store.authority_by_name(unit, name), timed=False)
        return found if found is not None and found.certificate else None

    async def ask_by_post(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _OCSP_REQUEST:
            return Response(status_code=415)
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > ocsp.MAX_REQUEST:
                return Response(status_code=413)
        answer = await responder.answer(bytes(body))
        return Response(answer.body, media_type=_OCSP_RESPONSE, headers={"Cache-Control": "no-store"})

    async def ask_by_get(request: Request) -> Response:
        text = request.path_params["asked"]
        if len(text) > MAX_GET:
            return Response(status_code=414)
        try:
            asked = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            asked = b""
        answer = await responder.answer(asked)
        if answer.this_update is None or answer.next_update is None:
            return Response(answer.body, media_type=_OCSP_RESPONSE, headers={"Cache-Control": "no-store"})
        tag = hashlib.sha256(answer.body).hexdigest()[:32]
        return _cached(
            request,
            answer.body,
            _OCSP_RESPONSE,
            tag,
            answer.this_update,
            answer.next_update,
            datetime.now(UTC),
            MOST_OCSP_AGE,
        )

    name = "{name:str}"
    return Starlette(
        routes=[
            Route(f"/crl/{name}.crl", _guarded(revocation_list), methods=["GET"]),
            Route(f"/ca/{name}.cer", _guarded(certificate), methods=["GET"]),
            Route(f"/ca/{name}.p7c", _guarded(bundle), methods=["GET"]),
            Route("/ocsp", _guarded(ask_by_post), methods=["POST"]),
            Route("/ocsp/", _guarded(ask_by_post), methods=["POST"]),
            Route("/ocsp/{asked:path}", _guarded(ask_by_get), methods=["GET"]),
        ]
    )


def certificates_only(certificates: list[bytes]) -> bytes:
    """A SignedData without signers (RFC 5272 section 4.1, "certs-only"), DER."""
    data = cms.SignedData(
        {
            "version": "v1",
            "digest_algorithms": [],
            "encap_content_info": {"content_type": "data"},
            "certificates": [
                cms.CertificateChoices({"certificate": asn1_x509.Certificate.load(one)}) for one in certificates
            ],
            "signer_infos": [],
        }
    )
    return bytes(cms.ContentInfo({"content_type": "signed_data", "content": data}).dump())


async def _issued_authorities(unit: Unit, authority: Authority) -> list[bytes]:
    """Certificates by an authority for others; its own if there are none, since the form wants one."""
    found = [one for one in await store.authorities(unit) if one.certificate and not one.foreign]
    made = [one.certificate for one in found if one.x509.issuer.public_bytes() == authority.subject]
    return made or [authority.certificate]


def _guarded(handler: Handler) -> Handler:
    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except StoreError:
            return Response(status_code=503, headers={"Retry-After": "10"})

    return guarded


def _cached(
    request: Request,
    body: bytes,
    media_type: str,
    tag: str,
    begin: datetime,
    end: datetime,
    now: datetime,
    most: int = MOST_AGE,
) -> Response:
    """An answer for caches; none keeps it beyond its end."""
    age = max(0, min(most, int((end - now).total_seconds())))
    headers = {
        "Cache-Control": f"public, no-transform, must-revalidate, max-age={age}",
        "ETag": f'"{tag}"',
        "Last-Modified": format_datetime(begin.astimezone(UTC).replace(microsecond=0), usegmt=True),
        "Expires": format_datetime((now + timedelta(seconds=age)).astimezone(UTC).replace(microsecond=0), usegmt=True),
    }
    if f'"{tag}"' in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)


def _missing() -> Response:
    return Response(status_code=404, headers={"Cache-Control": "no-store"})
