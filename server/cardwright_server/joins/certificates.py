"""What other domains ask of issuance: certificates of channels for workstations, operators and services, and what
policies have to know of its profiles.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from uuid import UUID, uuid5

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..audit.model import SERVER
from ..issuance import store
from ..issuance.errors import CertificateRefused, NoSuchAuthority
from ..issuance.model import Answer, Certificate, Holder, HolderKind, Issued, Purpose, Refused
from ..issuance.names import HolderNames
from ..issuance.origin import Expected
from ..issuance.profiles import Profiles
from ..issuance.requests import MAX_CSR, CertificateRequest, check_proof
from ..issuance.service import IssuanceService
from ..people.model import AccountKind, Operator
from ..policies.reach import CertificateKind, CertificateKinds
from ..store.unit import Database, Unit
from ..workstations.issuer import IssuedStation, StationRequest

_LONGEST_COMMON_NAME = 64


def kinds_of(profiles: Profiles) -> CertificateKinds:
    """What policies have to know of certificate profiles. Raises CertificateRefused for a name that is not there."""

    def kind(name: str, strict: bool) -> CertificateKind:
        found = profiles.pick(name, strict=strict)
        for_cards = found.purpose is Purpose.CARDS and HolderKind.DEVICE_SLOT in found.holders
        return CertificateKind(
            found.name, found.validity, frozenset(found.algorithms), for_cards, says_hardware=bool(found.hardware)
        )

    return kind


class StationCertificates:
    """``workstations.issuer.CertificateIssuer`` by the issuing authority for workstations."""

    def __init__(self, database: Database, service: IssuanceService, org: UUID) -> None:
        """``org`` is the one whose root workstations pin."""
        self._database = database
        self._service = service
        self._org = org

    async def issue(self, request: StationRequest) -> IssuedStation:
        """See ``CertificateIssuer``. Raises CertificateRefused, NoSuchAuthority, VaultError, StoreError."""
        short = len(request.host) <= _LONGEST_COMMON_NAME
        names = HolderNames(
            common_name=request.host if short else str(request.workstation),
            dns=(request.host,),
            uris=(f"urn:uuid:{request.workstation}",),
        )
        made = _issued(
            await self._service.certify(
                self._database,
                SERVER,
                CertificateRequest(
                    id=request.id,
                    org=request.org,
                    profile="workstation",
                    holder=Holder(HolderKind.WORKSTATION, request.workstation),
                    names=names,
                    expected=Expected(request.public_key),
                    proof=request.proof,
                ),
            )
        )
        return IssuedStation(made.certificate, made.not_before, made.not_after)

    async def root(self) -> bytes:
        """See ``CertificateIssuer``."""
        return sha256(await self._database.read(lambda unit: root_certificate(unit, self._org))).digest()


class OperatorCertificates:
    """Client certificates for registered keys of operators and services. They say who, never what they may do."""

    def __init__(self, database: Database, service: IssuanceService) -> None:
        self._database = database
        self._service = service

    def asked(self, org: UUID, account: Operator, csr: bytes) -> CertificateRequest:
        """The request for an account by a PKCS #10 request (DER), proved to be by its key. Raises CertificateRefused.

        Asked again on the same day it is the same request.
        """
        kind = HolderKind.OPERATOR if account.kind is AccountKind.PERSON else HolderKind.SERVICE
        key = requested_key(csr)
        day = datetime.now(UTC).date().isoformat()
        request = CertificateRequest(
            id=uuid5(account.id, f"{sha256(key).hexdigest()} {day}"),
            org=org,
            profile="operator",
            holder=Holder(kind, account.id, person=account.person),
            names=HolderNames(common_name=account.label[:_LONGEST_COMMON_NAME], uris=(f"urn:uuid:{account.id}",)),
            expected=Expected(key),
            proof=csr,
        )
        check_proof(request)
        return request

    async def issue(self, org: UUID, account: Operator, csr: bytes) -> Certificate:
        """A certificate for a key that is registered with the account already.

        Raises CertificateRefused, NoSuchAuthority, VaultError, StoreError; asking again does no harm.
        """
        return _issued(await self._service.certify(self._database, SERVER, self.asked(org, account, csr)))

    async def chain(self, org: UUID) -> list[bytes]:
        """Certificates (DER) from the issuing authority up to the root, which is the last."""

        async def read(unit: Unit) -> list[bytes]:
            between = await store.authority_for(unit, org, Purpose.WORKSTATIONS)
            return [*([between.certificate] if between is not None else []), await root_certificate(unit, org)]

        return await self._database.read(read)


def requested_key(csr: bytes) -> bytes:
    """SubjectPublicKeyInfo (DER) of a PKCS #10 request, whose signature is judged later. Raises CertificateRefused."""
    try:
        if len(csr) > MAX_CSR:
            raise ValueError("too large")
        key = x509.load_der_x509_csr(csr).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as cause:
        raise CertificateRefused("proof", "The certification request cannot be read.") from cause
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


async def root_certificate(unit: Unit, org: UUID) -> bytes:
    """The root's certificate (DER). Raises NoSuchAuthority."""
    root = await store.authority_for(unit, org, Purpose.ROOT)
    if root is None or not root.certificate:
        raise NoSuchAuthority("there is no root")
    return root.certificate


def _issued(answer: Answer) -> Certificate:
    match answer:
        case Issued():
            return answer.certificate
        case Refused():
            raise CertificateRefused(answer.reason, answer.message)
        case _:
            raise CertificateRefused("later", "The authority has not answered yet; ask again.")
