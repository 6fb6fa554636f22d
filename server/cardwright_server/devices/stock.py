"""Stock: devices as they are delivered, in lots, with initial secrets that only the vault can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from cardwright_cardops.plan.token import is_number
from cardwright_cardops.secret import Secret

from ..acting import part_for
from ..audit.model import AuditEntry, Target
from ..authentication.authorize import Authorize, CallTarget
from ..authentication.matrix import Call
from ..authentication.principal import Principal
from ..notify.model import DomainEvent
from ..policies.model import DeviceKind
from ..store.ids import new_id
from ..store.unit import Unit
from ..vault.model import DataClass, DataContext, MasterPurpose, VendorCard, Wrapped
from ..vault.protocol import Vault
from . import store
from .errors import BadDevice, DeviceKnown, NoSuchDevice, TokenNumberIncomplete
from .lifecycle import DeviceLifecycle
from .machine import DEVICE
from .model import Derivation, Device, DeviceEvent, Lot, SecretName, SecretSource, derivation_data

LONGEST_SERIAL = 80
MOST_AT_ONCE = 1000
LONGEST_NAME = 60


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """A secret as the vault sealed it for its owner (a lot or a device)."""

    owner: UUID
    name: SecretName
    wrapped: Wrapped


@dataclass(frozen=True, slots=True)
class Delivered:
    """A device as it is delivered: its serial number and, for per-card lots, its own sealed secrets."""

    id: UUID
    serial: str
    secrets: tuple[SealedSecret, ...] = ()


@dataclass(frozen=True, slots=True)
class InitialSecrets:
    """What a new card's secrets are: where they come from, and what the vault needs to open or to make them.

    ``vendor``: whose master key the vault makes the management key of.
    """

    source: SecretSource
    derivation: Derivation = Derivation.NONE
    sealed: Mapping[SecretName, tuple[Wrapped, DataContext]] = field(default_factory=dict)
    vendor: VendorCard | None = None


def context_of(org: UUID, owner: UUID, name: SecretName) -> DataContext:
    """What a sealed initial secret is bound to."""
    return DataContext(str(org), str(owner), f"initial-{name}")


class SecretSealer:
    """Seals initial secrets before the unit that keeps them; nothing of them is ever in the database in clear."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def seal(self, org: UUID, owner: UUID, secrets: Mapping[SecretName, Secret]) -> tuple[SealedSecret, ...]:
        """Seal an owner's secrets. Raises BadDevice for an empty one, and the errors of the vault."""
        if not all(secrets.values()):
            raise BadDevice("an initial secret is empty")
        return tuple(
            [
                SealedSecret(
                    owner,
                    name,
                    await self._vault.seal_data(DataClass.INITIAL_SECRET, secret, context_of(org, owner, name)),
                )
                for name, secret in secrets.items()
            ]
        )

    async def delivered(self, org: UUID, serial: str, secrets: Mapping[SecretName, Secret]) -> Delivered:
        """A device of a per-card lot. Raises as ``seal``."""
        identifier = new_id()
        return Delivered(identifier, serial, await self.seal(org, identifier, secrets))


