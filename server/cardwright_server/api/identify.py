"""Who makes a call: by the certificate of its TLS connection, by the socket it came through, by a proof it names.

A certificate counts only for what it was issued for: by the issuing CA for workstations and operators, to a
workstation, operator or service, not held and not revoked. One of the CA for cards or servers is refused, whatever it
says. The host's own socket lies in a folder that only the server's user may enter.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import unquote
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..authentication.errors import ProofRefused
from ..authentication.principal import LOCAL_FRONT, Principal, PrincipalKind, anyone
from ..authentication.service import AuthenticationService
from ..issuance.authorities import verify_role
from ..issuance.errors import WrongRole
from ..issuance.model import HolderKind, Purpose
from ..people.operators import OperatorService
from ..store.unit import Database, Unit
from ..workstations.model import Workstation
from ..workstations.service import WorkstationService
from .calling import Context
from .refusals import NotAdmitted

SESSION: Final = "cardwright-session"
"""Metadata: the proof of a person (``Authentication.id``), who then is the caller in place of the connection's."""
FRONT: Final = "cardwright-front"
"""Metadata: through what the caller came, for the record."""
DIRECT: Final = "direct"
REMEMBERED: Final = timedelta(seconds=30)
"""How long a certificate is not looked up again. What can be withdrawn is asked for at every call all the same."""
MOST_REMEMBERED: Final = 20_000
LONGEST_METADATA: Final = 100
_FRONT: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


@dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal
    ends: datetime
    until: float


class Identifier:
    """``calling.Identify``. ``org`` is the organization of callers who prove nothing.

    ``recognized`` hears of workstations that came.
    """

    def __init__(
        self,
        database: Database,
        org: UUID,
        workstations: WorkstationService,
        operators: OperatorService,
        authentication: AuthenticationService,
        recognized: Callable[[Workstation], None] = lambda station: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._org = org
        self._workstations = workstations
        self._operators = operators
        self._authentication = authentication
        self._noted = recognized
        self._clock = clock
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    async def __call__(self, context: Context) -> Principal:
        """The caller. Raises NotAdmitted, ProofRefused, StoreError."""
        principal, _ = await self.connection(context)
        session = _metadata(context, SESSION)
        if not session:
            return principal
        try:
            proof = UUID(session)
        except ValueError:
            raise ProofRefused("the proof was not accepted") from None
        return await self._database.glance(lambda unit: self._authentication.principal_of(unit, principal, proof))

    async def connection(self, context: Context) -> tuple[Principal, datetime | None]:
        """Whose connection it is, and when it has to end. Raises as the call."""
        address, local = _peer(context)
        if local:
            return anyone(self._org, front=LOCAL_FRONT, address=address), None
        front = _metadata(context, FRONT) or DIRECT
        if _FRONT.fullmatch(front) is None or front == LOCAL_FRONT:
            raise NotAdmitted("the name of the front is none")
        shown = context.auth_context().get("x509_pem_cert")
        if not shown:
            return anyone(self._org, front=front, address=address), None
        known = await self._certificate(bytes(shown[0]))
        principal = replace(known.principal, front=front, address=address)
        if principal.authentication is not None:
            principal = replace(principal, authentication=replace(principal.authentication, network=address))
        return principal, known.ends

    async def _certificate(self, pem: bytes) -> _Known:
        place = hashlib.sha256(pem).digest()
        found = self._known.get(place)
        if found is not None and found.until > self._clock():
            self._known.move_to_end(place)
            return found
        try:
            certificate = x509.load_pem_x509_certificate(pem)
        except ValueError:
            raise NotAdmitted("the certificate cannot be read") from None
        principal = await self._database.read(lambda unit: self._recognized(unit, certificate))
        until = self._clock() + REMEMBERED.total_seconds()
        made = self._known[place] = _Known(principal, certificate.not_valid_after_utc, until)
        self._known.move_to_end(place)
        if len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)
        return made

    async def _recognized(self, unit: Unit, certificate: x509.Certificate) -> Principal:
        holder = await self._holder(unit, certificate)
        found: Principal | None
        if holder is HolderKind.WORKSTATION:
            der = certificate.public_bytes(Encoding.DER)
            found = await self._workstations.recognize(unit, der, front=DIRECT, address="")
            if found is not None:
                self._noted(await self._workstations.workstation(unit, found.org, found.id))
        else:
            key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            ends = certificate.not_valid_after_utc
            found = await self._operators.recognize(
                unit, hashlib.sha256(key).digest(), expires_at=ends, front=DIRECT, address=""
            )
            kind = PrincipalKind.OPERATOR if holder is HolderKind.OPERATOR else PrincipalKind.SERVICE
            if found is not None and found.kind is not kind:
                found = None
        if found is None:
            raise NotAdmitted("the certificate belongs to nobody who is let in")
        return found

    @staticmethod
    async def _holder(unit: Unit, certificate: x509.Certificate) -> HolderKind:
        """Raises NotAdmitted."""
        reason = ""
        for kind in (HolderKind.WORKSTATION, HolderKind.OPERATOR, HolderKind.SERVICE):
            try:
                await verify_role(unit, certificate, Purpose.WORKSTATIONS, kind)
                return kind
            except WrongRole as refused:
                reason = refused.message
                if refused.reason != "holder":
                    break
        raise NotAdmitted(reason)


def _peer(context: Context) -> tuple[str, bool]:
    """The caller's address, and whether it is the host's own socket. Raises NotAdmitted."""
    kind, _, rest = unquote(str(context.peer())).partition(":")
    secured = b"ssl" in context.auth_context().get("transport_security_type", ())
    if kind == "unix" and not secured:
        return "", True
    if kind not in ("ipv4", "ipv6") or not secured:
        raise NotAdmitted("the connection is of no kind that is served")
    return rest.rpartition(":")[0].strip("[]"), False


def _metadata(context: Context, name: str) -> str:
    """A text of the call's metadata, "" if there is none. Raises NotAdmitted."""
    found: list[Any] = [value for key, value in context.invocation_metadata() or () if key == name]
    if len(found) > 1 or any(not isinstance(one, str) or len(one) > LONGEST_METADATA for one in found):
        raise NotAdmitted(f"the metadata {name} is malformed")
    return str(found[0]) if found else ""
