"""Revocation lists (RFC 5280 section 5): complete, with numbers that never go back, on change and in time.

Number and TBSCertList are committed before the vault signs; the vault refuses numbers that are not higher than its
last, also after the database was restored.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

from asn1crypto import core
from cryptography import x509
from sqlalchemy import Row

from cardwright_cardops.iso7816 import tlv

from ..store.ids import new_id
from ..store.unit import Database, Unit
from ..vault.der import key_id, signature_algorithm
from ..vault.errors import VaultRefused
from ..vault.model import PublicKeyInfo
from ..vault.protocol import Vault
from . import store
from .backend import issuer_info
from .model import CERTIFICATE_HOLD, Authority, CertificateState, RevocationReason
from .tbs import assemble

INTERVAL: Final = timedelta(hours=6)
"""How old a list gets at most before the next one, changed or not. The Common Policy allows 18 hours."""
LIFETIME: Final = timedelta(hours=24)
_OVERLAP: Final = timedelta(minutes=2)
"""A change is stamped with the beginning of its transaction, so one that committed late looks older than it is."""
_UNSETTLED: Final = timedelta(seconds=30)
_SEQUENCE, _CONTEXT_0 = 0x30, 0xA0
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18


@dataclass(frozen=True, slots=True)
class PublishedList:
    """A signed list. ``crl`` is DER."""

    number: int
    this_update: datetime
    next_update: datetime
    crl: bytes = field(repr=False)


class CrlPublisher:
    """Publishes the lists of every authority; any number of processes may do so at once."""

    def __init__(self, vault: Vault, interval: timedelta = INTERVAL, lifetime: timedelta = LIFETIME) -> None:
        """``publish_due`` is to be called each half minute; a list lives longer than the interval."""
        if not interval < lifetime:
            raise ValueError("a list ends before the next one is due")
        self._vault = vault
        self._interval = interval
        self._lifetime = lifetime

    async def publish_due(self, database: Database, *, force: bool = False) -> list[str]:
        """Publish what is due: changed, or as old as the interval; with ``force`` all. Gives names of authorities.

        Raises VaultError, StoreError.
        """
        numbers = (await self._vault.status()).crl_numbers
        done = []
        for authority in await database.read(store.authorities):
            if not authority.foreign and authority.certificate:
                floor = max(numbers.get(authority.name, 0), authority.crl_floor)
                if await self._publish(database, authority, floor, force=force):
                    done.append(authority.name)
        return done

    async def _publish(self, database: Database, authority: Authority, floor: int, *, force: bool) -> bool:
        drafted = await database.transact(partial(self._draft, authority=authority, floor=floor, force=force))
        if drafted is None:
            return False
        identifier, tbs = drafted
        try:
            signature = await self._vault.sign_crl(authority.name, tbs)
        except VaultRefused as refusal:
            if refusal.reason == "crl-number":
                return False  # another process was faster, with a list that is newer than this one
            raise
        crl = assemble(tbs, issuer_info(authority), signature)
        await database.transact(lambda unit: store.publish_list(unit, identifier, crl))
        return True

    async def _draft(self, unit: Unit, authority: Authority, floor: int, *, force: bool) -> tuple[UUID, bytes] | None:
        """Row and TBSCertList of the next list, if one is due."""
        now = unit.now.replace(microsecond=0)
        last = await store.published(unit, authority.id)
        since = last.this_update if last is not None else datetime.fromtimestamp(0, now.tzinfo)
        due = force or last is None or now - last.this_update >= self._interval or last.number <= authority.crl_floor
        if not due and not await store.changed_since(unit, authority.id, since - _OVERLAP):
            return None
        # What ended since the last list is named once more (RFC 5280 section 3.3).
        entries = await store.listed(unit, authority.id, min(since, now))
        digest = _digest(entries)
        if not due and last is not None and last.entries == digest:
            return None
        if not force and await store.unsettled_list(unit, authority.id, now - _UNSETTLED):
            return None
        number = max(floor, await store.last_number(unit, authority.id)) + 1
        end = now + self._lifetime
        # Many thousand entries take a while, in which others are to be answered.
        tbs = await asyncio.to_thread(tbs_cert_list, issuer_info(authority), number, now, end, entries)
        identifier = new_id()
        values = {
            "id": identifier,
            "org": authority.org,
            "authority": authority.id,
            "number": number,
            "this_update": now,
            "next_update": end,
            "entries": digest,
            "tbs": tbs,
            "crl": b"",
        }
        return (identifier, tbs) if await store.insert_list(unit, values) is not None else None


async def current(unit: Unit, authority: UUID) -> PublishedList | None:
    """The newest published list."""
    row = await store.published(unit, authority)
    return PublishedList(row.number, row.this_update, row.next_update, row.crl) if row is not None else None


def tbs_cert_list(
    issuer: PublicKeyInfo, number: int, begin: datetime, end: datetime, entries: Sequence[Row[Any]]
) -> bytes:
    """The DER TBSCertList. ``entries`` are rows of serial, state, status_at and reason."""
    parts = [
        bytes(core.Integer(1).dump()),
        signature_algorithm(issuer.algorithm),
        issuer.subject,
        _time(begin),
        _time(end),
    ]
    if entries:
        parts.append(tlv.encode(_SEQUENCE, b"".join(map(_entry, entries))))
    extensions = (x509.AuthorityKeyIdentifier(key_id(issuer.public_key), None, None), x509.CRLNumber(number))
    encoded = b"".join(_extension(_oid(one.oid.dotted_string), one.public_bytes()) for one in extensions)
    parts.append(tlv.encode(_CONTEXT_0, tlv.encode(_SEQUENCE, encoded)))
    return tlv.encode(_SEQUENCE, b"".join(parts))


def _entry(row: Row[Any]) -> bytes:
    number = reason_number(CertificateState(row.state), row.reason)
    serial = bytes.fromhex(row.serial)
    content = tlv.encode(0x02, serial if serial[0] < 0x80 else b"\0" + serial) + _time(row.status_at)
    if number:
        content += tlv.encode(_SEQUENCE, _extension(_REASON_OID, bytes((0x0A, 0x01, number))))
    return tlv.encode(_SEQUENCE, content)


def reason_number(state: CertificateState, reason: str | None) -> int:
    """CRLReason of what is not good; 0 (unspecified) is written nowhere."""
    if state is not CertificateState.REVOKED:
        return CERTIFICATE_HOLD
    return RevocationReason(reason).number if reason is not None else 0


def _oid(dotted: str) -> bytes:
    return bytes(core.ObjectIdentifier(dotted).dump())


_REASON_OID: Final = _oid("2.5.29.21")


def _extension(oid: bytes, value: bytes) -> bytes:
    return tlv.encode(_SEQUENCE, oid + tlv.encode(0x04, value))


def _time(moment: datetime) -> bytes:
    """UTCTime through 2049 (RFC 5280 section 5.1.2.4)."""
    if moment.year < 2050:
        return tlv.encode(_UTC_TIME, moment.strftime("%y%m%d%H%M%SZ").encode())
    return tlv.encode(_GENERALIZED_TIME, moment.strftime("%Y%m%d%H%M%SZ").encode())


def _digest(entries: Sequence[Row[Any]]) -> str:
    state = hashlib.sha256()
    for row in entries:
        state.update(f"{row.serial} {reason_number(CertificateState(row.state), row.reason)}\n".encode())
    return state.hexdigest()
