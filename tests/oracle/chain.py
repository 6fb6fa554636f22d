"""The audit chain judged by its documented rules alone (docs/server-audit.md), from raw rows."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from .books import Books, Row

HELD = (
    *("id", "org", "created_at", "action", "outcome", "who_kind", "who", "person", "methods", "front"),
    *("target_kind", "target", "facts", "commitment", "correlation", "session"),
)
"""Columns that an entry's hash covers."""
_IDENTIFIERS = frozenset({"id", "org", "who", "person", "target", "correlation", "session"})


def judge_chain(books: Books, keys: Mapping[str, ec.EllipticCurvePublicKey]) -> list[str]:
    """What is wrong with the chain; every entry has to be in it."""
    wrong: list[str] = []
    previous, number = bytes(32), 0
    for block in books.of("audit_block"):
        number += 1
        if block["number"] != number:
            return [*wrong, f"audit block {number} is missing"]
        entries = sorted(books.of("audit_entry", block=number), key=lambda row: row["place"])
        if not block["signed"]:
            return [*wrong, f"audit block {number} is not signed"]
        said = json.loads(block["signed"])
        told = (said["sequence"], said["previous"], said["root"], said["entries"])
        if told != (number, previous.hex(), _root(entries).hex(), len(entries)):
            wrong.append(f"audit block {number} is not about what is in it, or does not follow the one before")
        try:
            keys[said["key"]].verify(block["signature"], block["signed"], ec.ECDSA(hashes.SHA256()))
        except (KeyError, InvalidSignature):
            wrong.append(f"audit block {number} is not signed by the audit key")
        previous = hashlib.sha256(block["signed"]).digest()
    if outside := [row for row in books.of("audit_entry") if not row["block"] or row["block"] > number]:
        wrong.append(f"{len(outside)} audit entries are in no block")
    details = {row["id"]: row for row in books.of("audit_detail")}
    for row in books.of("audit_entry"):
        detail = details.get(row["id"])
        if detail is not None:
            committed = hmac.digest(detail["key"], detail["detail"].encode(), "sha256")
            if committed != row["commitment"]:
                wrong.append(f"the detail of audit entry {row['id']} was changed")
    return wrong


def _root(entries: list[Row]) -> bytes:
    digest = hashlib.sha256(b"cardwright.audit-root.1\n")
    for row in entries:
        document = {name: _plain(name, row[name]) for name in HELD}
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        digest.update(hashlib.sha256(b"cardwright.audit-entry.1\n" + text.encode()).digest())
    return digest.digest()


def _plain(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _IDENTIFIERS:
        return str(UUID(value))
    if name == "created_at":
        return datetime.fromisoformat(value).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if name == "facts":
        return json.loads(value)
    return value.hex() if isinstance(value, bytes) else value
