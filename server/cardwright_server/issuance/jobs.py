"""What has to happen without anybody asking: lists published, own certificates renewed, crashes repaired."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from ..audit.model import SERVER
from ..store.unit import Database
from .crl import CrlPublisher
from .own import OwnCertificates
from .service import IssuanceService

PUBLISH_EVERY: Final = timedelta(seconds=20)
"""So that a change is out within a minute."""
REPAIR_EVERY: Final = timedelta(minutes=1)
RENEW_EVERY: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Job:
    """One thing that is done again and again. Each is safe in several processes at once."""

    name: str
    every: timedelta
    work: Callable[[], Awaitable[object]]


def jobs(
    database: Database, service: IssuanceService, own: OwnCertificates, publisher: CrlPublisher
) -> tuple[Job, ...]:
    """The jobs of issuance."""

    async def repair() -> None:
        await service.recover(database, SERVER)
        await service.collect(database, SERVER)

    async def renew() -> None:
        # Looked at first: what cannot be renewed must raise its alarm all the same.
        await own.watch(database)
        await own.renew(database, SERVER)
        await own.watch(database)

    return (
        Job("publish-crl", PUBLISH_EVERY, lambda: publisher.publish_due(database)),
        Job("repair-certificates", REPAIR_EVERY, repair),
        Job("renew-own-certificates", RENEW_EVERY, renew),
    )
