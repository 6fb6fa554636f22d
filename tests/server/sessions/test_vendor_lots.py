"""Cards of a lot whose management keys a vendor derived: opened by the vault, which alone has the vendor's master."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import UUID

import pytest

from cardwright_cardops.secret import Secret
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.devices.model import Derivation, Lot, SecretName, SecretSource
from cardwright_server.devices.stock import Delivered, SecretSealer
from cardwright_server.policies.model import DeviceKind
from cardwright_server.store.ids import new_id
from cardwright_server.store.unit import Database, Unit
from cardwright_server.vault.model import VendorKdf
from cardwright_simulators.card import VirtualCard
from tests.support.session_world import SessionWorld, blank, make_session_world
from tests.support.vault import PASSPHRASE
from tests.support.vendor_keys import derived

CURVES = (('algorithm = "rsa2048"', 'algorithm = "p256"'),)
MASTER, TDEA = bytes(range(32)), bytes.fromhex("404142434445464748494a4b4c4d4e4f")
SERIAL = 12345678
DATA = {
    "sp800-108-cmac": str(SERIAL).encode(),
    "visa2": bytes(4) + SERIAL.to_bytes(4, "big") + bytes(2),
    "emv-cps": bytes(4) + SERIAL.to_bytes(4, "big") + bytes(2),
}
KINDS = {"sp800-108-cmac": "yubikey-5.7", "visa2": "tdes-only", "emv-cps": "yubikey-5.4"}


@pytest.fixture
async def here(open_database: Callable[..., Database], tmp_path: Path) -> AsyncIterator[SessionWorld]:
    """One organization."""
    made = await make_session_world(open_database(), tmp_path, "civ", CURVES)
    yield made
    made.issuing.core.close()


@pytest.fixture
def engine_name() -> str:
    """What a session does to a card is the same on both engines."""
    return "sqlite"


def master_of(kdf: str) -> bytes:
    """The vendor's."""
    return MASTER if kdf == "sp800-108-cmac" else TDEA


def delivered(kdf: str, puk: bytes = b"12345678") -> VirtualCard:
    """A card as the vendor delivers it: its management key is what openssl makes of master and number."""
    card = blank(KINDS[kdf])
    raw = json.loads(card.snapshot())
    raw["management"] |= {"value": derived(kdf, master_of(kdf), DATA[kdf], 24).hex(), "default": False}
    raw["references"]["81"] |= {"value": puk.hex(), "default": puk == b"12345678"}
    return VirtualCard.restore(json.dumps(raw).encode())


async def lot(here: SessionWorld, kdf: str, puk: bytes = b"") -> tuple[Lot, UUID]:
    """A lot with one device, bound to a person."""
    made = Lot(new_id(), here.org, "Delivery", DeviceKind.SMART_CARD, SecretSource.VENDOR_MASTER, Derivation(kdf))
    sealed = await SecretSealer(here.issuing.vault).seal(
        here.org, made.id, {SecretName.PUK: Secret(puk)} if puk else {}
    )
    one, person, issuer = Delivered(new_id(), str(SERIAL)), await here.person(), here.world.issuer

    async def work(unit: Unit) -> None:
        await here.world.free.stock.register_lot(unit, issuer, made, sealed)
        await here.world.free.stock.register(unit, issuer, DeviceKind.SMART_CARD, [one], made.id)
        await here.world.services.devices.bind(unit, issuer, one.id, person.id)

    await here.database.transact(work)
    return made, one.id


async def brought(here: SessionWorld, lot: Lot, master: bytes, kdf: str) -> None:
    """The ceremony."""
    admin = here.issuing.vault.admin(PASSPHRASE)
    await admin.import_vendor_master(str(lot.id), VendorKdf(kdf), Secret(master))


@pytest.mark.parametrize("kdf", KINDS)
async def test_a_card_is_issued_by_the_key_that_its_vendor_derived(here: SessionWorld, kdf: str) -> None:
    made, device = await lot(here, kdf)
    card = delivered(kdf)
    await brought(here, made, master_of(kdf), kdf)
    trip = await here.issue(card, device)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    # Now it has one of our own, and nobody needs the vendor's any more.
    assert json.loads(card.snapshot())["management"]["value"] != derived(kdf, master_of(kdf), DATA[kdf], 24).hex()
    card.power_off()
    again = await here.update(card, device)
    assert again.outcome in (sessions_pb2.OUTCOME_NOTHING_DUE, sessions_pb2.OUTCOME_DONE)
    stored = b"".join(path.read_bytes() for path in here.folder.rglob("*") if path.is_file())
    for value in (master_of(kdf), derived(kdf, master_of(kdf), DATA[kdf], 24)):
        assert value not in stored and value.hex().encode() not in stored


async def test_a_puk_of_the_lot_goes_with_it(here: SessionWorld) -> None:
    made, device = await lot(here, "emv-cps", b"87654321")
    await brought(here, made, TDEA, "emv-cps")
    trip = await here.issue(delivered("emv-cps", b"87654321"), device)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)


async def test_without_the_master_or_with_another_nothing_is_written(here: SessionWorld) -> None:
    made, device = await lot(here, "visa2")
    card = delivered("visa2")

    def memory() -> tuple[object, ...]:
        found = json.loads(card.snapshot())
        return found["references"], found["management"], found["keys"], found["objects"]

    before = memory()
    missing = await here.issue(card, device)
    assert missing.error == "VAULT_REFUSED" and memory() == before
    card.power_off()
    await brought(here, made, bytes(reversed(TDEA)), "visa2")
    wrong = await here.issue(card, device)
    assert wrong.error == "MANAGEMENT_KEY_WRONG" and memory() == before


async def test_a_card_with_another_number_is_refused(here: SessionWorld) -> None:
    made, device = await lot(here, "visa2")
    await brought(here, made, TDEA, "visa2")
    other = blank("tdes-only", serial=SERIAL + 1)
    assert (await here.issue(other, device)).error in ("SESSION_OTHER_CARD", "JOURNAL_OTHER_CARD")
