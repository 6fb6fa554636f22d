"""Consumers of events: what one domain does because of what happened in another."""

from __future__ import annotations

from typing import Final

from ..audit.model import SERVER
from ..devices.service import DeviceService
from ..issuance import status, store
from ..issuance.model import HolderKind, RevocationReason
from ..machine import Actor
from ..notify.store import Recorded
from ..people.model import PersonStatus
from ..store.unit import Unit

STATUS_CHANGED: Final = "person.status-changed"
STATION_REVOKED: Final = "workstation.revoked"
KEY_REMOVED: Final = "operator.key-removed"


class DevicesFollowPeople:
    """Devices of a person who was suspended, came back or left."""

    name = "devices-follow-people"
    names = frozenset((STATUS_CHANGED,))

    def __init__(self, devices: DeviceService) -> None:
        self._devices = devices

    async def handle(self, unit: Unit, event: Recorded) -> None:
        """See ``Consumer``."""
        if event.name == STATUS_CHANGED:
            status_now = PersonStatus(str(event.data["after"]))
            await self._devices.follow_person(unit, event.org, event.subject, status_now)


class CertificatesFollowChannels:
    """Certificates of workstations that were revoked, and of keys that operators no longer have."""

    name = "certificates-follow-channels"
    names = frozenset((STATION_REVOKED, KEY_REMOVED))

    async def handle(self, unit: Unit, event: Recorded) -> None:
        """See ``Consumer``."""
        match event.name:
            case name if name == STATION_REVOKED:
                gone = await store.certificates_of_holder(unit, event.org, HolderKind.WORKSTATION, event.subject)
            case name if name == KEY_REMOVED:
                mark = str(event.data["spki"])
                held = [
                    one
                    for kind in (HolderKind.OPERATOR, HolderKind.SERVICE)
                    for one in await store.certificates_of_holder(unit, event.org, kind, event.subject)
                ]
                gone = [one for one in held if one.key == mark]
            case _:
                return
        await status.revoke(unit, SERVER, Actor.SERVER, gone, RevocationReason.CESSATION_OF_OPERATION)
