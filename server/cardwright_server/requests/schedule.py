"""What the clock brings about: requests that lapse, devices that expire, renewals asked for, holders warned."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from ..authentication.principal import server
from ..devices.due import DueList
from ..devices.model import Reason
from ..devices.service import DeviceService
from ..store.lease import acquire, new_holder
from ..store.unit import Database, Unit
from .errors import RequestNotPossible
from .service import RequestService

LEASE = "due-scheduler"
LEASE_LENGTH = timedelta(minutes=2)
BATCH = 50


@dataclass(frozen=True, slots=True)
class Run:
    """How much one run did."""

    lapsed: int = 0
    ended: int = 0
    requested: int = 0
    warned: int = 0


class Scheduler:
    """One of several processes at a time does the work; batches are units of their own, safe to repeat."""

    def __init__(
        self, database: Database, devices: DeviceService, requests: RequestService, due: DueList, batch: int = BATCH
    ) -> None:
        self._database = database
        self._devices = devices
        self._requests = requests
        self._due = due
        self._batch = batch
        self._holder: UUID = new_holder()

    async def run(self) -> Run | None:
        """Do everything that the clock wants by now; None while another process does. Raises StoreError."""
        lapsed = await self._repeat(lambda unit: self._requests.expire(unit, self._batch))
        if lapsed is None:
            return None
        ended = await self._repeat(lambda unit: self._devices.expire(unit, self._batch))
        requested = await self._repeat(self._ask)
        replaced = await self._repeat(self._ask_for_another)
        warned = await self._repeat(lambda unit: self._due.warn(unit, self._batch))
        return Run(lapsed, ended or 0, (requested or 0) + (replaced or 0), warned or 0)

    async def _repeat(self, work: Callable[[Unit], Awaitable[int]]) -> int | None:
        total = 0
        while True:
            done = await self._database.transact(lambda unit: self._held(unit, work))
            if done is None:
                return None
            total += done
            if done < self._batch:
                return total

    async def _held(self, unit: Unit, work: Callable[[Unit], Awaitable[int]]) -> int | None:
        if await acquire(unit, LEASE, self._holder, LEASE_LENGTH) is None:
            return None
        return await work(unit)

    async def _ask_for_another(self, unit: Unit) -> int:
        """A card whose certificates end with it is not renewed: its holder will need another one."""
        taken = await self._due.to_replace(unit, self._batch)
        for org, device in taken:
            try:
                await self._requests.create_replacement(unit, server(org), device, Reason.RENEWED)
            except RequestNotPossible:
                continue  # as in ``_ask``
        return len(taken)

    async def _ask(self, unit: Unit) -> int:
        taken = await self._due.to_request(unit, self._batch)
        for org, device, _ in taken:
            try:
                await self._requests.create_update(unit, server(org), device)
            except RequestNotPossible:
                continue  # it went out of use in this very unit; what is due stays on its list
        return len(taken)
