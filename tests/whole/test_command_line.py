"""The command line, a daemon and a server process: what a person does with a card from issuance to its end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest

from cardwright_proto.cms.v1 import authentication_pb2 as proofs
from cardwright_proto.cms.v1 import requests_pb2 as requests
from cardwright_simulators.card import VirtualCard
from tests.support.daemons import Person
from tests.support.front_desk import Desk
from tests.support.installation import Site
from tests.support.seat import seated
from tests.support.virtual import POOL
from tests.whole.test_workstation import enrolled, link_of

PIN = b"739146"


async def test_a_person_gets_a_card_and_has_it_renewed_by_the_command_line(
    here: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server says that it wants to know who they are: first by the password they were given, then by the card."""
    desk = await asyncio.to_thread(Desk, here)
    login, serial = f"p{uuid4().hex[:8]}", str(uuid4().int % 10**8)
    person = await asyncio.to_thread(desk.person, login)
    device, _ = await asyncio.to_thread(desk.issuance, person, serial)
    given = await asyncio.to_thread(
        desk.ask, desk.issuer, "AuthenticationService", "SetInitialPassword",
        proofs.SetInitialPasswordRequest(person=person),
    )  # fmt: skip
    card = VirtualCard("yubikey-5.7", serial=int(serial), key_pool=POOL)
    # The password, the new PIN twice; then the PIN for each proof and each session.
    holder = Person(given.password.encode(), PIN, PIN, *[PIN] * 6)
    await enrolled(here, tmp_path / "station")
    link = link_of(here, tmp_path / "station")
    async with seated(monkeypatch, card, link=link, person=holder) as seat:
        wanted = await seat.cli("update", "--yes")
        assert (wanted.code, "--account" in wanted.err) == (2, True)
        issued = await seat.done("update", "--yes", "--account", login, "--method", "initial-password")
        assert "The card is issued." in issued.out
        await asyncio.to_thread(
            desk.ask, desk.issuer, "RequestService", "CreateReissue", requests.CreateReissueRequest(device=device)
        )
        renewed = await seat.done("update", "--yes")
        assert "The card is updated." in renewed.out
        kept = await seat.done("escrow", "list", "--json")
        assert len(kept.json["keys"]) == 2
