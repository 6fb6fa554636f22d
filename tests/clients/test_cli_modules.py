"""What the command line says of PKCS#11 modules that cannot be used: which, why, and what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cardwright_clients.sdk.values import FailedModule
from cardwright_daemon.config import Pkcs11Module
from tests.support.daemon_server import Server
from tests.support.daemons import token
from tests.support.seat import Seat, seated
from tests.support.softhsm import LABEL, SOFTHSM, SoftHsm

ABSENT = "/absent/module.so"


@asynccontextmanager
async def failing(monkeypatch: pytest.MonkeyPatch, folder: Path) -> AsyncIterator[Seat]:
    """No reader; a module that is not there, and SoftHSM2's, whose folder of tokens is away."""
    soft = SoftHsm.make(folder)
    (folder / "tokens").rename(folder / "away")
    modules = (Pkcs11Module(ABSENT, look_seconds=0), Pkcs11Module(str(SOFTHSM), soft.environment, look_seconds=0))
    async with seated(monkeypatch, readers=0, pkcs11=modules, link=Server()) as seat:
        yield seat


async def test_status_names_the_modules_that_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with failing(monkeypatch, tmp_path) as seat:
        told = (await seat.done("status")).out.splitlines()
        as_json = (await seat.done("status", "--json")).json
        sdk = (await seat.daemon.readers()).modules
        (tmp_path / "away").rename(tmp_path / "tokens")
        well = await seat.done("status", "--json")
        table = (await seat.done("status")).out
    absent, soft = (line for line in told if line.startswith("PKCS#11:"))
    assert f"{ABSENT} cannot be used. " in absent and "Check the path of the module" in absent
    assert f"{SOFTHSM} cannot be used. " in soft and "its folder of tokens" in soft
    assert told[-1] == "There is no reader, and no token is known."
    assert [(one["path"], bool(one["problem"]["advice"])) for one in as_json["modules"]] == [
        (ABSENT, True), (str(SOFTHSM), True),
    ]  # fmt: skip
    assert all(isinstance(one, FailedModule) for one in sdk)
    assert [(one.path, one.problem.code) for one in sdk] == [
        (one["path"], one["problem"]["code"]) for one in as_json["modules"]
    ]
    assert [one["path"] for one in well.json["modules"]] == [ABSENT], "it is well again"
    assert [one["label"] for one in well.json["cards"]] == [LABEL]
    assert "no reader" not in table and ABSENT in table


async def test_who_seeks_a_card_or_token_is_told_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with failing(monkeypatch, tmp_path) as seat:
        every, one = await seat.cli("update", "--all", "--yes"), await seat.cli("unlock")
    for ran in (every, one):
        assert [line.partition(" cannot be used. ")[0] for line in ran.err.splitlines()[:2]] == [
            f"PKCS#11: {ABSENT}", f"PKCS#11: {SOFTHSM}",
        ]  # fmt: skip


async def test_who_has_a_card_hears_nothing_of_them_where_it_is_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with seated(monkeypatch, token(), pkcs11=(Pkcs11Module(ABSENT, look_seconds=0),), link=Server()) as seat:
        assert ABSENT not in (await seat.done("pin", "status")).err
        assert ABSENT in (await seat.done("status")).out
