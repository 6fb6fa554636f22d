"""When a device's PUK may leave the vault, and that this is on record before it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from ..audit.model import AuditEntry, Fact, Target
from ..authentication.principal import Principal
from ..notify.model import DomainEvent
from ..policies.model import Policy
from ..store.unit import Unit
from . import store
from .consequences import DeviceRequests
from .due import DueList, What
from .errors import PukRefused
from .lifecycle import DeviceLifecycle
from .model import Device, DeviceState


@dataclass(frozen=True, slots=True)
class PukOccasion:
    """Where a PUK would go: the unlock request and session that want it, and through what kind of channel.

    ``card_proved``: the card proved itself by its card authentication key in this session. ``sealed``: only the card
    can read it. ``trusted``: the workstation is a trusted station.
    """

    request: UUID
    session: UUID
    workstation: UUID | None = None
    card_proved: bool = False
    sealed: bool = False
    trusted: bool = False


class PukRelease:
    """The check and the record. The caller has authorized its own call, and asks the vault after the commit."""

    def __init__(self, lifecycle: DeviceLifecycle, requests: DeviceRequests, due: DueList) -> None:
        self._lifecycle = lifecycle
        self._requests = requests
        self._due = due

    async def record(self, unit: Unit, principal: Principal, device: UUID, occasion: PukOccasion) -> Device:
        """Write down that the PUK leaves, tell its owner, and ask for a new one at the next better contact.

        Raises NoSuchDevice, and PukRefused with every condition that does not hold: the card proved itself, the device
        is issued without hold or incident, this session carries out a request for it, and the policy lets this
        workstation see secrets.
        """
        found = await self._lifecycle.device(unit, principal.org, device)
        policy = await self._lifecycle.policy_of(unit, found)
        holds = await store.holds(unit, device)
        executing = await self._requests.is_executing(unit, principal.org, device, occasion.request, occasion.session)
        wrong = dict(_wrong(found, policy.document if policy else None, bool(holds), executing, occasion))
        if wrong:
            raise PukRefused(list(wrong.values()), list(wrong))
        facts: dict[str, Fact] = {
            "request": str(occasion.request),
            "workstation": None if occasion.workstation is None else str(occasion.workstation),
            "sealed": occasion.sealed,
        }
        target = Target("device", device)
        unit.audit(
            AuditEntry(
                principal.org, principal.who, "device.puk-released", target, facts=facts, session=occasion.session
            )
        )
        unit.emit(DomainEvent(principal.org, "device.puk-released", "device", device, found.person, dict(facts)))
        if not occasion.sealed:
            await self._due.put(unit, principal.org, device, What.SECRETS, unit.now)
        return found


def _wrong(
    device: Device, policy: Policy | None, held: bool, executing: bool, occasion: PukOccasion
) -> Iterator[tuple[str, str]]:
    if not occasion.card_proved:
        yield "CARD_NOT_PROVED", "the card has not proved itself"
    if device.state is not DeviceState.ISSUED or held:
        yield "NOT_IN_USE", "the device is not in use, or is held"
    if not executing:
        yield "NO_REQUEST", "no request for it is being carried out in this session"
    if policy is None or not (occasion.sealed or policy.clear_secrets.allows(trusted=occasion.trusted)):
        yield "CLEAR_CHANNEL", "the policy does not let this workstation see secrets"
