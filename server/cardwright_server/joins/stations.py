"""``sessions.desk.Stations``: which workstations' word about a key counts."""

from __future__ import annotations

from uuid import UUID

from ..workstations.model import StationClass, Workstation

MOST = 100_000


class KnownStations:
    """Classes of the workstations that came to this process. A class never changes, so nothing goes stale."""

    def __init__(self) -> None:
        self._trusted: set[UUID] = set()

    def note(self, station: Workstation) -> None:
        """One was recognized."""
        if station.station_class is StationClass.ISSUANCE and len(self._trusted) < MOST:
            self._trusted.add(station.id)

    def is_trusted(self, workstation: UUID | None) -> bool:
        """See ``Stations``: only those that were enrolled for issuance."""
        return workstation in self._trusted
