"""SQL of workstations' tables."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import Row, or_, select

from ..store.unit import Unit
from ..store.workstation_tables import enrolment_token, workstation, workstation_certificate
from .issuer import IssuedStation
from .model import EnrolmentToken, StationCertificate, StationClass, StationState, TokenState, Workstation


def _workstation(row: Row[Any]) -> Workstation:
    return Workstation(
        id=row.id,
        org=row.org,
        host=row.host,
        station_class=StationClass(row.station_class),
        state=StationState(row.state),
        revoked_at=row.revoked_at,
        version=row.version,
    )


async def insert_token(
    unit: Unit, org: UUID, token: EnrolmentToken, host: str, station_class: StationClass, expires_at: datetime
) -> None:
    """Keep a token, by its digest."""
    values = {
        "id": token.id,
        "org": org,
        "secret": token.digest,
        "host": host,
        "station_class": station_class,
        "state": TokenState.OFFERED,
        "expires_at": expires_at,
    }
    await unit.insert(enrolment_token, values)


async def token_by_id(unit: Unit, identifier: UUID) -> Row[Any] | None:
    """A token in whatever state, of whatever organization."""
    return await unit.row(select(enrolment_token).where(enrolment_token.c.id == identifier))


async def update_token(unit: Unit, identifier: UUID, version: int, values: Mapping[str, Any]) -> int:
    """Change a token. Raises StaleVersion."""
    return await unit.update(enrolment_token, identifier, version, values)


async def insert_workstation(
    unit: Unit,
    org: UUID,
    host: str,
    station_class: StationClass,
    state: StationState,
    identifier: UUID | None = None,
) -> UUID:
    """Add a workstation, under a new id or the one that it had."""
    values: dict[str, Any] = {"org": org, "host": host, "station_class": station_class, "state": state, "reason": ""}
    if identifier is not None:
        values["id"] = identifier
    return await unit.insert(workstation, values)


async def update_workstation(unit: Unit, identifier: UUID, version: int, values: Mapping[str, Any]) -> int:
    """Change a workstation. Raises StaleVersion."""
    return await unit.update(workstation, identifier, version, values)


async def workstation_by_id(unit: Unit, org: UUID, identifier: UUID) -> Workstation | None:
    """A workstation of an organization."""
    row = await unit.row(select(workstation).where(workstation.c.id == identifier, workstation.c.org == org))
    return _workstation(row) if row is not None else None


async def workstations(unit: Unit, org: UUID, after: tuple[str, UUID] | None, limit: int) -> list[Workstation]:
    """Workstations by host name and id (a host may have been enrolled several times), from beyond a place."""
    host, identifier = workstation.c.host, workstation.c.id
    statement = select(workstation).where(workstation.c.org == org)
    if after is not None:
        statement = statement.where(or_(host > after[0], (host == after[0]) & (identifier > after[1])))
    return [_workstation(row) for row in await unit.rows(statement.order_by(host, identifier).limit(limit))]


async def by_certificate(unit: Unit, certificate: bytes) -> Workstation | None:
    """The workstation of a certificate (DER) that is valid now by the database's time."""
    joined = workstation.join(workstation_certificate, workstation_certificate.c.workstation == workstation.c.id)
    row = await unit.row(
        select(workstation)
        .select_from(joined)
        .where(
            workstation_certificate.c.fingerprint == sha256(certificate).digest(),
            workstation_certificate.c.not_after > unit.time,
        )
    )
    return _workstation(row) if row is not None else None


async def insert_certificate(unit: Unit, org: UUID, station: UUID, spki: bytes, issued: IssuedStation) -> bool:
    """Keep a certificate; False if the key has one already."""
    values = {
        "org": org,
        "workstation": station,
        "fingerprint": sha256(issued.certificate).digest(),
        "spki": spki,
        "certificate": issued.certificate,
        "not_before": issued.not_before,
        "not_after": issued.not_after,
    }
    return await unit.insert_if_absent(workstation_certificate, values, ["spki"]) is not None


async def certificate_of_key(unit: Unit, spki: bytes) -> tuple[UUID, StationCertificate] | None:
    """The workstation and certificate of a key."""
    row = await unit.row(select(workstation_certificate).where(workstation_certificate.c.spki == spki))
    if row is None:
        return None
    return row.workstation, StationCertificate(row.certificate, row.not_before, row.not_after)


async def latest_certificate(unit: Unit, station: UUID) -> StationCertificate | None:
    """The certificate of a workstation that ends last."""
    row = (
        await unit.execute(
            select(workstation_certificate)
            .where(workstation_certificate.c.workstation == station)
            .order_by(workstation_certificate.c.not_after.desc(), workstation_certificate.c.id.desc())
            .limit(1)
        )
    ).first()
    return StationCertificate(row.certificate, row.not_before, row.not_after) if row is not None else None


async def revoked(unit: Unit, memory: timedelta) -> frozenset[UUID]:
    """Workstations that were revoked so recently that a certificate of theirs may still be valid."""
    rows = await unit.rows(select(workstation.c.id).where(workstation.c.revoked_at > unit.now - memory))
    return frozenset(row.id for row in rows)
