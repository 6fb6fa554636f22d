"""A session with the real authorities: certificates on hold until the card was read back, verified by openssl."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.issuance import status
from cardwright_server.issuance.model import CertificateState, Purpose
from cardwright_server.issuance.names import HolderNames
from cardwright_server.sessions.issuing import IssuedCertificates
from cardwright_server.sessions.ports import Task
from cardwright_server.store.unit import Database
from tests.support.issuance import make_world, openssl, pem
from tests.support.sessions import Office, Station, fresh_card, serving

TAGS = {"9A": "5FC105", "9C": "5FC10A", "9D": "5FC10B", "9E": "5FC101"}


class CardNames:
    """Names of one person."""

    async def names(self, task: Task) -> HolderNames:
        return HolderNames(common_name="Ada Lovelace", email="ada@example.test", card_uuid=task.guid)

    def made_of(self, kinds: Sequence[str]) -> tuple[str, ...]:
        return ()


async def test_certificates_are_released_when_the_card_was_read_back(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    database = open_database()
    world = await make_world(database, tmp_path)
    office = Office(world.vault, datetime.now(UTC), org=world.org)
    certificates = IssuedCertificates(database, world.service, CardNames())
    card = fresh_card()
    async with serving(database, office, certificates=certificates) as socket:
        cut = await Station(card).run(socket, cut=5)
        assert cut.outcome == 0
        made = await database.read(lambda unit: status.of_device(unit, office.org, office.device))
        assert {one.state for one in made} == {CertificateState.HELD}
        card.power_off()
        while (trip := await Station(card).run(socket)).error == "CARD_IN_SESSION":
            card.power_off()
            await asyncio.sleep(0)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    made = await database.read(lambda unit: status.of_device(unit, office.org, office.device))
    good = {one.holder.part.upper(): one for one in made if one.state is CertificateState.GOOD}
    assert good.keys() == TAGS.keys()
    assert {one.state for one in made} <= {CertificateState.GOOD, CertificateState.REVOKED}
    held = _certificates(card.snapshot())
    assert held == {slot: one.certificate for slot, one in good.items()}
    root, issuer = (world.ca(purpose).public_bytes(Encoding.DER) for purpose in (Purpose.ROOT, Purpose.CARDS))
    trust, between = pem(tmp_path, "root.pem", root), pem(tmp_path, "cards.pem", issuer)
    for slot, der in held.items():
        leaf = pem(tmp_path, f"{slot}.pem", der)
        openssl("verify", "-x509_strict", "-CAfile", trust, "-untrusted", between, leaf)
    world.core.close()


def _certificates(snapshot: bytes) -> dict[str, bytes]:
    """DER certificates in the raw memory of a card, by slot; read without anything of the program under test."""
    objects = {tag.upper(): bytes.fromhex(raw) for tag, raw in json.loads(snapshot)["objects"].items()}
    found = {}
    for slot, tag in TAGS.items():
        raw = objects[tag]
        start = raw.index(b"\x30\x82")
        size = 4 + int.from_bytes(raw[start + 2 : start + 4], "big")
        found[slot] = x509.load_der_x509_certificate(raw[start : start + size]).public_bytes(Encoding.DER)
    return found
