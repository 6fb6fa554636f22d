"""Workstations on the second medium (S11): used tokens, certificates, revocations, and how a restore repeats them."""

from __future__ import annotations

import base64
from datetime import datetime
from uuid import UUID

from ..notify.model import DomainEvent
from ..store.second_medium import JournalEvent, JournalKind, Remembered, Settled
from ..store.unit import Unit
from . import store
from .issuer import IssuedStation
from .model import StationClass, StationState, TokenState, Workstation

_TOKEN = "workstation"
REVOKED = "workstation.revoked"
"""The event by which issuance revokes the certificates."""


def claim_event(token: UUID, station: Workstation, spki: bytes) -> JournalEvent:
    """Of an enrolment token that is about to belong to a key, and its workstation. ``spki``: SHA-256."""
    data = {"token": _TOKEN, "workstation": str(station.id), "spki": spki.hex(), **_named(station)}
    return JournalEvent(JournalKind.TOKEN_USE, station.org, token, data)


def certificate_event(
    station: Workstation, spki: bytes, issued: IssuedStation, token: UUID | None = None
) -> JournalEvent:
    """Of a workstation's certificate that is about to count: the first one, by a token, or a later one."""
    data: dict[str, str | int | bool | None] = {
        "certificate": base64.b64encode(issued.certificate).decode(),
        "not_before": issued.not_before.isoformat(),
        "not_after": issued.not_after.isoformat(),
        "spki": spki.hex(),
        "token": None if token is None else str(token),
        **_named(station),
    }
    return JournalEvent(JournalKind.WORKSTATION, station.org, station.id, data)


def revoke_event(station: Workstation, reason: str) -> JournalEvent:
    """Of a workstation that is about to be revoked."""
    return JournalEvent(JournalKind.WORKSTATION, station.org, station.id, {"revoked": reason, **_named(station)})


async def replay(unit: Unit, remembered: Remembered) -> bool:
    """Put back what a restored database does not know. Gives whether there was anything to do.

    A token belongs to its key again; a workstation goes on with its certificates; one that was revoked is so again, and
    issuance is told once more. Events of other domains, and those that took no effect, are passed over. All of them
    may be replayed again. Raises StaleVersion.
    """
    event = remembered.event
    if remembered.settled is Settled.ABANDONED:
        return False
    if event.kind is JournalKind.TOKEN_USE and event.data["token"] == _TOKEN:
        return await _claim(unit, remembered)
    if event.kind is JournalKind.WORKSTATION:
        return await (_revoke if "revoked" in event.data else _certify)(unit, remembered)
    return False


async def _claim(unit: Unit, remembered: Remembered) -> bool:
    event = remembered.event
    station, new = await _station(unit, remembered, UUID(str(event.data["workstation"])))
    row = await store.token_by_id(unit, event.subject)
    if row is None or row.state != TokenState.OFFERED:
        return new
    spki = bytes.fromhex(str(event.data["spki"]))
    await store.update_token(
        unit, row.id, row.version, {"state": TokenState.CLAIMED, "spki": spki, "workstation": station.id}
    )
    return True


async def _certify(unit: Unit, remembered: Remembered) -> bool:
    event, data = remembered.event, remembered.event.data
    station, new = await _station(unit, remembered, event.subject)
    issued = IssuedStation(
        base64.b64decode(str(data["certificate"]), validate=True),
        datetime.fromisoformat(str(data["not_before"])),
        datetime.fromisoformat(str(data["not_after"])),
    )
    if not await store.insert_certificate(unit, station.org, station.id, bytes.fromhex(str(data["spki"])), issued):
        return new
    if station.state is StationState.ENROLLING:
        await store.update_workstation(unit, station.id, station.version, {"state": StationState.ACTIVE})
    token = await store.token_by_id(unit, UUID(str(data["token"]))) if data["token"] else None
    if token is not None and token.state == TokenState.CLAIMED:
        await store.update_token(unit, token.id, token.version, {"state": TokenState.USED})
    return True


async def _revoke(unit: Unit, remembered: Remembered) -> bool:
    event = remembered.event
    station, _ = await _station(unit, remembered, event.subject)
    if station.state is StationState.REVOKED:
        return False
    reason = str(event.data["revoked"])
    values = {"state": StationState.REVOKED, "revoked_at": remembered.at, "reason": reason}
    await store.update_workstation(unit, station.id, station.version, values)
    unit.emit(DomainEvent(station.org, REVOKED, "workstation", station.id, None, {"reason": reason}))
    return True


async def _station(unit: Unit, remembered: Remembered, identifier: UUID) -> tuple[Workstation, bool]:
    """The workstation of an event, and whether it had to be put back."""
    event = remembered.event
    found = await store.workstation_by_id(unit, event.org, identifier)
    if found is not None:
        return found, False
    host, of = str(event.data["host"]), StationClass(str(event.data["class"]))
    await store.insert_workstation(unit, event.org, host, of, StationState.ENROLLING, identifier)
    made = await store.workstation_by_id(unit, event.org, identifier)
    assert made is not None
    return made, True


def _named(station: Workstation) -> dict[str, str | int | bool | None]:
    return {"host": station.host, "class": station.station_class.value}
