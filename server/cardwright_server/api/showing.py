"""Values that may be missing, as answers carry them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from . import reading as read


def identifier(value: UUID | None) -> str:
    """A UUID, or an empty field."""
    return "" if value is None else str(value)


def moment(value: datetime | None) -> Any:
    """A Timestamp, or None for a field that is not set; the generated types of constructors do not know of None."""
    return None if value is None else read.stamp(value)
