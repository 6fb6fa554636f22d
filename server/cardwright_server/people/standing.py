"""Where persons and accounts stand now: what authorization reads at every call."""

from __future__ import annotations

from uuid import UUID

from ..authentication.authorize import AccountStanding, PersonStanding
from ..store.unit import Unit
from . import store
from .model import AccountKind, Grant, PersonStatus, Reach
from .naming import branch_path


class PeopleStandings:
    """Standings from people's tables. It has no state."""

    async def account(self, unit: Unit, operator: UUID, key: bytes, known_version: int) -> AccountStanding | None:
        """See ``authorize.Standings``: one statement while nothing changed, three after a change."""
        row = await store.account_standing(unit, operator)
        if row is None:
            return None
        human = row.kind == AccountKind.PERSON
        active = row.active and (not human or row.status == PersonStatus.ACTIVE)
        if row.role_version == known_version:
            return AccountStanding(row.org, active, row.role_version, None)
        active = active and await store.has_key(unit, operator, key)
        return AccountStanding(row.org, active, row.role_version, await store.grants_of(unit, operator))

    async def person(self, unit: Unit, person: UUID) -> PersonStanding | None:
        """See ``authorize.Standings``: one statement."""
        found = await store.standing(unit, person)
        if found is None:
            return None
        row, groups = found
        return PersonStanding(row.org, PersonStatus(row.status), groups, row.path)

    def covers(self, grant: Grant, standing: PersonStanding) -> bool:
        """See ``authorize.Standings``."""
        match grant.scope.reach:
            case Reach.EVERYWHERE:
                return True
            case Reach.GROUP:
                return grant.scope.group in standing.groups
            case Reach.BRANCH:
                return bool(standing.path) and standing.path.startswith(branch_path(grant.scope.branch))
