"""A new 9D on a card whose retired slots are full: the old key stays in the archive, and the person agrees to that."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from cardwright_cardops.plan.observe import observe
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.store.unit import Database
from cardwright_server.vault.model import Authorization
from cardwright_simulators.card import VirtualCard
from tests.support.issuance import openssl, pem
from tests.support.session_world import SessionWorld, blank, make_session_world
from tests.support.sessions import FREELY, Station, Trip, reader

QUICK = (('algorithm = "rsa2048"', 'algorithm = "p256"'),)
UPDATE = sessions_pb2.PURPOSE_UPDATE
SEES_ALL = replace(FREELY, retired=True)


@pytest.fixture
def engine_name() -> str:
    """What a session does to a card is the same on both engines."""
    return "sqlite"


async def issued(world: SessionWorld) -> tuple[VirtualCard, UUID]:
    """A card in use, whose certificates count."""
    card = blank("pivapplet")
    device = await world.bound(card)
    assert (await world.issue(card, device)).outcome == sessions_pb2.OUTCOME_DONE
    return card, device


def full(card: VirtualCard) -> VirtualCard:
    """The card with keys in all its retired slots, and with a certificate of 9D that cannot be read any more."""
    memory = json.loads(card.snapshot())
    memory["keys"] |= {f"{slot:02X}": memory["keys"]["9A"] for slot in range(0x82, 0x8D)}
    return VirtualCard.restore(json.dumps(memory).encode())


async def renewed(world: SessionWorld, card: VirtualCard, device: UUID, **station: Any) -> Trip:
    """One session that makes a new 9D."""
    requests, issuer = world.world.services.requests, world.world.issuer
    opened = await world.database.transact(lambda unit: requests.create_reissue(unit, issuer, device))
    async with world.serving(world.office(device)) as socket:
        wanted = Station(card, look=SEES_ALL, **station)
        return await wanted.run(socket, sessions_pb2.PURPOSE_REISSUE, request=str(opened.request.id))


def steps_of(trip: Trip) -> list[str]:
    """Kinds of steps that were shown."""
    assert trip.preview is not None
    return [step.WhichOneof("kind") or "" for step in trip.preview.plan.steps]


def memory(card: VirtualCard) -> dict[str, Any]:
    """What would be lost."""
    return json.loads(card.snapshot())["keys"]  # type: ignore[no-any-return]


async def test_the_old_key_is_left_to_the_archive_when_the_person_says_so(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world = await make_session_world(open_database(), tmp_path, "civ", QUICK)
    card, device = await issued(world)
    old = next(one for one in await world.certificates_of(device) if one.holder.part == "9d")
    plain, message, certificate = tmp_path / "plain", tmp_path / "message.cms", pem(tmp_path, "to", old.certificate)
    plain.write_bytes(b"for Ada")
    openssl("cms", "-encrypt", "-binary", "-aes256", "-outform", "DER", "-in", plain, "-out", message, certificate)
    card = full(card)
    before = memory(card)
    silent = await renewed(world, card, device, confirms=False)
    assert steps_of(silent)[0] == "leave_key" and silent.error == "GUARD_REFUSED"
    assert memory(card)["9D"] == before["9D"]
    card.power_off()
    trip = await renewed(world, card, device)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    assert steps_of(trip).count("leave_key") == 1
    assert memory(card)["9D"] != before["9D"]
    assert {slot: memory(card)[f"{slot:02X}"] for slot in range(0x82, 0x8D)} == {
        slot: before[f"{slot:02X}"] for slot in range(0x82, 0x8D)
    }
    # Nobody is asked twice, and nothing is due for it.
    card.power_off()
    async with world.serving(world.office(device)) as socket:
        again = await Station(card, look=SEES_ALL).run(socket, UPDATE)
    assert again.outcome == sessions_pb2.OUTCOME_NOTHING_DUE
    # What was encrypted to it opens with the file that its owner may have.
    kept = await world.archive.archived(world.org, old.key)
    assert old.key not in {row.fingerprint for row in run(observe(SEES_ALL), reader(card)).keys}
    password = Secret(b"correct horse battery")
    file = await world.issuing.vault.unwrap_for_pfx(kept.wrapped, kept.context, password, Authorization("a", "r"))
    (tmp_path / "key.p12").write_bytes(file)
    opens = f"pass:{password.reveal().decode()}"
    openssl("pkcs12", "-in", tmp_path / "key.p12", "-nocerts", "-nodes", "-passin", opens, "-out", tmp_path / "key.pem")
    openssl("cms", "-decrypt", "-binary", "-inform", "DER", "-in", message, "-inkey", tmp_path / "key.pem",
            "-out", tmp_path / "out")  # fmt: skip
    assert (tmp_path / "out").read_bytes() == b"for Ada"
    world.issuing.core.close()


@pytest.mark.parametrize("closed", ["leave", "files"])
async def test_a_policy_may_forbid_it(open_database: Callable[..., Database], tmp_path: Path, closed: str) -> None:
    """By itself, or because owners get no files: then nobody would ever read the old messages again."""
    closing = ("[[slots]]\nslot = \"9a\"", f"[escrow]\n{closed} = false\n\n[[slots]]\nslot = \"9a\"")
    world = await make_session_world(open_database(), tmp_path, "civ", (*QUICK, closing))
    card, device = await issued(world)
    card = full(card)
    before = memory(card)
    trip = await renewed(world, card, device)
    assert trip.error == "RETIRED_SLOTS_FULL" and memory(card) == before
    world.issuing.core.close()
