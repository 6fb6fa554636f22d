"""``cardwright sign-in``: by the card to the server and to a portal; and folders that are not ours to look into."""

from __future__ import annotations

import asyncio
import configparser
from pathlib import Path
from typing import Any

import pytest

import cardwright_clients
from cardwright_cardops.workstation import FolderUnsafe, has_folder
from cardwright_clients.sdk import DaemonClient
from cardwright_daemon.link.ports import SignInChallenge
from cardwright_daemon.link.server import GrpcLink
from tests.clients.test_cli_daemon import PIN, _plain, issued
from tests.support.daemon_server import Server
from tests.support.daemons import Person, token
from tests.support.seat import seated

PACKAGING = Path(cardwright_clients.__file__).parent / "packaging"


async def test_signing_in_to_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    async with seated(monkeypatch, token(), link=server, person=Person(PIN, PIN, PIN, PIN)) as seat:
        await issued(seat)
        said = await seat.done("sign-in")
        told = await seat.done("sign-in", "--json")
        acts = [one.act for one in seat.run.person.asked[2:]]
    assert said.out.startswith("card 12345678: you are signed in to the server until ")
    assert set(told.json) == {"card", "until"} and told.json["until"]
    assert acts == ["prove to the server who you are, with card 12345678"] * 2
    assert len(set(server.signed_in)) == 2, "each time another signature"


async def test_signing_in_to_a_portal(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    async with seated(monkeypatch, token(), link=server, person=Person(PIN, PIN, PIN, PIN)) as seat:
        await issued(seat)
        said = await seat.done("sign-in", "cardwright:abc")
        told = await seat.done("sign-in", "cardwright:abc", "--json")
        assert seat.run.person.asked[-1].act == "sign in to https://portal.example with card 12345678"
    assert said.out == "https://portal.example/once\n"
    assert told.json == {"url": "https://portal.example/once"}


async def test_a_server_without_portals_says_so_before_anybody_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the way to a real server says today."""
    server, real = Server(), GrpcLink("localhost:1", tmp_path)

    async def challenge(self: Server, link: str) -> SignInChallenge:
        return await real.sign_in_challenge(link)

    monkeypatch.setattr(Server, "sign_in_challenge", challenge)
    async with seated(monkeypatch, token(), link=server, person=Person(PIN, PIN)) as seat:
        await issued(seat)
        ran = await seat.cli("sign-in", "cardwright:abc", "--json")
        asked = len(seat.run.person.asked)
    assert (ran.code, ran.json["error"]["code"], asked) == (1, "SIGN_IN_NOT_OFFERED", 2)
    assert server.signed_in == []


async def test_a_folder_that_may_not_be_seen_is_told_as_what_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Below a folder of another user: what root may do, a test as root has to be kept from."""
    place = tmp_path / "theirs" / "run"
    real = Path.lstat

    def lstat(self: Path) -> Any:
        if self == place:
            raise PermissionError(13, "Permission denied")
        return real(self)

    monkeypatch.setattr(Path, "lstat", lstat)
    monkeypatch.setenv("CARDWRIGHT_FOLDER", str(place))
    for arguments in (["status"], ["pin", "status"], ["sign-in"]):
        ran = await asyncio.to_thread(_plain, *arguments, "--json")
        assert (ran.code, ran.json["error"]["code"]) == (1, "SOCKET_FOLDER_UNSAFE"), arguments
    with pytest.raises(FolderUnsafe, match="cannot be looked at"):
        async with DaemonClient(place):
            pass
    assert not has_folder(tmp_path / "none" / "run")


def test_the_agents_unit_is_like_the_daemons() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(PACKAGING / "cardwright-agent.service")
    assert unit["Service"]["ExecStart"] == "/usr/bin/env cardwright agent"
    assert "cardwright-daemon.service" in unit["Unit"]["After"]
    assert unit["Install"]["WantedBy"] == "graphical-session.target"
