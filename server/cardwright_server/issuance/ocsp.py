"""Certificate status by OCSP (RFC 6960): short-lived delegated responders, one for each authority.

With a nonce the answer is signed while the asker waits. Without one it is signed ahead of those who ask next, kept as
long as the status stays, and replaced at half its life.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any, Final
from uuid import UUID

from asn1crypto import algos, core
from asn1crypto import ocsp as asn1_ocsp
from asn1crypto import x509 as asn1_x509

from cardwright_cardops import asn1

from ..store.unit import Database, Unit
from ..vault.der import key_id, signature_algorithm
from ..vault.errors import VaultError
from ..vault.protocol import Vault
from . import store
from .backend import signing_algorithm
from .crl import reason_number
from .errors import OcspMalformed
from .model import Authority, Certificate, CertificateState, HolderKind
from .tbs import hexadecimal

MAX_REQUEST: Final = 8 * 1024
MAX_ASKED: Final = 20
LIFETIME: Final = timedelta(hours=8)
_FRESH: Final = timedelta(seconds=10)
"""How long what is known of authorities and responders is taken for true without asking the database."""
_KEPT: Final = 20_000
_NONCE: Final = "1.3.6.1.5.5.7.48.1.2"
_MAX_NONCE: Final = 128
_HASHES: Final = ("sha1", "sha256")


class Status(IntEnum):
    """OCSPResponseStatus."""

    SUCCESSFUL = 0
    MALFORMED_REQUEST = 1
    INTERNAL_ERROR = 2
    TRY_LATER = 3
    UNAUTHORIZED = 6


@dataclass(frozen=True, slots=True)
class Answer:
    """An OCSPResponse (DER). ``this_update`` and ``next_update`` are there if caches may keep it."""

    status: Status
    body: bytes = field(repr=False)
    this_update: datetime | None = None
    next_update: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request: CertIDs as they came, and the nonce."""

    ids: tuple[asn1_ocsp.CertId, ...]
    nonce: bytes | None


@dataclass(frozen=True, slots=True)
class _Known:
    """An authority that is answered for: hashes of its name and key, and its responder's certificate."""

    authority: Authority
    hashes: dict[str, tuple[bytes, bytes]]
    responder: Certificate | None
    ready: bool


def failure(status: Status) -> Answer:
    """An unsigned answer that says only that there is none."""
    return Answer(status, bytes((0x30, 0x03, 0x0A, 0x01, status)))


class OcspResponder:
    """Answers for every authority that has a responder."""

    def __init__(self, database: Database, vault: Vault, lifetime: timedelta = LIFETIME) -> None:
        self._database = database
        self._vault = vault
        self._lifetime = lifetime
        self._known: list[_Known] = []
        self._known_at: datetime | None = None
        self._kept: OrderedDict[tuple[UUID, bytes], tuple[tuple[Any, ...], Answer]] = OrderedDict()
        self._refreshing = asyncio.Lock()
        self.signed = 0
        """How many answers were signed: the others came from those kept."""

    async def answer(self, request: bytes) -> Answer:
        """The answer to a DER request; a failure of ours is one of OCSP's failures. Raises StoreError."""
        try:
            asked = read(request)
        except OcspMalformed:
            return failure(Status.MALFORMED_REQUEST)
        try:
            return await self._answer(asked)
        except VaultError:
            return failure(Status.TRY_LATER)

    async def _answer(self, asked: _Asked) -> Answer:
        known = await self._authority(asked)
        if known is None:
            return failure(Status.UNAUTHORIZED)
        if known.responder is None or not known.ready:
            return failure(Status.TRY_LATER)
        serials = [hexadecimal(one["serial_number"].native) for one in asked.ids if one["serial_number"].native > 0]

        async def look(unit: Unit) -> tuple[dict[str, Certificate], datetime]:
            return await store.certificates_by_serial(unit, known.authority.id, serials), unit.now

        found, now = await self._database.read(look)
        state = tuple(
            (one.state, one.reason, one.status_at) if one is not None else None
            for one in (found.get(hexadecimal(each["serial_number"].native)) for each in asked.ids)
        )
        key = (known.authority.id, b"".join(one.dump() for one in asked.ids))
        version = (known.responder.id, *state)
        if asked.nonce is None and (kept := self._kept.get(key)) is not None:
            before, answer = kept
            assert answer.this_update is not None and answer.next_update is not None
            half = answer.this_update + (answer.next_update - answer.this_update) / 2
            if before == version and now < half:
                self._kept.move_to_end(key)
                return answer
        answer = await self._signed(known.authority, known.responder, asked, found, now)
        if asked.nonce is None:
            self._kept[key] = (version, answer)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return answer

    async def _signed(
        self,
        authority: Authority,
        responder: Certificate,
        asked: _Asked,
        found: dict[str, Certificate],
        now: datetime,
    ) -> Answer:
        begin = now.replace(microsecond=0)
        end = min(begin + self._lifetime, responder.not_after)
        public_key = _spki(responder)
        data: dict[str, Any] = {
            "responder_id": asn1_ocsp.ResponderId(name="by_key", value=core.OctetString(key_id(public_key))),
            "produced_at": begin,
            "responses": [
                {
                    "cert_id": one,
                    "cert_status": _status(found.get(hexadecimal(one["serial_number"].native))),
                    "this_update": begin,
                    "next_update": end,
                }
                for one in asked.ids
            ],
        }
        if asked.nonce is not None:
            data["response_extensions"] = [{"extn_id": "nonce", "extn_value": core.OctetString(asked.nonce)}]
        tbs = bytes(asn1_ocsp.ResponseData(data).dump())
        [signature] = await self._vault.sign_ocsp(authority.responder, [tbs])
        self.signed += 1
        algorithm = algos.SignedDigestAlgorithm.load(signature_algorithm(signing_algorithm(public_key)))
        basic = asn1_ocsp.BasicOCSPResponse(
            {
                "tbs_response_data": asn1_ocsp.ResponseData.load(tbs),
                "signature_algorithm": algorithm,
                "signature": core.OctetBitString(signature),
                "certs": [asn1_x509.Certificate.load(responder.certificate)],
            }
        )
        whole = asn1_ocsp.OCSPResponse(
            {
                "response_status": "successful",
                "response_bytes": {"response_type": "basic_ocsp_response", "response": basic},
            }
        )
        body = bytes(whole.dump())
        if asked.nonce is not None:
            return Answer(Status.SUCCESSFUL, body)
        return Answer(Status.SUCCESSFUL, body, begin, end)

    async def _authority(self, asked: _Asked) -> _Known | None:
        await self._refresh()
        for known in self._known:
            if all(_is_about(one, known) for one in asked.ids):
                return known
        return None

    async def _refresh(self) -> None:
        async with self._refreshing:
            now = datetime.now().astimezone()
            if self._known_at is not None and now - self._known_at < _FRESH:
                return
            self._known = await self._database.read(_read_known)
            self._known_at = now


