"""``escrow.service.Rules`` by devices and their policies."""

from __future__ import annotations

from uuid import UUID

from ..devices.errors import NoSuchDevice
from ..devices.lifecycle import DeviceLifecycle
from ..devices.model import Device
from ..policies.errors import NoSuchPolicy
from ..policies.model import Policy
from ..policies.service import PolicyService
from ..store.unit import Unit


class CardPolicies:
    """The version that is in force decides, not the one that a card was made by: what is forbidden is so at once."""

    def __init__(self, lifecycle: DeviceLifecycle, policies: PolicyService) -> None:
        self._lifecycle = lifecycle
        self._policies = policies

    async def allows_files(self, unit: Unit, org: UUID, device: UUID) -> bool:
        """See ``Rules``. A device that has no policy any more, because it was recycled, forbids nothing."""
        _, policy = await self._found(unit, org, device)
        return policy is None or policy.files

    async def allows_recovery(self, unit: Unit, org: UUID, device: UUID) -> bool:
        """See ``Rules``."""
        found, policy = await self._found(unit, org, device)
        return found is None or not found.temporary or policy is None or policy.recovers_to_temporary

    async def _found(self, unit: Unit, org: UUID, device: UUID) -> tuple[Device | None, Policy | None]:
        try:
            found = await self._lifecycle.device(unit, org, device)
            if found.policy is None:
                return found, None
            return found, (await self._policies.in_force(unit, org, found.policy)).document
        except NoSuchDevice:
            return None, None
        except NoSuchPolicy:
            return found, None
