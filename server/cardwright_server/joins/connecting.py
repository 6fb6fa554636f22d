"""Operators and the certificates that they connect with: a key is registered and certified in one act."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from uuid import UUID

from ..authentication.principal import Principal
from ..people.model import AccountKind, Operator, OperatorKey
from ..people.operators import OperatorService
from ..store.ids import new_id
from ..store.unit import Database, Unit
from .certificates import OperatorCertificates, requested_key


@dataclass(frozen=True, slots=True)
class Connected:
    """An account with its keys, the certificate of a new one and the chain (DER, from the issuer up to the root)."""

    operator: Operator
    keys: tuple[OperatorKey, ...]
    certificate: bytes = field(repr=False)
    chain: tuple[bytes, ...] = field(repr=False)


class OperatorConnections:
    """Registers keys of operators and certifies them. Opens its own units."""

    def __init__(self, database: Database, operators: OperatorService, certificates: OperatorCertificates) -> None:
        self._database = database
        self._operators = operators
        self._certificates = certificates

    async def add_key(self, principal: Principal, account: UUID, request: bytes) -> Connected:
        """Register the key of a PKCS #10 request (DER), and certify it. With the same key it is the same act.

        Raises as ``OperatorService.add_key``, CertificateRefused, NoSuchAuthority, VaultError, StoreError.
        """
        key = requested_key(request)
        # Judged before anything is recorded: who asks has to have the key.
        unproven = Operator(new_id(), principal.org, AccountKind.PERSON, None, "newcomer", True, 0, ())
        self._certificates.asked(principal.org, unproven, request)
        spki = sha256(key).digest()

        async def register(unit: Unit) -> tuple[Operator, tuple[OperatorKey, ...]]:
            operator = await self._operators.add_key(unit, principal, account, spki)
            return operator, (await self._operators.keys_of(unit, operator.org, [account]))[account]

        operator, keys = await self._database.transact(register)
        made = await self._certificates.issue(principal.org, operator, request)
        return Connected(operator, keys, made.certificate, tuple(await self._certificates.chain(principal.org)))
