"""Escrowed keys in retired slots: what was encrypted to an old key opens with the next card."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cardwright_cardops.check import Level
from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.plan.observe import EVERYTHING, observe
from cardwright_cardops.plan.policy import RecoveredKey
from cardwright_cardops.program.runner import run
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.policies.document import read
from cardwright_server.store.unit import Database
from cardwright_simulators.card import VirtualCard
from tests.support.issuance import ON_SQLITE, openssl, pem
from tests.support.session_world import blank, make_session_world
from tests.support.sessions import POLICY, Station, fresh_card, make_office, reader, serving

QUICK = (('algorithm = "rsa2048"', 'algorithm = "p256"'),)


async def test_a_second_card_opens_what_was_encrypted_to_the_first(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world = await make_session_world(open_database(), tmp_path, "civ", QUICK)
    ada, first, second = await world.person(), blank(), blank(serial=2)
    device = await world.bound(first, ada)
    assert (await world.issue(first, device)).error == ""
    old = next(one for one in await world.certificates_of(device) if one.holder.part == "9d")
    message = _encrypted(tmp_path, old.certificate)
    other = await world.bound(second, ada)
    trip = await world.issue(second, other)
    assert (trip.error, trip.outcome, trip.trips) == ("", sessions_pb2.OUTCOME_DONE, 5)
    seen = run(observe(EVERYTHING), reader(second))
    assert seen.retired_counts == (1, 0)
    assert [(row.slot.label, row.key) for row in seen.certificates if row.slot.is_retired] == [("82", old.key)]
    assert _opened(tmp_path, second, "82", message) == b"for Ada"
    assert (await world.judged(second, Level.BASIC)).good
    again = await world.update(second, other)
    assert (again.outcome, again.trips) == (sessions_pb2.OUTCOME_NOTHING_DUE, 1)
    bob = blank(serial=3)
    strangers = await world.bound(bob, await world.person("bob"))
    assert (await world.issue(bob, strangers)).error == ""
    assert not [row for row in run(observe(EVERYTHING), reader(bob)).certificates if row.slot.is_retired]
    world.issuing.core.close()


@ON_SQLITE
async def test_a_replaced_key_stays_on_the_card_in_a_retired_slot(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world, card = await make_session_world(open_database(), tmp_path, "civ", QUICK), blank()
    device = await world.bound(card)
    assert (await world.issue(card, device)).error == ""
    old = next(one for one in await world.certificates_of(device) if one.holder.part == "9d")
    message = _encrypted(tmp_path, old.certificate)
    worn = _without(card, "9D", "5FC10B")
    trip = await world.update(worn, device)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    seen = run(observe(EVERYTHING), reader(worn))
    assert seen.retired_counts == (1, 0)
    keys = {row.slot.label: row.fingerprint for row in seen.keys}
    assert keys["82"] == old.key != keys["9D"]
    assert _opened(tmp_path, worn, "82", message) == b"for Ada"
    again = await world.update(worn, device)
    assert again.outcome == sessions_pb2.OUTCOME_NOTHING_DUE
    world.issuing.core.close()


@ON_SQLITE
async def test_an_issuance_that_is_cut_anywhere_recovers_the_key_in_the_end(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world = await make_session_world(open_database(), tmp_path, "civ", QUICK)
    ada, first, second = await world.person(), blank(), blank(serial=2)
    device = await world.bound(first, ada)
    assert (await world.issue(first, device)).error == ""
    other = await world.bound(second, ada)
    request = str((await world.world.issuance(other)).id)
    async with world.serving(world.office(other)) as socket:
        for cut in (2, 3, 3, 4):
            while (trip := await Station(second).run(socket, request=request, cut=cut)).error == "CARD_IN_SESSION":
                second.power_off()
            assert trip.outcome == 0
            second.power_off()
        while (trip := await Station(second).run(socket, request=request)).error == "CARD_IN_SESSION":
            second.power_off()
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    seen = run(observe(EVERYTHING), reader(second))
    assert seen.retired_counts == (1, 0)
    assert len([row for row in seen.certificates if row.slot.is_retired]) == 1
    world.issuing.core.close()


@dataclass
class Old:
    """A key in the archive."""

    recovered: RecoveredKey


@pytest.mark.parametrize("engine_name", ["sqlite"])
async def test_a_card_without_an_escrowed_key_of_its_own_gets_no_old_ones(database: Database, tmp_path: Path) -> None:
    """It may be one that takes no keys from outside."""
    policy = read(POLICY.format(clear="any", least="unproven", renew=30).replace('key = "escrow"\n', ""))
    office = make_office(tmp_path, policy=policy, old=[Old(RecoveredKey("ab" * 32, Algorithm.P256))])
    async with serving(database, office) as socket:
        trip = await Station(fresh_card()).run(socket)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    assert trip.preview is not None
    assert "import-key" not in [step.WhichOneof("kind") for step in trip.preview.plan.steps]


def _encrypted(folder: Path, certificate: bytes) -> Path:
    """A CMS message to the key of a certificate."""
    plain, message = folder / "plain", folder / "message.cms"
    plain.write_bytes(b"for Ada")
    to = pem(folder, "to", certificate)
    openssl("cms", "-encrypt", "-binary", "-aes256", "-outform", "DER", "-in", plain, "-out", message, to)
    return message


def _opened(folder: Path, card: VirtualCard, slot: str, message: Path) -> bytes:
    """What openssl reads with the key in a slot, taken from the card's raw memory."""
    (scalar,) = json.loads(card.snapshot())["keys"][slot]["private"]
    key = ec.derive_private_key(int(scalar, 16), ec.SECP256R1())
    path, out = folder / "key.pem", folder / "out"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    openssl("cms", "-decrypt", "-binary", "-inform", "DER", "-in", message, "-inkey", path, "-out", out)
    return out.read_bytes()


def _without(card: VirtualCard, slot: str, tag: str) -> VirtualCard:
    """The card without a key and its certificate."""
    memory = json.loads(card.snapshot())
    del memory["keys"][slot], memory["objects"][tag]
    return VirtualCard.restore(json.dumps(memory).encode())
