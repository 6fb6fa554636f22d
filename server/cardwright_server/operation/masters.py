"""What a rotation of a master key leaves behind: sealed anew in small steps, and the old version destroyed last.

Archived keys and initial secrets are sealed by the vault under a version of a master key. After a rotation older seals
are replaced, some at a time, by whichever process comes first: which rows are left says how far it is, so a step that
was broken off is simply done again. A new seal is on the second medium before it counts, because a restored database
could not open the old one any more. PUKs and management keys are derived, not sealed: cards get new ones at their next
sessions, and until then their version stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from math import ceil
from typing import Final, Protocol

from cardwright_cardops.errors import CardwrightError

from ..sessions import masters as sessions
from ..store.unit import Database, Unit
from ..vault.errors import VaultLocked
from ..vault.model import LockState, MasterPurpose, VaultStatus
from ..vault.protocol import Vault

AT_ONCE: Final = 50
"""Seals that one step replaces: one call of the vault each, and one transaction for all."""
SETTLED: Final = timedelta(hours=1)
"""How long after a rotation its predecessor is not destroyed: what was sealed before may be committed after it."""


class MasterInUse(CardwrightError):
    """Something still needs this version of a master key. ``left``: how many things."""

    code = "MASTER_IN_USE"
    default_effect = "Nothing was destroyed."
    default_advice = (
        "Wait until the server has sealed everything anew; for PUKs and management keys, until the cards had a session."
    )

    def __init__(self, message: str, left: int = 0) -> None:
        super().__init__(message)
        self.left = left


class MasterCurrent(CardwrightError):
    """The version of a master key that is in use now."""

    code = "MASTER_CURRENT"
    default_effect = "Nothing was destroyed."
    default_advice = "Rotate the master key first; then, when nothing needs the old version any more, destroy that."


class MasterUnknown(CardwrightError):
    """The vault has no such version of a master key: it never was, or is destroyed."""

    code = "MASTER_UNKNOWN"
    default_effect = "Nothing was destroyed."
    default_advice = "Look for the number: versions are counted from 1, and rotating says the new one."


class MasterSettling(CardwrightError):
    """What was sealed by this version of a master key may still be on its way to the database.

    ``retry_after`` is in seconds.
    """

    code = "MASTER_SETTLING"
    default_effect = "Nothing was destroyed."
    default_advice = "Try again an hour after the rotation; where the vault cannot tell when that was, after its start."

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"The vault cannot say that it was rotated an hour ago; it can in {retry_after} s.")
        self.retry_after = retry_after


def require_old(vault: VaultStatus, purpose: MasterPurpose, version: int) -> None:
    """Whether a version of a master key is one that another took the place of long enough ago, by the vault's word.

    Raises VaultLocked, MasterUnknown, MasterCurrent, MasterSettling.
    """
    if vault.state is not LockState.UNLOCKED:
        raise VaultLocked("The vault is locked.")
    ages = vault.ages.get(purpose)
    if ages is None:  # a vault of an older program, which runs still
        raise MasterSettling(int(SETTLED.total_seconds()))
    if version not in ages:
        raise MasterUnknown(f"There is no version {version} of the {purpose} master.")
    after = [number for number in ages if number > version]
    if not after:
        raise MasterCurrent(f"Version {version} of the {purpose} master is the current one.")
    left = SETTLED.total_seconds() - ages[min(after)]
    if left > 0:
        raise MasterSettling(ceil(left))


class Seals(Protocol):
    """What a domain keeps under versions of one master key."""

    @property
    def purpose(self) -> MasterPurpose:
        """Which master key."""

    async def count(self, unit: Unit, *, version: int | None = None, before: int | None = None) -> int:
        """How many seals are by that version, or by older ones."""

    async def step(self, version: int, limit: int) -> int:
        """Replace some by older versions; 0 if there were none. Safe to repeat. Raises VaultError, StoreError."""


class Masters:
    """Replaces seals by older versions, and says what still needs one."""

    def __init__(self, database: Database, vault: Vault, seals: Sequence[Seals]) -> None:
        self._database = database
        self._vault = vault
        self._seals = tuple(seals)
        self.left: Mapping[MasterPurpose, int] = {one.purpose: 0 for one in seals}
        """Seals by older versions, as of the last look."""

    async def run(self) -> None:
        """Until nothing is left. Raises VaultError (VaultQuota: the rest comes later), StoreError."""
        while any((await self.look()).values()) and await self.step():
            pass

    async def look(self) -> Mapping[MasterPurpose, int]:
        """How many seals are by older versions, now: one statement for each kind."""
        current = (await self._vault.status()).masters

        async def count(unit: Unit) -> dict[MasterPurpose, int]:
            return {one.purpose: await one.count(unit, before=current[one.purpose]) for one in self._seals}

        if current:
            self.left = await self._database.read(count, timed=False)
        return self.left

    async def step(self) -> int:
        """Replace some of each kind; how many. Raises VaultError, StoreError."""
        current = (await self._vault.status()).masters
        done = [await one.step(current[one.purpose], AT_ONCE) for one in self._seals if self.left[one.purpose]]
        return sum(done)

    async def require_unused(self, unit: Unit, purpose: MasterPurpose, version: int) -> None:
        """Raises MasterInUse while anything in the database needs that version."""
        if purpose in sessions.DERIVED:
            left = await sessions.count(unit, purpose, version)
        else:
            counts = [await one.count(unit, version=version) for one in self._seals if one.purpose is purpose]
            left = sum(counts)
        if left:
            raise MasterInUse(f"Version {version} of the {purpose} master is needed by {left} things.", left)
