"""The journal of a card on the second medium (S11): generations of its secrets, and its keys; how a restore goes on.

A name says generation and version of the master key, never a value. What a restored database does not know of would
lock the card for good: its management key would be one that nobody can name, and the key in 9E by which it proves
itself, before it gets a PUK, would be a stranger's. Contents of objects are not here: they are written once more.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from cardwright_cardops.plan.records import Kind

from ..store.second_medium import JournalEvent, JournalKind, Remembered, Settled
from ..store.unit import Unit
from . import store


def record_event(row: Mapping[str, Any], *, trusted: bool) -> JournalEvent:
    """Of a record that is about to be kept, as ``store.add_records`` gives it; what it says is done to the card later.

    Without the certificate that it may hold, which issuance gives again. ``trusted``: through a trusted station.
    """
    data: dict[str, str | int | bool | None] = {
        "id": str(row["id"]),
        "session": str(row["session"]),
        "life": row["life"],
        "number": row["number"],
        "kind": row["kind"],
        "reference": row["reference"],
        "slot": row["slot"],
        "fingerprint": row["fingerprint"],
        "algorithm": None if row["algorithm"] is None else int(row["algorithm"]),
        "serial": row["serial"],
        "guid": None if row["guid"] is None else str(row["guid"]),
        "trusted": trusted,
    }
    return JournalEvent(JournalKind.GENERATION, row["org"], row["device"], data)


def key_event(row: Mapping[str, Any]) -> JournalEvent:
    """Of a key of a card, for which a certificate was asked, as ``store.add_key`` gives it."""
    data: dict[str, str | int | bool | None] = {
        "id": str(row["id"]),
        "session": str(row["session"]),
        "life": row["life"],
        "slot": row["slot"],
        "fingerprint": row["fingerprint"],
        "public_key": base64.b64encode(row["public_key"]).decode(),
        "origin": str(row["origin"]),
    }
    return JournalEvent(JournalKind.GENERATION, row["org"], row["device"], data)


def exposed(events: Iterable[Remembered]) -> dict[tuple[UUID, UUID], datetime]:
    """Cards whose newest PUK was seen by a workstation that is not trusted, by organization and device; since when."""
    found: dict[tuple[UUID, UUID], datetime] = {}
    for one in events:
        event = one.event
        is_puk = event.kind is JournalKind.GENERATION and event.data.get("kind") == Kind.PUK.name.lower()
        if is_puk and one.settled is not Settled.ABANDONED:
            found.pop((event.org, event.subject), None)
            if event.data.get("trusted") is False:
                found[event.org, event.subject] = one.at
    return found


async def replay(unit: Unit, remembered: Remembered) -> bool:
    """Put back what a restored database does not know. Gives whether there was anything to do.

    The card's next session then finds the candidate, and no generation comes twice. Events of other domains, and those
    that took no effect, are passed over. All of them may be replayed again.
    """
    event = remembered.event
    if event.kind is not JournalKind.GENERATION or remembered.settled is Settled.ABANDONED:
        return False
    data = event.data
    common = {
        "id": UUID(str(data["id"])),
        "created_at": remembered.at,
        "org": event.org,
        "session": UUID(str(data["session"])),
        "device": event.subject,
        "life": data["life"],
    }
    if "public_key" in data:
        key = {name: data[name] for name in ("slot", "fingerprint", "origin")}
        public = base64.b64decode(str(data["public_key"]), validate=True)
        return await store.put_key(unit, {**common, **key, "public_key": public})
    names = ("number", "kind", "reference", "slot", "fingerprint", "algorithm", "serial")
    record = {name: data[name] for name in names}
    guid = UUID(str(data["guid"])) if data["guid"] else None
    return await store.put_record(unit, {**common, **record, "guid": guid, "certificate": None})
