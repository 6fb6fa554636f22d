"""A real slapd: find, search, bind, groups, TLS; and directories that are dead, slow or lie. Nothing ever hangs."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from structlog.testing import capture_logs

from cardwright_cardops.secret import Secret
from cardwright_server.authentication.errors import AccessDenied, MethodLocked, ProofRefused
from cardwright_server.authentication.methods import DirectoryPassword, PasswordEvidence
from cardwright_server.authentication.model import Method
from cardwright_server.authentication.principal import anyone, server
from cardwright_server.authentication.service import Attempt, AuthenticationService
from cardwright_server.people.breaker import Breaker
from cardwright_server.people.directory import (
    DirectoryAnswerRefused,
    DirectoryEntry,
    DirectoryMisconfigured,
    DirectoryUnavailable,
)
from cardwright_server.people.errors import LoginTaken
from cardwright_server.people.ldap_client import LdapClient
from cardwright_server.people.ldap_directory import LdapDirectory, LdapDirectoryConfig, sid_text
from cardwright_server.people.ldap_line import LdapServer
from cardwright_server.people.model import Person, Reach, Role, Scope
from cardwright_server.people.service import PeopleService
from cardwright_server.store.unit import Database
from tests.support.databases import Clock
from tests.support.people import authorizer, make_operator, make_person
from tests.support.slapd import (
    BASE,
    LOCKS_AFTER,
    PEOPLE,
    Slapd,
    ask,
    deaf_port,
    drips,
    free_port,
    ldif_of,
    proxy,
    reach,
    silent_port,
    slapd,
    stalls_after,
    unique,
    write_certificates,
)

__all__ = ["slapd"]

WAYS = ("starttls", "ldaps", "ldapi", "clear")
QUICK = {"connect": 0.3, "operation": 0.4, "whole": 0.8, "rest": 30.0, "failures": 100}


def secret(text: str) -> Secret:
    return Secret(text.encode())


@pytest.mark.parametrize("way", WAYS)
async def test_find_and_bind_by_every_way(slapd: Slapd, way: str) -> None:
    login = unique("anna")
    dn = slapd.add_person(login, cn="Anna \u00c5", mail="anna@example.org", givenName="Anna")
    group = slapd.add_group(unique("readers"), dn)
    directory = ask(reach(slapd, way))
    entry = await directory.find(login.upper())
    assert entry is not None
    uuid = slapd.tool("ldapsearch", "-LLL", "-o", "ldif-wrap=no", "-b", dn, "-s", "base", "entryUUID")
    assert f"entryUUID: {entry.entry}" in uuid
    assert entry == DirectoryEntry(
        source="corp",
        entry=entry.entry,
        dn=dn,
        login=login,
        display_name="Anna \u00c5",
        mail="anna@example.org",
        attributes={"givenName": ("Anna",), "sn": (f"Sur {login}",)},
        groups=((group.split(",")[0][3:], group),),
    )
    assert await directory.check_password(dn, secret("right")) is True
    assert await directory.check_password(dn, secret("wrong")) is False
    assert await directory.check_password(None, secret("right")) is False
    assert await directory.check_password("uid=no\u00dfbody,ou=nowhere", secret("right")) is False
    assert await directory.find(unique("nobody")) is None


@pytest.mark.parametrize("login", ["*", "a*", "x)(uid=*", "x)(|(uid=*)", "\\2a", "a\x00b", "(", "\u202e", ""])
async def test_what_is_typed_is_never_a_filter(slapd: Slapd, login: str) -> None:
    # Both would be found by "a", to which a directory cuts some of these down.
    slapd.add_person(unique("a"))
    if not slapd.has_person("a"):
        slapd.add_person("a", place="guests")
    assert await ask(reach(slapd, "ldapi")).find(login) is None
    assert await ask(reach(slapd, "ldapi")).search(f"{login}zzz", 5) == []


async def test_a_search_gives_as_many_as_are_asked_for(slapd: Slapd) -> None:
    prefix = unique("page")
    slapd.change(ldif_of(f"{prefix}-{number}" for number in range(5)))
    directory = ask(reach(slapd, "ldapi"), page=2)
    assert [entry.login for entry in await directory.search(prefix.upper(), 3)] == [
        f"{prefix}-{number}" for number in range(3)
    ]


async def test_groups_by_search_and_two_of_one_login(slapd: Slapd) -> None:
    login = unique("twin")
    first = slapd.add_person(login)
    name = unique("team (a)")
    slapd.add_group(name, first)
    searching = ask(reach(slapd, "ldapi"), group_base=f"ou=groups,{BASE}")
    entry = await searching.find(login)
    assert entry is not None
    assert [group for group, _ in entry.groups] == [name]
    slapd.add_person(login, place="guests")
    with pytest.raises(DirectoryAnswerRefused):
        await searching.find(login)


async def test_our_own_bind_and_base_must_be_right(slapd: Slapd, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong")
    with pytest.raises(DirectoryMisconfigured):
        await ask(reach(slapd, "ldapi", bind_password_file=str(wrong))).find("x")
    with pytest.raises(DirectoryMisconfigured):
        await ask(reach(slapd, "ldapi", bind_password_file=str(tmp_path / "none"))).find("x")
    nowhere = LdapDirectoryConfig(name="corp", server=reach(slapd, "ldapi"), base=f"ou=nowhere,{BASE}")
    with pytest.raises(DirectoryMisconfigured):
        await LdapDirectory(nowhere).find("x")


async def test_an_administrator_learns_once_what_is_the_matter_with_the_directory(slapd: Slapd, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("wrong")
    directory = ask(reach(slapd, "ldapi", bind_password_file=str(password)))
    person = slapd.add_person(unique("cond"))
    with capture_logs() as logged:
        await directory.check()
        for _ in range(2):
            with pytest.raises(DirectoryMisconfigured):
                await directory.find("x")
        assert await directory.check_password(person, secret("right"))
        # That a person's password is right does not mend our own.
        assert directory.condition.code == "DIRECTORY_MISCONFIGURED"
        password.write_bytes(Path(slapd.password_file()).read_bytes())
        await directory.find("x")
        assert directory.condition.code == ""
        await directory.check()
    told = [(one["event"], one["action"], one["code"]) for one in logged]
    assert told == [(word, "directory", "DIRECTORY_MISCONFIGURED") for word in ("part-failed", "part-recovered")]


async def test_a_directory_that_is_away_or_has_no_such_base_is_known_before_it_is_needed(slapd: Slapd) -> None:
    away = ask(reach(slapd, "clear", port=free_port(), failures=1))
    await away.check()
    await away.check()  # this one does not get through to it
    assert away.condition.code == "DIRECTORY_UNAVAILABLE"
    config = LdapDirectoryConfig(name="corp", server=reach(slapd, "ldapi"), base="dc=elsewhere")
    baseless = LdapDirectory(config)
    await baseless.check()
    assert baseless.condition.code == "DIRECTORY_MISCONFIGURED"
    fine = ask(reach(slapd, "ldapi"))
    await fine.check()
    assert fine.condition.code == ""


@pytest.mark.parametrize("way", ["starttls", "ldaps"])
@pytest.mark.parametrize("text", [None, "no certificate"])
async def test_authorities_that_cannot_be_read_are_named(
    slapd: Slapd, way: str, text: str | None, tmp_path: Path
) -> None:
    """It is no outage, after which one would only wait."""
    file = tmp_path / "authorities.pem"
    if text is not None:
        file.write_text(text)
    with pytest.raises(DirectoryMisconfigured, match=r"authorities\.pem"):
        await ask(reach(slapd, way, ca_file=str(file))).find("x")


@pytest.mark.parametrize("way", ["starttls", "ldaps"])
async def test_a_stranger_s_certificate_is_refused_before_any_password(slapd: Slapd, way: str, tmp_path: Path) -> None:
    write_certificates(tmp_path)
    dn = slapd.add_person(unique("tls"))
    directory = ask(reach(slapd, way, ca_file=str(tmp_path / "ca.pem")))
    with pytest.raises(DirectoryMisconfigured, match="certificate"):
        await directory.check_password(dn, secret("right"))
    port = slapd.port if way == "starttls" else slapd.tls_port
    uri = f"{'ldap' if way == 'starttls' else 'ldaps'}://[::ffff:127.0.0.1]:{port}"
    with pytest.raises((DirectoryMisconfigured, DirectoryUnavailable)):
        await ask(reach(slapd, way, uri=uri)).check_password(dn, secret("right"))
    assert slapd.binds(dn) == 0


@asynccontextmanager
async def dead(kind: str, port: int) -> AsyncIterator[int]:
    """A port that behaves badly in front of, or in place of, a directory."""
    if kind == "silent":
        with silent_port() as one:
            yield one
    elif kind == "deaf":
        with deaf_port() as one:
            yield one
    elif kind == "closed":
        yield free_port()
    else:
        behaviour = drips(0.05) if kind == "drip" else stalls_after(int(kind))
        async with proxy(port, behaviour) as one:
            yield one


@pytest.mark.parametrize("kind", ["silent", "deaf", "closed", "drip", "1", "14", "30", "400", "1200"])
@pytest.mark.parametrize("way", ["starttls", "ldaps", "clear"])
async def test_a_dead_or_slow_directory_costs_the_deadline_and_no_thread(slapd: Slapd, way: str, kind: str) -> None:
    port = slapd.tls_port if way == "ldaps" else slapd.port
    files = len(os.listdir("/proc/self/fd"))
    async with dead(kind, port) as badly:
        client = LdapClient(reach(slapd, way, port=badly, **QUICK))
        directory = LdapDirectory(LdapDirectoryConfig(name="corp", server=client.server, base=PEOPLE), client)
        beats = asyncio.create_task(_beats())
        started = time.monotonic()
        with pytest.raises(DirectoryUnavailable) as caught:
            await directory.find("anna")
        took = time.monotonic() - started
        beats.cancel()
        assert took < 5.0  # whole is 0.8; the rest is for a machine that is busy with other tests
        assert caught.value.retry_after == timedelta(seconds=30)
    await _until(lambda: client.sessions_in_use == 0)
    client.close()
    await _until(lambda: len(os.listdir("/proc/self/fd")) <= files)
    assert await beats_of(beats) > 0 or kind == "closed"


async def _beats() -> None:
    """Counts how often the loop came round, in its own name."""
    task = asyncio.current_task()
    assert task is not None
    for count in range(10**9):
        task.set_name(str(count))
        await asyncio.sleep(0.001)


async def beats_of(task: asyncio.Task[None]) -> int:
    await asyncio.gather(task, return_exceptions=True)
    name = task.get_name()
    return int(name) if name.isdigit() else 0


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_every_place_taken_is_said_at_once_and_given_back(slapd: Slapd) -> None:
    with silent_port() as port:
        client = LdapClient(reach(slapd, "clear", port=port, sessions=2, **QUICK))
        directory = LdapDirectory(LdapDirectoryConfig(name="corp", server=client.server, base=PEOPLE), client)
        results = await asyncio.gather(*(directory.find("x") for _ in range(5)), return_exceptions=True)
        assert [type(one) for one in results] == [DirectoryUnavailable] * 5
        busy = [one for one in results if isinstance(one, DirectoryUnavailable) and "busy" in one.message]
        assert len(busy) == 3
        await _until(lambda: client.sessions_in_use == 0)


async def test_after_failures_the_directory_is_left_alone_then_asked_by_one(slapd: Slapd) -> None:
    now = [100.0]
    login = unique("breaker")
    slapd.add_person(login)
    port = free_port()
    options = QUICK | {"failures": 3, "rest": 30.0}
    client = LdapClient(reach(slapd, "clear", port=port, **options), clock=lambda: now[0])
    directory = LdapDirectory(LdapDirectoryConfig(name="corp", server=client.server, base=PEOPLE), client)
    for _ in range(3):
        with pytest.raises(DirectoryUnavailable):
            await directory.find(login)
    now[0] += 10
    async with _listening(port, slapd.port):
        with pytest.raises(DirectoryUnavailable) as caught:
            await directory.find(login)
        assert caught.value.retry_after == timedelta(seconds=20)
        now[0] += 20
        results = await asyncio.gather(*(directory.find(login) for _ in range(3)), return_exceptions=True)
        assert sorted(type(one).__name__ for one in results) == ["DirectoryEntry"] + ["DirectoryUnavailable"] * 2
        assert await directory.find(login) is not None


@asynccontextmanager
async def _listening(port: int, target: int) -> AsyncIterator[None]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(_pass(reader, forth), _pass(back, writer), return_exceptions=True)

    listener = await asyncio.start_server(serve, "127.0.0.1", port)
    yield
    listener.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(4096):
        writer.write(data)
        await writer.drain()
    writer.close()


def test_a_breaker_alone() -> None:
    now = [0.0]
    breaker = Breaker(2, timedelta(seconds=5), lambda: now[0])
    assert breaker.enter() is None
    breaker.failed()
    assert breaker.enter() is None
    breaker.succeeded()
    for _ in range(2):
        assert breaker.enter() is None
        breaker.failed()
    assert breaker.enter() == timedelta(seconds=5)
    now[0] = 5
    assert breaker.enter() is None
    assert breaker.enter() == timedelta(seconds=5)
    breaker.abandoned()
    assert breaker.enter() is None
    breaker.failed()
    assert breaker.enter() == timedelta(seconds=5)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x30\x84\xff\xff\xff\xff",
        b"\x30\x82\xff\xff",
        b"\x30\x0c\x02\x01\x02\x78\x07\x0a\x01\x00\x04\x00\x04\x00",
        b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00",
        b"\x30\x03\x02\x01\x01",
        b"\x30\x00",
        bytes(range(0x60, 0xA0)),
    ],
)
async def test_what_speaks_no_ldap_is_away(slapd: Slapd, answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(31)
        writer.write(answer)
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    for way in ("starttls", "ldaps", "clear"):
        with pytest.raises(DirectoryUnavailable):
            await ask(reach(slapd, way, port=port, **QUICK)).find("anna")
    listener.close()


async def test_a_refused_start_tls_is_a_misconfiguration(slapd: Slapd) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(31)
        writer.write(b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x34\x04\x00\x04\x00")
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    with pytest.raises(DirectoryMisconfigured, match="result 52"):
        await ask(reach(slapd, "starttls", port=listener.sockets[0].getsockname()[1], **QUICK)).find("anna")
    listener.close()


async def test_nobody_is_locked_out_of_the_directory_through_us(
    slapd: Slapd, open_database: Callable[..., Database], clock: Clock
) -> None:
    """The directory locks after five failures for ever; we stop before, however many processes and spellings."""
    login = unique("victim")
    dn = slapd.add_person(login)
    org = uuid4()
    people = PeopleService(authorizer())
    verifiers = {Method.LDAP_PASSWORD: DirectoryPassword({org: ask(reach(slapd, "ldapi"))})}
    processes = [AuthenticationService(open_database(clock=clock), authorizer(), people, verifiers) for _ in range(2)]
    caller = anyone(org, front="portal")

    def attempt(spelled: str, text: str, process: int) -> Awaitable[object]:
        evidence = {Method.LDAP_PASSWORD: PasswordEvidence(secret(text))}
        return processes[process].prove(caller, Attempt(spelled, evidence))

    wide = "".join(chr(ord(letter) + 0xFEE0) for letter in login)
    spellings = (
        login,
        login.upper(),
        f" {login} ",
        wide,
        f"{login[:3]}\u00ad{login[3:]}",
        f"{login[:2]}\u200b{login[2:]}",
    )
    results = await asyncio.gather(
        *(attempt(spelled, "wrong", number % 2) for number, spelled in enumerate(spellings * 3)),
        return_exceptions=True,
    )
    assert {type(one) for one in results} == {ProofRefused, MethodLocked}
    assert slapd.binds(dn) == 3 < LOCKS_AFTER
    assert slapd.can_bind(dn)
    clock.advance(minutes=30)
    await attempt(login, "right", 0)


async def test_a_person_stays_the_same_when_renamed_and_moved(slapd: Slapd, database: Database) -> None:
    login, renamed = unique("old"), unique("new")
    dn = slapd.add_person(login)
    kept, left = slapd.add_group(unique("kept"), dn), unique("left")
    slapd.add_group(left, dn)
    org = uuid4()
    people = PeopleService(authorizer())
    directory = ask(reach(slapd, "ldapi"))

    async def take_over(name: str) -> Person:
        entry = await directory.find(name)
        assert entry is not None
        return await database.transact(lambda unit: people.import_entry(unit, server(org), entry))

    async def groups(person: Person) -> set[str]:
        return {group.name for group in await database.read(lambda unit: people.groups_of(unit, org, person.id))}

    first = await take_over(login)
    assert await take_over(login) == first
    assert await groups(first) == {kept.split(",")[0][3:], left}
    slapd.tool("ldapdelete", f"cn={left},ou=groups,{BASE}")
    slapd.tool("ldapmodrdn", "-r", "-s", f"ou=guests,{PEOPLE}", input=f"{dn}\nuid={renamed}\n")
    second = await take_over(renamed)
    assert (second.id, second.login, second.dn) == (first.id, renamed, f"uid={renamed},ou=guests,{PEOPLE}")
    assert left not in await groups(second)
    taken = unique("taken")
    await make_person(database, org, taken)
    slapd.add_person(taken)
    with pytest.raises(LoginTaken):
        await take_over(taken)


async def test_a_branch_covers_its_entries_and_no_others(slapd: Slapd, database: Database) -> None:
    org = uuid4()
    people = PeopleService(authorizer())
    directory = ask(reach(slapd, "ldapi"))
    staff, guest = unique("staff"), unique("guest")
    slapd.add_person(staff, place="staff")
    slapd.add_person(guest, place="guests")
    scope = Scope(Reach.BRANCH, branch=f"OU = Staff, {PEOPLE.upper()}")
    clerk = await make_operator(database, org, Role.ISSUANCE, scope=scope)

    async def take_over(login: str) -> Person:
        entry = await directory.find(login)
        assert entry is not None
        return await database.transact(lambda unit: people.import_entry(unit, clerk, entry))

    mine = await take_over(staff)
    with pytest.raises(AccessDenied):
        await take_over(guest)
    assert await database.read(lambda unit: people.find(unit, clerk)) == [mine]
    slapd.tool("ldapmodrdn", "-s", f"ou=guests,{PEOPLE}", input=f"{mine.dn}\nuid={staff}\n")
    with pytest.raises(AccessDenied):
        await take_over(staff)


@pytest.mark.parametrize(
    "change",
    [
        {"uri": "ldap://directory.example", "tls": "none"},
        {"uri": "ldaps://directory.example", "tls": "starttls"},
        {"uri": "ldap://directory.example/dc=x", "tls": "starttls"},
        {"uri": "http://directory.example", "tls": "ldaps"},
        {"whole": 61},
        {"connect": 20},
        {"operation": 0},
        {"sessions": 0},
        {"unknown": 1},
        {"tls": "maybe"},
    ],
)
def test_what_cannot_be_meant_is_refused(change: dict[str, object]) -> None:
    values = {"uri": "ldap://directory.example", "tls": "starttls"} | change
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(values, LdapServer)


def test_a_security_identifier_is_read_as_windows_prints_it() -> None:
    binary = bytes.fromhex("010500000000000515000000a065cf7e784b9b5fe77c8770091c0100")
    assert sid_text(binary) == "S-1-5-21-2127521184-1604012920-1887927527-72713"
    for broken in (b"", binary[:-1], b"\x02" + binary[1:], binary + b"\0"):
        assert sid_text(broken) == ""
