"""``cardwright server user import`` of many, against a server in this process and a real slapd."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cardwright_server.authentication.principal import Principal
from cardwright_server.people.model import Reach, Role, Scope
from cardwright_server.store.unit import Database
from cardwright_server.vault.calls import LocalVault
from tests.support.command_line import Ran
from tests.support.issuance import ON_SQLITE
from tests.support.lifecycles import World, make_world
from tests.support.managed import ToldContacts, servicers
from tests.support.operator_line import OperatorLine, operator_line
from tests.support.people import make_operator
from tests.support.slapd import PEOPLE, Slapd, ask, cuts_after, ldif_of, proxy, reach, slapd, unique
from tests.support.vault import make_core

__all__ = ["slapd"]


@dataclass
class Shop:
    """A world with a directory behind a TLS port."""

    world: World
    line: OperatorLine
    administrator: Principal
    branch: str
    logins: list[str]
    dying: OperatorLine
    """The same, but the directory falls silent in the middle."""

    async def run(self, *arguments: str, by: Principal | None = None) -> Ran:
        return await self.line.run(by or self.administrator, "user", "import", *arguments)


@pytest.fixture
async def shop(slapd: Slapd, database: Database, tmp_path: Path) -> AsyncIterator[Shop]:
    world = await make_world(database)
    core = make_core(tmp_path / "vault", lambda: datetime.now(UTC).timestamp())
    vault, contacts = LocalVault(core), ToldContacts()
    name = unique("shop")
    branch, logins = f"ou={name},{PEOPLE}", [f"{number}{unique('-shop')}" for number in range(20)]
    slapd.change(f"dn: {branch}\nobjectClass: organizationalUnit\nou: {name}\n")
    slapd.change(ldif_of(logins, branch))
    directory = ask(reach(slapd, "clear"), page=4)
    quick = {"connect": 2.0, "operation": 1.5, "whole": 3.0, "failures": 100}
    async with (
        proxy(slapd.port, cuts_after(3500)) as port,
        operator_line(
            database, tmp_path / "a", lambda calls: servicers(calls, world, vault, contacts, directory)
        ) as line,
        operator_line(
            database,
            tmp_path / "b",
            lambda calls: servicers(
                calls, world, vault, contacts, ask(reach(slapd, "clear", port=port, **quick), page=4)
            ),
        ) as dying,
    ):
        administrator = await make_operator(database, world.org, Role.ADMINISTRATOR)
        yield Shop(world, line, administrator, branch, logins, dying)
    core.close()


@ON_SQLITE
async def test_everybody_below_a_place(shop: Shop) -> None:
    await shop.world.person(shop.logins[2])
    ran = await shop.run("--all", "--under", shop.branch)
    assert ran.code == 0, ran.err
    summary, head, *rows = ran.out.splitlines()
    assert summary == "19 new, 0 changed, 0 known, 1 refused."
    assert head.split() == ["LOGIN", "CODE", "REASON", "PLACE"]
    assert [row.split()[:2] for row in rows] == [[shop.logins[2], "LOGIN_TAKEN"]]
    assert [line.partition(": ")[2] for line in ran.err.splitlines()][-1] == summary[:-1]
    again = (await shop.run("--all", "--under", shop.branch, "--json")).json
    (refused,) = again.pop("refused")
    assert again == {"added": 0, "changed": 0, "unchanged": 19}
    assert (refused["login"], refused["code"]) == (shop.logins[2], "LOGIN_TAKEN")
    assert refused["dn"] == f"uid={shop.logins[2]},{shop.branch}"


@ON_SQLITE
async def test_a_group_and_an_operator_of_a_branch(slapd: Slapd, shop: Shop) -> None:
    group = unique("team")
    slapd.add_group(group, *(f"uid={login},{shop.branch}" for login in shop.logins[:3]), slapd.add_person(unique("o")))
    scope = Scope(Reach.BRANCH, branch=shop.branch)
    clerk = await make_operator(shop.world.database, shop.world.org, Role.ISSUANCE, scope=scope)
    ran = await shop.run("--group", group, "--json", by=clerk)
    assert ran.json == {"added": 3, "changed": 0, "unchanged": 0, "refused": []}
    assert ran.err == ""
    denied = await shop.run("--all", "--under", f"ou=staff,{PEOPLE}", "--json", by=clerk)
    assert (denied.code, denied.json["error"]["code"]) == (1, "ACCESS_DENIED")


@ON_SQLITE
async def test_what_was_done_before_it_broke_off_is_said(shop: Shop) -> None:
    with capture_logs():  # the server's, which is in this process
        ran = await shop.dying.run(shop.administrator, "user", "import", "--all", "--under", shop.branch)
    assert (ran.code, ran.out) == (1, "")
    said, _, error = ran.err.partition("Before it broke off: ")[2].partition("\n")
    added = int(said.split()[0])
    assert 0 < added < 20
    assert error.startswith("Error DIRECTORY_UNAVAILABLE: ") and "Who was taken over before stays." in error
    again = (await shop.run("--all", "--under", shop.branch, "--json")).json
    assert again == {"added": 20 - added, "changed": 0, "unchanged": added, "refused": []}


@ON_SQLITE
@pytest.mark.parametrize(
    "given", [(), ("ada", "--all"), ("--all", "--group", "x"), ("ada", "--under", "dc=x"), ("--under", "dc=x")]
)
async def test_who_is_meant_is_said_once(shop: Shop, given: tuple[str, ...]) -> None:
    assert (await shop.run(*given)).code == 2
