"""SQL of issuance's tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Row, func, select, update

from ..policies.model import Origin
from ..store.issuance_tables import certificate_order, issued_certificate, issuing_authority, revocation_list
from ..store.unit import Unit
from .model import (
    Authority,
    Certificate,
    CertificateState,
    Holder,
    HolderKind,
    Order,
    OrderState,
    Purpose,
    RevocationReason,
)

_C, _A, _R, _O = issued_certificate.c, issuing_authority.c, revocation_list.c, certificate_order.c


def _authority(row: Row[Any]) -> Authority:
    return Authority(
        id=row.id,
        org=row.org,
        name=row.name,
        purpose=Purpose(row.purpose),
        foreign=row.foreign_backend,
        subject=row.subject,
        public_key=row.public_key,
        certificate=row.certificate,
        responder=row.responder,
        active=row.active,
        crl_floor=row.crl_floor,
        version=row.version,
    )


def _holder(row: Row[Any]) -> Holder:
    return Holder(HolderKind(row.holder_kind), row.holder, row.holder_part, row.person)


def holder_values(holder: Holder) -> dict[str, Any]:
    """The columns of a holder."""
    return {
        "holder_kind": holder.kind,
        "holder": holder.id,
        "holder_part": holder.part,
        "person": holder.person,
    }


def _certificate(row: Row[Any]) -> Certificate:
    return Certificate(
        id=row.id,
        org=row.org,
        request=row.request,
        authority=row.authority,
        serial=row.serial,
        profile=row.profile,
        profile_version=row.profile_version,
        holder=_holder(row),
        key=row.key,
        origin=Origin(row.origin),
        state=CertificateState(row.state),
        holds=frozenset(row.holds),
        status_at=row.status_at,
        reason=RevocationReason(row.reason) if row.reason is not None else None,
        not_before=row.not_before,
        not_after=row.not_after,
        session=row.session,
        tbs=row.tbs,
        certificate=row.certificate,
        version=row.version,
    )


def _order(row: Row[Any]) -> Order:
    return Order(
        id=row.id,
        org=row.org,
        request=row.request,
        asked=row.asked,
        backend=row.backend,
        state=OrderState(row.state),
        certificate=row.certificate,
        reference=row.reference,
        refusal=row.refusal,
        profile=row.profile,
        profile_version=row.profile_version,
        holder=_holder(row),
        origin=Origin(row.origin),
        public_key=row.public_key,
        csr=row.csr,
        session=row.session,
        version=row.version,
    )


# Authorities.


async def insert_authority(unit: Unit, values: Mapping[str, Any]) -> UUID | None:
    """Add an authority; None if there is one of this name."""
    added: UUID | None = await unit.insert_if_absent(issuing_authority, values, ["name"])
    return added


async def authorities(unit: Unit) -> list[Authority]:
    """All of them, the oldest first."""
    rows = await unit.rows(select(issuing_authority).order_by(_A.created_at, _A.name))
    return [_authority(row) for row in rows]


async def authority_by_name(unit: Unit, name: str) -> Authority | None:
    """One by its name."""
    row = await unit.row(select(issuing_authority).where(_A.name == name))
    return _authority(row) if row is not None else None


async def authority_by_id(unit: Unit, identifier: UUID) -> Authority:
    """One that a row points to. Raises NoResultFound."""
    return _authority((await unit.execute(select(issuing_authority).where(_A.id == identifier))).one())


async def authority_for(unit: Unit, org: UUID, purpose: Purpose) -> Authority | None:
    """The authority that certifies for a purpose now: the youngest active one."""
    statement = (
        select(issuing_authority)
        .where(_A.org == org, _A.purpose == purpose, _A.active, _A.foreign_backend.is_(False))
        .order_by(_A.created_at.desc())
        .limit(1)
    )
    row = await unit.row(statement)
    return _authority(row) if row is not None else None


async def update_authority(unit: Unit, authority: Authority, values: Mapping[str, Any]) -> None:
    """Change an authority. Raises StaleVersion."""
    await unit.update(issuing_authority, authority.id, authority.version, values)


# Certificates.


async def insert_certificate(unit: Unit, values: Mapping[str, Any]) -> Certificate:
    """Add a certificate; ``values`` has every column but those that all tables share."""
    identifier = await unit.insert(issued_certificate, values)
    return _certificate(cast("Row[Any]", SimpleNamespace(**{**values, "id": identifier, "version": 1})))


async def certificate_by_id(unit: Unit, org: UUID, identifier: UUID) -> Certificate | None:
    """One of an organization."""
    row = await unit.row(select(issued_certificate).where(_C.id == identifier, _C.org == org))
    return _certificate(row) if row is not None else None


async def certificate_by_request(unit: Unit, org: UUID, request: UUID) -> Certificate | None:
    """One by the request that it answers."""
    row = await unit.row(select(issued_certificate).where(_C.request == request, _C.org == org))
    return _certificate(row) if row is not None else None


async def certificates_by_serial(unit: Unit, authority: UUID, serials: Iterable[str]) -> dict[str, Certificate]:
    """Those of an authority that have one of the serial numbers."""
    rows = await unit.rows(
        select(issued_certificate).where(_C.authority == authority, _C.serial.in_(list(serials)))
    )
    return {row.serial: _certificate(row) for row in rows}


async def certificates_of_key(unit: Unit, key: str) -> list[Certificate]:
    """Every certificate of a public key, in any organization."""
    return [_certificate(row) for row in await unit.rows(select(issued_certificate).where(_C.key == key))]


async def certificates_of_holder(
    unit: Unit, org: UUID, kind: HolderKind, holder: UUID, part: str | None = None
) -> list[Certificate]:
    """Those of a holder, the one that ends last first."""
    statement = select(issued_certificate).where(_C.org == org, _C.holder_kind == kind, _C.holder == holder)
    if part is not None:
        statement = statement.where(_C.holder_part == part)
    ordered = statement.order_by(_C.not_after.desc(), _C.id.desc())
    return [_certificate(row) for row in await unit.rows(ordered)]


async def certificates_of_session(unit: Unit, org: UUID, session: UUID) -> list[Certificate]:
    """Those that a card session made."""
    rows = await unit.rows(select(issued_certificate).where(_C.session == session, _C.org == org).order_by(_C.id))
    return [_certificate(row) for row in rows]


async def certificates_of_kinds(unit: Unit, kinds: Iterable[HolderKind], since: datetime) -> list[Certificate]:
    """Living ones of some kinds of holders, in every organization, that end after ``since``; the last to end first."""
    rows = await unit.rows(
        select(issued_certificate)
        .where(
            _C.holder_kind.in_([kind.value for kind in kinds]),
            _C.not_after > since,
            _C.state.in_([CertificateState.GOOD, CertificateState.HELD]),
        )
        .order_by(_C.not_after.desc())
    )
    return [_certificate(row) for row in rows]


async def find_certificates(
    unit: Unit,
    org: UUID,
    persons: Any,
    *,
    person: UUID | None,
    serial: str,
    device: UUID | None,
    after: UUID | None,
    limit: int,
) -> list[Certificate]:
    """Certificates in the order of their ids. ``persons``: a subquery of persons that are covered; None: all."""
    statement = select(issued_certificate).where(_C.org == org)
    if persons is not None:
        statement = statement.where(_C.person.in_(persons))
    if person is not None:
        statement = statement.where(_C.person == person)
    if serial:
        statement = statement.where(_C.serial == serial)
    if device is not None:
        statement = statement.where(_C.holder_kind == HolderKind.DEVICE_SLOT, _C.holder == device)
    if after is not None:
        statement = statement.where(_C.id > after)
    rows = await unit.rows(statement.order_by(_C.id).limit(limit))
    return [_certificate(row) for row in rows]


async def update_certificate(unit: Unit, certificate: Certificate, values: Mapping[str, Any]) -> None:
    """Change a certificate. Raises StaleVersion."""
    await unit.update(issued_certificate, certificate.id, certificate.version, values)


async def keep_signed(unit: Unit, identifier: UUID, values: Mapping[str, Any]) -> bool:
    """Put the signed certificate beside its TBSCertificate, unless there is one. Gives whether there was none."""
    statement = (
        update(issued_certificate)
        .where(_C.id == identifier, _C.state == CertificateState.PREPARED)
        .values(**values, changed_at=unit.time, version=_C.version + 1)
    )
    return (await unit.execute(statement)).rowcount == 1


async def unsigned(unit: Unit, before: datetime, limit: int) -> list[Certificate]:
    """Certificates that were prepared before a time and have no signature yet."""
    rows = await unit.rows(
        select(issued_certificate)
        .where(_C.state == CertificateState.PREPARED, _C.status_at < before)
        .order_by(_C.status_at)
        .limit(limit)
    )
    return [_certificate(row) for row in rows]


async def listed(unit: Unit, authority: UUID, since: datetime) -> Sequence[Row[Any]]:
    """What a CRL names: (serial, state, status_at, reason) of what is not good and ends after ``since``."""
    return await unit.rows(
        select(_C.serial, _C.state, _C.status_at, _C.reason)
        .where(_C.authority == authority, _C.state != CertificateState.GOOD, _C.not_after > since)
        .order_by(_C.serial)
    )


async def changed_since(unit: Unit, authority: UUID, since: datetime) -> bool:
    """Whether the status of any certificate changed at or after a time."""
    statement = select(_C.id).where(_C.authority == authority, _C.status_at >= since).limit(1)
    return await unit.value(statement) is not None


# Orders.


async def insert_order(unit: Unit, values: Mapping[str, Any]) -> Order:
    """Add an order; ``values`` has every column but those that all tables share."""
    identifier = await unit.insert(certificate_order, values)
    return _order(cast("Row[Any]", SimpleNamespace(**{**values, "id": identifier, "version": 1})))


async def order_by_request(unit: Unit, org: UUID, request: UUID) -> Order | None:
    """One by the request."""
    row = await unit.row(select(certificate_order).where(_O.request == request, _O.org == org))
    return _order(row) if row is not None else None


async def newest_order(unit: Unit, org: UUID, device: UUID, part: str) -> Order | None:
    """The last one for a device's slot."""
    mine = (_O.org == org, _O.holder_kind == HolderKind.DEVICE_SLOT, _O.holder == device, _O.holder_part == part)
    row = await unit.row(select(certificate_order).where(*mine).order_by(_O.created_at.desc(), _O.id.desc()).limit(1))
    return _order(row) if row is not None else None


