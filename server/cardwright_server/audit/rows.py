"""An entry as rows: one for the chain, and one beside it for what people may ask us to forget."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import datetime
from typing import Any

from ..store.columns import canonical
from ..store.ids import new_id
from .model import AuditEntry

_KEY = 32


def commitment(key: bytes, detail: str) -> bytes:
    """HMAC-SHA-256 of the detail's text. With the key erased, nobody can try names against it."""
    return hmac.digest(key, detail.encode(), hashlib.sha256)


def rows_of(entry: AuditEntry, now: datetime) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The rows of ``audit_entry`` and, if there is personal detail, of ``audit_detail``, with the same id."""
    identifier = new_id()
    personal = dict(entry.personal)
    if entry.who.address:
        personal["address"] = entry.who.address
    detail: dict[str, Any] | None = None
    if personal:
        key, text = secrets.token_bytes(_KEY), canonical(personal)
        detail = {
            "id": identifier,
            "org": entry.org,
            "created_at": now,
            "person": entry.who.person,
            "about": entry.about or (entry.target.id if entry.target.kind == "person" else None),
            "key": key,
            "detail": text,
        }
    row = {
        "id": identifier,
        "org": entry.org,
        "created_at": now,
        "action": entry.action,
        "outcome": entry.outcome.value,
        "who_kind": entry.who.kind,
        "who": entry.who.id,
        "person": entry.who.person,
        "methods": " ".join(entry.who.methods),
        "front": entry.who.front,
        "target_kind": entry.target.kind,
        "target": entry.target.id,
        "facts": dict(entry.facts),
        "commitment": None if detail is None else commitment(detail["key"], detail["detail"]),
        "correlation": entry.correlation,
        "session": entry.session,
    }
    return row, detail