class StockService:
    """Lots and deliveries. Stateless."""

    def __init__(self, authorize: Authorize, lifecycle: DeviceLifecycle) -> None:
        self._authorize = authorize
        self._lifecycle = lifecycle

    async def may_register_lot(self, unit: Unit, principal: Principal) -> UUID:
        """The organization whose lots the caller may add: asked before the vault seals anything.

        Raises AuthorizationError.
        """
        await self._authorize(unit, principal, Call("DeviceService.RegisterLot"), CallTarget(principal.org))
        return principal.org

    async def may_register(self, unit: Unit, principal: Principal) -> UUID:
        """As ``may_register_lot``, for devices."""
        await self._authorize(unit, principal, Call("DeviceService.Register"), CallTarget(principal.org))
        return principal.org

    async def register_lot(
        self,
        unit: Unit,
        principal: Principal,
        lot: Lot,
        secrets: Sequence[SealedSecret] = (),
    ) -> Lot:
        """Add a lot with the secrets that all its devices share. ``lot.id`` is the owner that they are sealed for.

        Raises AuthorizationError, BadDevice, DeviceKnown.
        """
        await self._authorize(unit, principal, Call("DeviceService.RegisterLot"), CallTarget(principal.org))
        _check_lot(principal.org, lot, secrets)
        if not await store.insert_lot(unit, lot):
            raise DeviceKnown("there is a lot of this name already")
        await store.insert_secrets(unit, [_row(lot.org, secret) for secret in secrets])
        facts = {"kind": lot.kind.value, "source": lot.source.value, "secrets": len(secrets)}
        unit.audit(
            AuditEntry(lot.org, principal.who, "device.lot-registered", Target("device-lot", lot.id), facts=facts)
        )
        unit.emit(DomainEvent(lot.org, "device.lot-registered", "device-lot", lot.id, data=facts))
        return lot

    async def register(
        self,
        unit: Unit,
        principal: Principal,
        kind: DeviceKind | None,
        delivered: Sequence[Delivered],
        lot: UUID | None = None,
    ) -> list[UUID]:
        """Take devices into stock, all or none. ``kind`` may be None with a lot, whose kind they then have.

        Raises AuthorizationError, BadDevice, TokenNumberIncomplete, DeviceKnown, NoSuchDevice.
        """
        call = Call("DeviceService.Register")
        permission = await self._authorize(unit, principal, call, CallTarget(principal.org))
        if len(delivered) > MOST_AT_ONCE:
            raise BadDevice(f"at most {MOST_AT_ONCE} devices are registered at once")
        source, derivation = SecretSource.FACTORY, Derivation.NONE
        if lot is not None:
            of = await self._lot(unit, principal.org, lot)
            source, derivation = of.source, of.derivation
            kind = kind or of.kind
            if of.kind is not kind:
                raise BadDevice(f"the lot holds devices of the kind {of.kind}, these are of the kind {kind}")
        if kind is None:
            raise BadDevice("without a lot it has to be said what the devices are")
        actor = part_for(DEVICE, None, DeviceEvent.REGISTER, permission)
        for one in delivered:
            _check(kind, one, source)
            if derivation is not Derivation.NONE and derivation_data(derivation, one.serial.strip()) is None:
                raise BadDevice(f"the KDF {derivation} of this lot makes nothing of the serial number {one.serial}")
            values: dict[str, Any] = {"id": one.id, "kind": kind, "serial": one.serial.strip(), "lot": lot}
            if await self._lifecycle.register(unit, principal, actor, values) is None:
                raise DeviceKnown(f"a {kind} with the serial number {one.serial} is registered already")
            await store.insert_secrets(unit, [_row(principal.org, secret) for secret in one.secrets])
        return [one.id for one in delivered]

    async def find_lots(
        self, unit: Unit, principal: Principal, *, after: UUID | None = None, limit: int = 50
    ) -> list[Lot]:
        """Lots, oldest first, from beyond ``after``; without their secrets. Raises AuthorizationError."""
        await self._authorize(unit, principal, Call("DeviceService.FindLots"), CallTarget(principal.org))
        return await store.lots(unit, principal.org, after, limit)

    async def initial_secrets(self, unit: Unit, device: Device) -> InitialSecrets:
        """Where a device's first secrets come from; asked by the card session before its first life's first write.

        After recycling the card has factory values or those of its last generation, not these.
        """
        if device.lot is None:
            return InitialSecrets(SecretSource.FACTORY)
        lot = await self._lot(unit, device.org, device.lot)
        sealed: dict[SecretName, tuple[Wrapped, DataContext]] = {}
        for row in await store.secrets(unit, device.org, (lot.id, device.id)):
            name = SecretName(row.name)
            wrapped = Wrapped(MasterPurpose(row.master), row.master_version, row.sealed)
            sealed[name] = (wrapped, context_of(device.org, row.owner, name))
        data = derivation_data(lot.derivation, device.serial)
        vendor = None if data is None else VendorCard(str(lot.id), str(device.id), data)
        return InitialSecrets(lot.source, lot.derivation, sealed, vendor)

    async def _lot(self, unit: Unit, org: UUID, identifier: UUID) -> Lot:
        found = await store.lot(unit, org, identifier)
        if found is None:
            raise NoSuchDevice("there is no such lot")
        return found


def _row(org: UUID, secret: SealedSecret) -> dict[str, Any]:
    wrapped = secret.wrapped
    return {
        "org": org,
        "owner": secret.owner,
        "name": secret.name,
        "master": wrapped.key.value,
        "master_version": wrapped.version,
        "sealed": wrapped.data,
    }


def _check_lot(org: UUID, lot: Lot, secrets: Sequence[SealedSecret]) -> None:
    names = [secret.name for secret in secrets]
    wanted = {
        SecretSource.FACTORY: not names,
        SecretSource.PER_CARD: not names,
        SecretSource.CONSTANT: bool(names) and SecretName.MASTER not in names,
        SecretSource.VENDOR_MASTER: {SecretName.PIN, SecretName.PUK}.issuperset(names),
    }
    if lot.org != org or any(secret.owner != lot.id for secret in secrets):
        raise BadDevice("the lot's secrets are sealed for something else")
    if SecretName.MASTER in names:
        raise BadDevice("a vendor's master key is imported into the vault, and comes in no other way")
    if not wanted[lot.source] or len(set(names)) != len(names):
        raise BadDevice(f"these are not the secrets of a lot of the kind {lot.source}")
    if (lot.derivation is Derivation.NONE) != (lot.source is not SecretSource.VENDOR_MASTER):
        raise BadDevice("a derivation belongs to a vendor's master key, and to nothing else")
    if not 0 < len(lot.name) <= LONGEST_NAME or not lot.name.isprintable():
        raise BadDevice(f"a lot has a name of 1 to {LONGEST_NAME} characters")


def _check(kind: DeviceKind, one: Delivered, source: SecretSource) -> None:
    serial = one.serial.strip()
    if not 0 < len(serial) <= LONGEST_SERIAL or not (serial.isascii() and serial.isprintable()):
        raise BadDevice(f"a serial number has 1 to {LONGEST_SERIAL} printable ASCII characters")
    if kind is DeviceKind.PKCS11_TOKEN and not is_number(serial):
        raise TokenNumberIncomplete(f"{serial} is no number of a PKCS#11 token")
    if bool(one.secrets) != (source is SecretSource.PER_CARD) or any(row.owner != one.id for row in one.secrets):
        raise BadDevice("each device of a per-card lot comes with secrets of its own, and none of another lot does")
    if any(secret.name is SecretName.MASTER for secret in one.secrets):
        raise BadDevice("a single card has no master key")