async def _read_known(unit: Unit) -> list[_Known]:
    found = []
    for authority in await store.authorities(unit):
        if authority.foreign or not authority.responder or not authority.certificate:
            continue
        responders = await store.certificates_of_holder(
            unit, authority.org, HolderKind.OCSP_RESPONDER, authority.id, authority.responder
        )
        now = unit.now
        living = [one for one in responders if one.not_before <= now < one.not_after]
        good = [one for one in living if one.state is CertificateState.GOOD]
        ready = authority.crl_floor == 0
        if not ready:
            last = await store.published(unit, authority.id)
            ready = last is not None and last.number > authority.crl_floor
        found.append(_Known(authority, _hashes(authority), good[0] if good else None, ready))
    return found


def read(request: bytes) -> _Asked:
    """A request. Raises OcspMalformed."""
    if len(request) > MAX_REQUEST:
        raise OcspMalformed(f"a request of {len(request)} octets is too large")
    try:
        parsed = asn1.load(asn1_ocsp.OCSPRequest, request)["tbs_request"]
        ids = tuple(one["req_cert"] for one in parsed["request_list"])
        for one in ids:
            # Everything is read now, so that what cannot be read is malformed and not an error later.
            _ = (one["serial_number"].native, one["issuer_name_hash"].native, one["issuer_key_hash"].native)
        if not 1 <= len(ids) <= MAX_ASKED or parsed["version"].native != "v1":
            raise OcspMalformed("the number of certificates asked about, or the version, is not taken")
        if any(not 0 <= one["serial_number"].native < 1 << 160 for one in ids):
            raise OcspMalformed("a serial number has 20 octets at most and is not negative")
        nonce = None
        for extension in parsed["request_extensions"] if parsed["request_extensions"].native is not None else ():
            if extension["extn_id"].dotted == _NONCE:
                nonce = bytes(extension["extn_value"].parsed.native)
            elif extension["critical"].native:
                raise OcspMalformed("a critical extension that is not known")
    except (asn1.MalformedAsn1, ValueError, TypeError, KeyError) as cause:
        raise OcspMalformed("this is no OCSP request") from cause
    if nonce is not None and not 1 <= len(nonce) <= _MAX_NONCE:
        raise OcspMalformed("a nonce has 1 to 128 octets")
    return _Asked(ids, nonce)


def _status(certificate: Certificate | None) -> asn1_ocsp.CertStatus:
    if certificate is None:
        # Never good: a serial number that was not given out belongs to a forgery.
        return asn1_ocsp.CertStatus(name="unknown", value=core.Null())
    if certificate.state is CertificateState.GOOD:
        return asn1_ocsp.CertStatus(name="good", value=core.Null())
    number = reason_number(certificate.state, certificate.reason)
    info: dict[str, Any] = {"revocation_time": certificate.status_at.replace(microsecond=0)}
    if number:
        info["revocation_reason"] = number
    return asn1_ocsp.CertStatus(name="revoked", value=asn1_ocsp.RevokedInfo(info))


def _hashes(authority: Authority) -> dict[str, tuple[bytes, bytes]]:
    bits = asn1_x509.PublicKeyInfo.load(authority.public_key)["public_key"].contents[1:]
    return {
        name: (hashlib.new(name, authority.subject).digest(), hashlib.new(name, bits).digest()) for name in _HASHES
    }


def _is_about(asked: asn1_ocsp.CertId, known: _Known) -> bool:
    hashes = known.hashes.get(asked["hash_algorithm"]["algorithm"].native)
    return hashes == (asked["issuer_name_hash"].native, asked["issuer_key_hash"].native)


def _spki(certificate: Certificate) -> bytes:
    parsed = asn1_x509.Certificate.load(certificate.certificate)
    return bytes(parsed["tbs_certificate"]["subject_public_key_info"].dump())
