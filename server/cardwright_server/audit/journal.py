"""What stands beside the chain about persons who were erased is erased again after a restore (S13)."""

from __future__ import annotations

from ..people.journal import erased
from ..store.second_medium import Remembered
from ..store.unit import Unit
from .service import erase


async def replay(unit: Unit, remembered: Remembered) -> bool:
    """Forget again; whether there was anything. Events of other domains are passed over."""
    person = erased(remembered)
    return person is not None and await erase(unit, remembered.event.org, person) > 0
