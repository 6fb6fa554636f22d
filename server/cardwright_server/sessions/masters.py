"""Which secrets of cards need a version of a master key: those that were made by it and not replaced."""

from __future__ import annotations

from cardwright_cardops.plan.records import Kind

from ..store.unit import Unit
from ..vault.model import MasterPurpose
from . import store

DERIVED = {
    MasterPurpose.PUK: (Kind.PUK, Kind.PUK_SET),
    MasterPurpose.MANAGEMENT_KEY: (Kind.MANAGEMENT_KEY, Kind.MANAGEMENT_KEY_SET),
}


async def count(unit: Unit, purpose: MasterPurpose, version: int) -> int:
    """How many cards may have a value by that version."""
    return await store.count_by_master(unit, *DERIVED[purpose], version)
