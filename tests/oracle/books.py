"""The books as they lie on the disk: rows of the SQLite file, lines of the second medium. Reads them by itself."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

Row = dict[str, Any]
TABLES = (
    *("device", "device_due", "device_hold", "device_request", "card_session", "card_record", "card_key"),
    *("card_object", "issued_certificate", "certificate_order", "issuing_authority", "escrowed_key"),
    *("escrow_release", "audit_entry", "audit_detail", "audit_block", "lease"),
)


_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:")
_TEXTS = frozenset({"owner"})
"""Columns of text that may look like a UUID."""
_TOLD = {("issue", "certificate"): "signed", ("revoke", "hold"): "hold"}
"""What a field of an event makes of its kind."""


@dataclass(frozen=True)
class SecretName:
    """A secret of a card as the journal names it: which generation, under which version of the master key.

    ``algorithm`` is the octet of a management key's algorithm, None for a PUK.
    """

    kind: str
    generation: int
    master: int
    algorithm: int | None


@dataclass(frozen=True)
class Books:
    """Every row of ``TABLES``, oldest first."""

    tables: dict[str, list[Row]]

    @classmethod
    def read(cls, database: Path) -> Books:
        """The file of a store."""
        connection = sqlite3.connect(database)
        connection.row_factory = sqlite3.Row
        try:
            tables = {name: [dict(row) for row in connection.execute(f"SELECT * FROM {name}")] for name in TABLES}
        finally:
            connection.close()
        return cls({name: _ordered(name, rows) for name, rows in tables.items()})

    def of(self, table: str, **values: Any) -> list[Row]:
        """Rows with these values."""
        return [row for row in self.tables[table] if all(row[name] == value for name, value in values.items())]

    def secrets(self, device: UUID) -> list[SecretName]:
        """Every PUK and management key of our own that the journal of a device names, oldest first."""
        rows = [row for row in self.of("card_record", device=device.hex) if row["kind"] in ("puk", "management_key")]
        own = [row for row in rows if "." in row["reference"]]
        return [
            SecretName(row["kind"], *map(int, row["reference"].split(".")), row["algorithm"])  # type: ignore[call-arg]
            for row in own
        ]

    def archived(self, person: UUID) -> list[Row]:
        """Archived keys of a person."""
        return self.of("escrowed_key", person=person.hex)


def remembered(folder: Path) -> frozenset[tuple[str, str]]:
    """Kind and subject (hexadecimal) of every event on a second medium; "signed" where it has a whole certificate.

    "revoke" is for good; a hold that begins or ends is "hold". A "generation" is named by its record or its key.
    "bound" is an archived key with its certificate. The hash of each line has to cover the one before it.
    """
    found = set()
    for path in folder.glob("*.journal"):
        before = bytes(32)
        *whole, _torn = path.read_bytes().split(b"\n")
        for line in whole:
            digest, _, text = line.partition(b" ")
            before = hashlib.sha256(before + text).digest()
            assert digest.decode() == before.hex(), f"{path.name} was altered"
            event = json.loads(text)
            if "kind" in event:
                kind = event["kind"]
                kinds = [_TOLD[kind, name] for name in event["data"] if (kind, name) in _TOLD]
                # What another authority made is remembered at once, whole.
                kinds += [kind] * (not kinds or "tbs" in event["data"])
                kinds += ["bound"] * (kind == "escrow" and bool(event["data"].get("certificate")))
                subject = event["data"]["id"] if kind == "generation" else event["subject"]
                found |= {(one, UUID(subject).hex) for one in kinds}
    return frozenset(found)


def of_postgresql(ask: Callable[[str], str]) -> Books:
    """The same of a PostgreSQL database. ``ask`` gives what psql prints for a statement."""
    statement = "SET timezone TO 'UTC'; SELECT row_to_json(one) FROM {0} AS one"
    tables = {name: [_row(line) for line in ask(statement.format(name)).splitlines()] for name in TABLES}
    return Books({name: _ordered(name, rows) for name, rows in tables.items()})


def _ordered(name: str, rows: list[Row]) -> list[Row]:
    by_number = name in ("card_record", "audit_block")
    return sorted(rows, key=lambda row: row["number"] if by_number else str(row.get("id")))


def _row(line: str) -> Row:
    return {name: value if name in _TEXTS else _value(value) for name, value in json.loads(line).items()}


def _value(value: Any) -> Any:
    """As SQLite has it."""
    if not isinstance(value, str):
        return value
    if _UUID.fullmatch(value):
        return value.replace("-", "")
    if _TIME.match(value):
        return datetime.fromisoformat(value).strftime("%Y-%m-%d %H:%M:%S.%f")
    return bytes.fromhex(value[2:]) if value.startswith("\\x") else value
