"""Whatever keeps something of persons, or has something that time ends, is asked: no domain is left unwired."""

from __future__ import annotations

import ast
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from cardwright_server import founding, issuance, serving
from cardwright_server.app import Domains, wire
from cardwright_server.authentication.counters import LockPolicy
from cardwright_server.authentication.model import Method
from cardwright_server.authentication.principal import server
from cardwright_server.config import load
from cardwright_server.devices.service import DeviceService
from cardwright_server.escrow.service import EscrowService
from cardwright_server.policies.document import SHIPPED
from cardwright_server.policies.model import VersionState
from cardwright_server.requests.model import RequestKind
from cardwright_server.requests.service import RequestService
from cardwright_server.store.unit import Database, Unit
from cardwright_server.vault.client import VaultClient
from tests.support.issuance import ON_SQLITE
from tests.support.tree import python_files

Work = Callable[[], Awaitable[object]]


def classes_with(method: str, *parameters: str) -> set[str]:
    """Names of the server's classes that have such a method; protocols have not."""
    return {
        each.name
        for path in python_files("server")
        for each in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(each, ast.ClassDef) and not any(ast.unparse(base) == "Protocol" for base in each.bases)
        for made in each.body
        if isinstance(made, ast.AsyncFunctionDef)
        and (made.name, [one.arg for one in made.args.args]) == (method, ["self", *parameters])
    }


@pytest.fixture
def domains(tmp_path: Path, database: Database) -> Domains:
    """Everything wired; the vault is not there."""
    return wire(load(tmp_path, None), database, VaultClient(tmp_path), uuid4())


@ON_SQLITE
@pytest.mark.parametrize("left", ["civ", "developer"])
async def test_an_installation_begins_without_policies_that_its_own_profiles_leave_out_of_reach(
    tmp_path: Path, database: Database, left: str
) -> None:
    """It certifies RSA keys only for logging in, or none of P-384 for signatures."""
    folder, slot = tmp_path / "profiles", {"civ": "authentication", "developer": "signature"}[left]
    folder.mkdir()
    shipped = resources.files(issuance).joinpath("shipped", f"civ-{slot}.toml").read_text()
    kept = 'algorithms = ["rsa2048"]' if left == "civ" else 'algorithms = ["rsa2048", "p256"]'
    text = re.sub(r"algorithms = \[.*\]", kept, shipped)
    (folder / f"civ-{slot}.toml").write_text(text)
    (tmp_path / "server.toml").write_text(f'[issuance]\nprofiles = "{folder}"\n')
    org = uuid4()
    begun = wire(load(tmp_path, None), database, VaultClient(tmp_path), org, authorize=founding._founder)
    await database.transact(lambda unit: founding._policies(unit, begun, org))
    await database.transact(lambda unit: founding._policies(unit, begun, org))
    found = await database.read(lambda unit: begun.policies.find(unit, server(org)))
    out = {"civ", "developer"} if left == "civ" else {left}
    assert {one.name for one in found} == set(SHIPPED) - out
    assert {one.state for one in found} == {VersionState.PUBLISHED}
    begun.close()


@ON_SQLITE
def test_every_domain_forgets_who_is_erased(domains: Domains) -> None:
    keepers = {type(one).__name__ for one in domains.erasure._keepers}
    assert keepers == classes_with("forget", "unit", "principal", "person")
    assert len(keepers) == 3


@ON_SQLITE
def test_what_is_configured_of_waiting_and_locking_holds(tmp_path: Path, database: Database) -> None:
    text = "[requests]\nunlock_minutes = 25\n[authentication]\ndirectory_failures = 7\ndirectory_minutes = 90\n"
    (tmp_path / "server.toml").write_text(text)
    made = wire(load(tmp_path, None), database, VaultClient(tmp_path), uuid4())
    assert made.requests._book._lifetimes[RequestKind.UNLOCK] == timedelta(minutes=25)
    assert made.requests._book._lifetimes[RequestKind.ISSUANCE] == timedelta(days=30)
    assert made.enrolment._emergency == timedelta(minutes=25)
    period = timedelta(minutes=90)
    assert made.authentication._policies[Method.LDAP_PASSWORD] == LockPolicy(7, period, period)
    assert made.authentication._policies[Method.SECURITY_ANSWERS] == LockPolicy(3)
    made.close()


class Tasks:
    """Stands in for ``Timers``: remembers what was to run, and runs nothing."""

    def __init__(self) -> None:
        self.again: dict[str, tuple[timedelta, Work]] = {}
        self.for_ever: dict[str, Work] = {}

    def every(self, name: str, pause: timedelta, work: Work) -> None:
        """See ``Timers``."""
        self.again[name] = (pause, work)

    def forever(self, name: str, work: Work) -> None:
        """See ``Timers``."""
        self.for_ever[name] = work


@ON_SQLITE
async def test_what_time_ends_is_ended(domains: Domains, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def recorded(name: str) -> Callable[..., Awaitable[int]]:
        async def expire(self: object, unit: Unit, limit: int = 100) -> int:
            asked.append(name)
            return 0

        return expire

    for kind in (DeviceService, EscrowService, RequestService):
        monkeypatch.setattr(kind, "expire", recorded(kind.__name__))
    tasks, idle = Tasks(), SimpleNamespace(run=None)
    process: Any = SimpleNamespace(domains=domains, timers=tasks)
    serving._timers(process, idle, idle, None, ())  # type: ignore[arg-type]
    assert set(tasks.again) == {
        "publish-crl", "repair-certificates", "renew-own-certificates", "requests-and-devices", "escrow-offers",
        "purge", "rewrap", "health", "look-outside",
    }  # fmt: skip
    assert set(tasks.for_ever) == {"revocations", "hints", "audit-sealer", "outbox-dispatcher"}
    assert max(pause for pause, _ in tasks.again.values()) <= timedelta(hours=1)
    for name in ("requests-and-devices", "escrow-offers"):
        await tasks.again[name][1]()
    assert sorted(asked) == sorted(classes_with("expire", "unit", "limit"))