async def open_orders(unit: Unit, states: Iterable[OrderState], limit: int) -> list[Order]:
    """Orders without an answer, the oldest first."""
    rows = await unit.rows(
        select(certificate_order)
        .where(_O.state.in_([state.value for state in states]))
        .order_by(_O.created_at)
        .limit(limit)
    )
    return [_order(row) for row in rows]


async def answer_order(unit: Unit, order: UUID, values: Mapping[str, Any]) -> bool:
    """Note an answer, unless there is a final one. Gives whether it counted."""
    statement = (
        update(certificate_order)
        .where(_O.id == order, _O.state.in_([OrderState.ASKED, OrderState.PENDING]))
        .values(**values, changed_at=unit.time, version=_O.version + 1)
    )
    return (await unit.execute(statement)).rowcount == 1


# Revocation lists.


async def last_number(unit: Unit, authority: UUID) -> int:
    """The highest number given to a list of an authority, published or not; 0 if none."""
    return await unit.value(select(func.max(_R.number)).where(_R.authority == authority)) or 0


async def published(unit: Unit, authority: UUID) -> Row[Any] | None:
    """The newest list that is signed."""
    return await unit.row(
        select(revocation_list)
        .where(_R.authority == authority, _R.published_at.is_not(None))
        .order_by(_R.number.desc())
        .limit(1)
    )


async def insert_list(unit: Unit, values: Mapping[str, Any]) -> UUID | None:
    """Add a list; None if its number is taken."""
    added: UUID | None = await unit.insert_if_absent(revocation_list, values, ["authority", "number"])
    return added


async def publish_list(unit: Unit, identifier: UUID, crl: bytes) -> None:
    """Keep the signed list."""
    statement = (
        update(revocation_list)
        .where(_R.id == identifier, _R.published_at.is_(None))
        .values(crl=crl, published_at=unit.time, changed_at=unit.time, version=_R.version + 1)
    )
    await unit.execute(statement)



async def unsettled_list(unit: Unit, authority: UUID, since: datetime) -> bool:
    """Whether another process drafted a list after ``since`` and has not published it yet."""
    statement = select(_R.id).where(_R.authority == authority, _R.published_at.is_(None), _R.created_at > since)
    return await unit.value(statement.limit(1)) is not None
