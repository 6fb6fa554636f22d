"""Generations of a card's secrets on the second medium (S11), and how a restore puts them back.

A name says generation and version of the master key, never a value. What a restored database does not know of would
lock the card for good: its management key would be one that nobody can name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from cardwright_cardops.plan.records import Kind

from ..store.second_medium import JournalEvent, JournalKind, Remembered, Settled
from ..store.unit import Unit
from . import store

REMEMBERED = frozenset(
    kind.name.lower()
    for kind in (Kind.CARD, Kind.MANAGEMENT_KEY, Kind.MANAGEMENT_KEY_SET, Kind.PUK, Kind.PUK_SET, Kind.RETRIES)
)
"""Kinds of records that are written to the second medium: which card it is, and what became of its secrets.

All else the card tells by itself, or issuance and escrow have it.
"""


def generation_event(row: Mapping[str, Any]) -> JournalEvent:
    """Of a record that is about to be kept, as ``store.add_records`` gives it; what it says is done to the card later.
    """
    data: dict[str, str | int | bool | None] = {
        "id": str(row["id"]),
        "session": str(row["session"]),
        "life": row["life"],
        "number": row["number"],
        "kind": row["kind"],
        "reference": row["reference"],
        "algorithm": None if row["algorithm"] is None else int(row["algorithm"]),
        "serial": row["serial"],
        "guid": None if row["guid"] is None else str(row["guid"]),
    }
    return JournalEvent(JournalKind.GENERATION, row["org"], row["device"], data)


async def replay(unit: Unit, remembered: Remembered) -> bool:
    """Put back what a restored database does not know. Gives whether there was anything to do.

    The card's next session then finds the candidate, and no generation comes twice. Events of other domains, and those
    that took no effect, are passed over. All of them may be replayed again.
    """
    event = remembered.event
    if event.kind is not JournalKind.GENERATION or remembered.settled is Settled.ABANDONED:
        return False
    data = event.data
    row = {name: data[name] for name in ("life", "number", "kind", "reference", "algorithm", "serial")}
    return await store.put_record(
        unit,
        {
            **row,
            "id": UUID(str(data["id"])),
            "created_at": remembered.at,
            "org": event.org,
            "session": UUID(str(data["session"])),
            "device": event.subject,
            "slot": None,
            "fingerprint": "",
            "guid": UUID(str(data["guid"])) if data["guid"] else None,
            "certificate": None,
        },
    )
