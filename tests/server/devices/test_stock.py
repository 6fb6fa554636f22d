"""Stock: deliveries, all or none, and initial secrets that the database holds only as the vault sealed them."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cardwright_cardops.secret import Secret
from cardwright_server.authentication.errors import AccessDenied
from cardwright_server.authentication.principal import Principal
from cardwright_server.devices.errors import BadDevice, DeviceKnown, NoSuchDevice, TokenNumberIncomplete
from cardwright_server.devices.model import Derivation, DeviceState, Lot, SecretName, SecretSource
from cardwright_server.devices.stock import Delivered, SecretSealer
from cardwright_server.people.model import Role
from cardwright_server.policies.model import DeviceKind
from cardwright_server.store.ids import new_id
from cardwright_server.store.unit import Database
from cardwright_server.vault.model import DataClass, DataContext, MasterPurpose, Wrapped
from cardwright_server.vault.protocol import Vault
from tests.support.lifecycles import World, make_world
from tests.support.people import make_operator

CARD = DeviceKind.SMART_CARD


class SealingVault:
    """The two operations of a vault that stock needs, with a key of its own."""

    def __init__(self) -> None:
        self._key = AESGCM(secrets.token_bytes(32))

    async def seal_data(self, kind: DataClass, data: Secret, context: DataContext) -> Wrapped:
        assert kind is DataClass.INITIAL_SECRET
        nonce = secrets.token_bytes(12)
        return Wrapped(
            MasterPurpose.INITIAL_SECRET, 1, nonce + self._key.encrypt(nonce, data.reveal(), _bound(context))
        )

    def opened(self, wrapped: Wrapped, context: DataContext) -> bytes:
        return self._key.decrypt(wrapped.data[:12], wrapped.data[12:], _bound(context))


def _bound(context: DataContext) -> bytes:
    return f"{context.organization}/{context.owner}/{context.name}".encode()


@pytest.fixture
async def world(database: Database) -> World:
    return await make_world(database)


@pytest.fixture
def vault() -> SealingVault:
    return SealingVault()


@pytest.fixture
def sealer(vault: SealingVault) -> SecretSealer:
    as_vault: Any = vault
    checked: Vault = as_vault
    return SecretSealer(checked)


async def register(
    world: World, delivered: list[Delivered], lot: Lot | None = None, kind: DeviceKind | None = CARD
) -> Any:
    return await world.database.transact(
        lambda unit: world.services.stock.register(unit, world.issuer, kind, delivered, lot.id if lot else None)
    )


async def add_lot(world: World, lot: Lot, sealed: tuple[Any, ...] = ()) -> Lot:
    return await world.database.transact(
        lambda unit: world.services.stock.register_lot(unit, world.issuer, lot, sealed)
    )


def lot_of(world: World, source: SecretSource, derivation: Derivation = Derivation.NONE) -> Lot:
    return Lot(new_id(), world.org, f"lot {source}", CARD, source, derivation)


async def test_deliveries_are_all_or_none(world: World) -> None:
    first, second = Delivered(new_id(), "A-1"), Delivered(new_id(), "A-2")
    await register(world, [first])
    with pytest.raises(DeviceKnown, match="A-1"):
        await register(world, [second, Delivered(new_id(), " A-1 ")])
    with pytest.raises(NoSuchDevice):
        await world.device(second.id)
    await register(world, [Delivered(new_id(), "A-1")], kind=DeviceKind.USB_KEY)
    assert await world.state(first.id) is DeviceState.STOCK
    for serial in ("", " ", "x" * 81, "a\nb", "n\u00fcrnberg"):
        with pytest.raises(BadDevice):
            await register(world, [Delivered(new_id(), serial)])
    with pytest.raises(BadDevice):
        await register(world, [Delivered(new_id(), str(number)) for number in range(1001)])
    with pytest.raises(AccessDenied):
        await world.database.transact(
            lambda unit: world.services.stock.register(unit, world.helper, CARD, [Delivered(new_id(), "B")])
        )


async def test_secrets_of_every_source_come_back_through_the_vault_only(
    world: World, vault: SealingVault, sealer: SecretSealer, tmp_path: Path, engine_name: str
) -> None:
    puk, own, master = b"73914620", b"58203917", secrets.token_bytes(32)
    constant = lot_of(world, SecretSource.CONSTANT)
    await add_lot(world, constant, await sealer.seal(world.org, constant.id, {SecretName.PUK: Secret(puk)}))
    per_card = await add_lot(world, lot_of(world, SecretSource.PER_CARD))
    vendor = lot_of(world, SecretSource.VENDOR_MASTER, Derivation.SP800_108_CMAC)
    await add_lot(world, vendor, await sealer.seal(world.org, vendor.id, {SecretName.PUK: Secret(master)}))
    alike, derived = Delivered(new_id(), "C-1"), Delivered(new_id(), "V-1")
    single = await sealer.delivered(world.org, "P-1", {SecretName.PUK: Secret(own)})
    await register(world, [alike], constant)
    await register(world, [derived], vendor)
    await register(world, [single], per_card)
    for device, lot, name, value in (
        (alike, constant, SecretName.PUK, puk),
        (derived, vendor, SecretName.PUK, master),
        (single, per_card, SecretName.PUK, own),
    ):
        row = await world.device(device.id)
        found = await world.database.read(
            lambda unit: world.services.stock.initial_secrets(unit, row)  # noqa: B023
        )
        assert (found.source, found.derivation) == (lot.source, lot.derivation)
        assert set(found.sealed) == {name}
        assert (found.vendor is not None) is (lot is vendor)
        assert vault.opened(*found.sealed[name]) == value
    if engine_name == "sqlite":
        stored = b"".join(path.read_bytes() for path in tmp_path.glob("store.db*"))
        assert b"C-1" in stored
        for value in (puk, own, master):
            assert value not in stored and value.hex().encode() not in stored


async def test_devices_are_what_their_lot_says(world: World) -> None:
    lots = [
        await add_lot(world, replace(lot_of(world, SecretSource.FACTORY), name=f"lot {kind}", kind=kind))
        for kind in (DeviceKind.USB_KEY, DeviceKind.VIRTUAL_CARD, CARD)
    ]
    (key,) = await register(world, [Delivered(new_id(), "K-1")], lots[0], None)
    assert (await world.device(key)).kind is DeviceKind.USB_KEY
    for lot, kind in ((None, None), (lots[0], CARD)):
        with pytest.raises(BadDevice):
            await register(world, [Delivered(new_id(), "K-2")], lot, kind)
    stock = world.services.stock

    async def shown(by: Principal, **page: Any) -> list[Lot]:
        return await world.database.read(lambda unit: stock.find_lots(unit, by, **page))

    assert await shown(world.issuer) == lots
    assert await shown(world.issuer, after=lots[0].id, limit=1) == [lots[1]]
    elsewhere = await make_operator(world.database, uuid4(), Role.ISSUANCE)
    assert await shown(elsewhere) == []
    with pytest.raises(AccessDenied):
        await shown(world.helper)


async def test_lots_whose_secrets_do_not_fit(world: World, sealer: SecretSealer) -> None:
    for source, derivation, names in (
        (SecretSource.FACTORY, Derivation.NONE, [SecretName.PUK]),
        (SecretSource.CONSTANT, Derivation.NONE, []),
        (SecretSource.CONSTANT, Derivation.NONE, [SecretName.MASTER]),
        (SecretSource.VENDOR_MASTER, Derivation.SP800_108_CMAC, [SecretName.MANAGEMENT_KEY]),
        (SecretSource.VENDOR_MASTER, Derivation.SP800_108_CMAC, [SecretName.MASTER]),
        (SecretSource.VENDOR_MASTER, Derivation.NONE, [SecretName.MASTER]),
        (SecretSource.PER_CARD, Derivation.SP800_108_CMAC, []),
    ):
        lot = lot_of(world, source, derivation)
        sealed = await sealer.seal(world.org, lot.id, {name: Secret(b"12345678") for name in names})
        with pytest.raises(BadDevice):
            await add_lot(world, lot, sealed)
    for derivation in (Derivation.VISA2, Derivation.EMV_CPS):
        lot = await add_lot(world, replace(lot_of(world, SecretSource.VENDOR_MASTER, derivation), name=derivation))
        for serial in ("V-1", "4294967296", "0" * 19, "0123456789abcdefghij"):
            with pytest.raises(BadDevice, match="makes nothing of the serial number"):
                await register(world, [Delivered(new_id(), serial)], lot)
        good = "4294967295" if derivation is Derivation.VISA2 else "0123456789ABCDEF0123"
        await register(world, [Delivered(new_id(), good)], lot)
    lot = lot_of(world, SecretSource.CONSTANT)
    elsewhere = await sealer.seal(world.org, new_id(), {SecretName.PUK: Secret(b"12345678")})
    with pytest.raises(BadDevice):
        await add_lot(world, lot, elsewhere)
    with pytest.raises(BadDevice):
        await sealer.seal(world.org, lot.id, {SecretName.PUK: Secret(b"")})
    factory = await add_lot(world, lot_of(world, SecretSource.FACTORY))
    with pytest.raises(DeviceKnown):
        await add_lot(world, lot_of(world, SecretSource.FACTORY))
    own = await sealer.delivered(world.org, "F-1", {SecretName.PUK: Secret(b"12345678")})
    with pytest.raises(BadDevice):
        await register(world, [own], factory)
    with pytest.raises(BadDevice):
        await register(world, [Delivered(new_id(), "F-2")], factory, DeviceKind.USB_KEY)


@pytest.mark.parametrize("number", ["1f2e3d4c5b6a7988", "SoftHSM project:1f2e3d4c5b6a7988", "x" * 40 + ":1"])
async def test_a_token_is_not_registered_by_what_nobody_would_find_it_by(world: World, number: str) -> None:
    whole = Delivered(new_id(), "SoftHSM-project:1f2e3d4c5b6a7988")
    with pytest.raises(TokenNumberIncomplete) as caught:
        await register(world, [whole, Delivered(new_id(), number)], kind=DeviceKind.PKCS11_TOKEN)
    assert caught.value.code == "TOKEN_NUMBER_INCOMPLETE" and "SoftHSM-project:" in caught.value.advice
    with pytest.raises(NoSuchDevice):
        await world.device(whole.id)
    await register(world, [whole], kind=DeviceKind.PKCS11_TOKEN)
    await register(world, [Delivered(new_id(), "1f2e3d4c5b6a7988")])


async def test_a_device_without_a_lot_has_factory_secrets(world: World) -> None:
    row = await world.device(await world.stock())
    found = await world.database.read(lambda unit: world.services.stock.initial_secrets(unit, row))
    assert (found.source, dict(found.sealed)) == (SecretSource.FACTORY, {})
