"""Beginning and end of the process: what it refuses to begin with, how it drains, and what a kill leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

from cardwright_proto.cms.v1 import (
    sessions_pb2,
    sessions_pb2_grpc,
    system_pb2,
    system_pb2_grpc,
    workstations_pb2,
    workstations_pb2_grpc,
)
from cardwright_server.operation.restore import MARK
from cardwright_server.store.ids import new_id
from cardwright_server.store.second_medium import JournalEvent, JournalKind, SecondMedium
from cardwright_simulators.card import VirtualCard
from tests.support.databases import PostgreSql
from tests.support.front_desk import Desk
from tests.support.installation import (
    ON_FREE_PORTS,
    PASSPHRASE,
    PATIENCE,
    Process,
    Site,
    a_folder,
    cardwright,
    enrol_first,
    founded,
    refusal,
)
from tests.support.sessions import Station, reason_of
from tests.support.virtual import POOL

HELLO = system_pb2.HelloRequest(protocol=1)


NO_DIRECTORY = """
[directory]
name = "corp"
base = "dc=example,dc=org"

[directory.server]
uri = "ldapi://%2Fnowhere%2Fldapi"
tls = "none"
"""


def run_refused(data: Path, passphrase: bytes = PASSPHRASE) -> str:
    """What ``run`` says when it does not begin."""
    said = cardwright("run", "--data", data, "--passphrase-fd", "FD", secret=passphrase)
    assert said.code == 1, said.out
    return said.err


# ---------------------------------------------------------------------------------------------------- not to begin with


def test_a_configuration_with_a_key_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text("[listen]\nports = 3\n")
    said = run_refused(tmp_path)
    assert "CONFIGURATION_REFUSED" in said and "listen.ports is no key" in said


def test_what_was_never_initialized_is_not_run(tmp_path: Path) -> None:
    assert "SERVER_NOT_INITIALIZED" in run_refused(tmp_path / "nothing")
    assert "SERVER_NOT_RUNNING" in cardwright("status", "--data", tmp_path / "nothing").err


def test_a_folder_that_others_may_enter_is_refused(alone: Site) -> None:
    alone.data.chmod(0o750)
    assert "DATA_FOLDER_UNUSABLE" in run_refused(alone.data)


def test_on_its_own_host_a_server_is_known_whatever_its_certificate_names(alone: Site) -> None:
    configuration = alone.data / "server.toml"
    text = configuration.read_text().replace('names = ["localhost", "127.0.0.1"]', 'names = ["cms.example.org"]')
    configuration.write_text(text)
    alone.process.start()
    said = cardwright("status", "--data", alone.data, "--as", "ann", "--json")
    assert (said.code, said.json["serving"]) == (0, True), said.err
    listed = cardwright("user", "list", "--data", alone.data, "--as", "ann", "--json")
    assert (listed.code, {one["login"] for one in listed.json["users"]}) == (0, {"ann", "sam"}), listed.err


def test_the_process_takes_as_many_descriptors_as_it_may_have() -> None:
    limits = "resource.getrlimit(resource.RLIMIT_NOFILE)"
    program = (
        f"import resource; from cardwright_server.serving import take_descriptors; most = {limits}[1];"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (256, most)); take_descriptors(); assert {limits} == (most, most)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_wrong_passphrase_is_said_and_tried_once(alone: Site) -> None:
    assert "VAULT_UNLOCK_REFUSED" in run_refused(alone.data, b"incorrect horse")
    lines = [json.loads(line) for file in (alone.data / "vault/audit").iterdir() for line in file.open()]
    refused = [line for line in lines if "unlock" in json.dumps(line).lower() and "refused" in json.dumps(line).lower()]
    assert len(refused) == 1
    assert alone.process.start().stop() == 0


def test_an_address_in_use_is_said(alone: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name in ("calls", "http"):
            changed = ON_FREE_PORTS.replace(f'{name} = "127.0.0.1:0"', f'{name} = "127.0.0.1:{port}"')
            (alone.data / "server.toml").write_text(changed)
            said = run_refused(alone.data)
            assert said.startswith("Error LISTEN_FAILED") and str(port) in said


@pytest.mark.parametrize("key", ["bind_password_file", "ca_file"])
def test_a_file_of_the_directory_that_is_missing_is_said_before_anything_needs_it(alone: Site, key: str) -> None:
    with (alone.data / "server.toml").open("a") as file:
        file.write(NO_DIRECTORY + f'{key} = "{alone.data}/missing"\n')
    said = run_refused(alone.data)
    assert "CONFIGURATION_REFUSED" in said and f"directory.server.{key}: {alone.data}/missing" in said


def test_a_directory_that_is_down_hinders_nothing_and_is_told(alone: Site) -> None:
    with (alone.data / "server.toml").open("a") as file:
        file.write(NO_DIRECTORY)
    alone.process.start()
    alone.process.until_logged("part-failed")
    assert alone.process.get("metrics", "/health") == b"ok\n"
    metrics = alone.process.get("metrics", "/metrics").decode()
    assert 'cardwright_part_good{part="directory"} 0.0' in metrics
    assert 'cardwright_part_good{part="second-medium"} 1.0' in metrics
    said = cardwright("status", "--data", alone.data, "--as", "ann", "--json")
    (directory,) = (one for one in said.json["parts"] if one["name"] == "directory")
    assert (directory["good"], directory["code"]) == (False, "DIRECTORY_UNAVAILABLE")
    (told,) = (one for one in alone.process.lines if one["event"] == "part-failed")
    assert (told["action"], told["code"], told["level"]) == ("directory", "DIRECTORY_UNAVAILABLE", "warning")


def test_one_process_has_a_data_folder(here: Site) -> None:
    assert "DATA_FOLDER_IN_USE" in run_refused(here.data)
    assert "DATA_FOLDER_IN_USE" in cardwright("migrate", "--data", here.data).err
    assert cardwright("migrate", "--check", "--data", here.data).code == 0


# ----------------------------------------------------------------------------------------------------------- the end


async def test_a_revoked_workstation_s_open_stream_ends(here: Site) -> None:
    identifier, station = here.enrolled()
    async with here.process.tunnel(station) as path, grpc.aio.insecure_channel(f"unix:{path}") as line:
        call: Any = sessions_pb2_grpc.SessionServiceStub(line).Watch(sessions_pb2.WatchRequest(protocol=1))
        await call.initial_metadata()
        revoke = workstations_pb2.RevokeWorkstationRequest(id=identifier, reason="lost")
        here.process.call(
            here.officer, lambda to: workstations_pb2_grpc.WorkstationServiceStub(to).Revoke, revoke
        )
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await call.read()
    assert reason_of(ended.value) in ("CONNECTION_ENDED", "ACCESS_DENIED")


async def test_sigterm_lets_a_card_session_end_and_begins_nothing_new(alone: Site) -> None:
    process = alone.process.start()
    desk = Desk(alone)
    person = desk.person("dora")
    _, request = desk.issuance(person, "23456789")
    _, station = alone.enrolled()
    token = desk.proof(station, person, "dora")
    told: list[str] = []

    async def stop_at_consent(message: sessions_pb2.RunRequest) -> None:
        if message.WhichOneof("kind") != "consent":
            return
        with process.local() as line, process.entry() as other:
            process.signal()
            while not any(one["event"] == "draining" for one in process.lines):
                os.sched_yield()
            for channel in (line, other):
                with pytest.raises(grpc.RpcError) as refused:
                    system_pb2_grpc.SystemServiceStub(channel).Hello(HELLO, timeout=PATIENCE)
                told.append(refusal(refused.value)[0])

    card = VirtualCard("yubikey-5.7", serial=23456789, key_pool=POOL)
    sitting = Station(card, metadata=[("cardwright-session", token)], before=stop_at_consent)
    async with process.tunnel(station) as path:
        trip = await sitting.run(path, request=request)
    assert (trip.error, trip.outcome, told) == ("", sessions_pb2.OUTCOME_DONE, ["UNAVAILABLE"] * 2)
    assert process.wait() == 0, process.complaint
    assert not (alone.data / "run" / "listening.json").exists()
    # What it recorded last is sealed, and it can begin again.
    process.start()
    verified = cardwright("audit", "verify", "--data", alone.data, "--json")
    assert (verified.code, verified.json["findings"]) == (0, [])


def test_a_killed_server_begins_again_where_it_was(alone: Site) -> None:
    process = alone.process.start()
    _, station = alone.enrolled()
    process.kill()
    asked = cardwright("status", "--data", alone.data)
    assert (asked.code, "SERVER_NOT_RUNNING" in asked.err) == (1, True)
    process.start()
    with process.calls(station) as line:
        assert system_pb2_grpc.SystemServiceStub(line).Hello(HELLO, timeout=PATIENCE).protocol == 1
    verified = cardwright("audit", "verify", "--data", alone.data, "--json")
    assert (verified.code, verified.json["findings"]) == (0, [])


def test_without_its_vault_the_server_ends_and_says_so(alone: Site) -> None:
    process = alone.process.start()
    assert process.process is not None
    children = Path(f"/proc/{process.process.pid}/task/{process.process.pid}/children").read_text().split()
    vaults = [one for one in children if b"cardwright_server.vault" in Path(f"/proc/{one}/cmdline").read_bytes()]
    assert len(vaults) == 1
    os.kill(int(vaults[0]), signal.SIGKILL)
    assert process.wait() == 1
    assert "VAULT_ENDED" in process.complaint


def test_a_database_that_is_lost_is_not_replaced_by_an_empty_one(alone: Site) -> None:
    """Tables made anew beside the old vault would look like an installation, and keep a backup from its place."""
    store = alone.data / "store.db"
    store.unlink()
    for command in ("run", "init", "migrate"):
        options = ("--passphrase-fd", "FD") if command != "migrate" else ()
        said = cardwright(command, "--data", alone.data, *options, secret=PASSPHRASE)
        assert (said.code, "DATABASE_MISSING" in said.err) == (1, True), said.err
        assert not store.exists()
    store.touch()
    assert "DATABASE_MISSING" in run_refused(alone.data)


def test_nothing_begins_where_a_restore_did_not_end(alone: Site) -> None:
    """Also not what makes authorities and lists: the database does not know yet what was revoked."""
    (alone.data / MARK).write_text("{}")
    for command in ("run", "init"):
        said = cardwright(command, "--data", alone.data, "--passphrase-fd", "FD", secret=PASSPHRASE)
        assert (said.code, "RESTORE_UNFINISHED" in said.err) == (1, True), said.err


def test_a_server_whose_database_is_taken_away_ends_and_says_so(alone: Site) -> None:
    process = alone.process.start()
    store = alone.data / "store.db"
    store.rename(store.with_name("elsewhere"))
    assert process.wait() == 1
    assert "DATABASE_MISSING" in process.complaint



def test_a_second_medium_that_is_not_there_is_not_begun_anew(alone: Site) -> None:
    """A disk that is not mounted, or another's: a later restore would take a new journal for all that happened."""
    medium, away = alone.data / "second-medium", alone.data / "away"
    medium.rename(away)
    foreign = SecondMedium(alone.data / "foreign")
    asyncio.run(_written(foreign))
    for there, command in (("no folder", "run"), ("an empty one", "init"), ("another journal", "run")):
        if there == "an empty one":
            medium.mkdir()
        elif there == "another journal":
            shutil.copytree(foreign.folder, medium, dirs_exist_ok=True)
        before = sorted(medium.glob("*"))
        said = cardwright(command, "--data", alone.data, "--passphrase-fd", "FD", secret=PASSPHRASE)
        assert (said.code, "SECOND_MEDIUM_MISSING" in said.err) == (1, True), said.err
        assert sorted(medium.glob("*")) == before
    shutil.rmtree(medium)
    away.rename(medium)
    alone.process.start()


async def _written(medium: SecondMedium) -> None:
    """A journal of some other organization."""
    await medium.append([JournalEvent(JournalKind.ISSUE, new_id(), new_id())], datetime.now(UTC))
    await medium.close()


# ------------------------------------------------------------------------------------------------- several processes


def test_two_processes_on_one_postgresql_share_everything_but_their_folders(postgresql: PostgreSql) -> None:
    url = postgresql.url(postgresql.create())
    configuration = f'{ON_FREE_PORTS}\n[database]\nurl = "{url}"\n'
    with a_folder() as data, a_folder() as other:
        credential = founded(data, configuration)
        first = Process(data).start()
        second = Process(other)
        try:
            for role, login in (("administrator", "ann"), ("security-officer", "sam")):
                assert enrol_first(data, credential, role, login).code == 0
            other.mkdir(mode=0o700)
            vault, medium = data / "run" / "vault", data / "second-medium"
            (other / "server.toml").write_text(f'{configuration}\n[vault]\nsockets = "{vault}"\n')
            said = cardwright("run", "--data", other)
            assert (said.code, "SECOND_MEDIUM_MISSING" in said.err) == (1, True), "a journal that only one writes"
            (other / "server.toml").write_text(
                f'{configuration}second_medium = "{medium}"\n\n[vault]\nsockets = "{vault}"\n'
            )
            second.start()
            site = Site.of(first, credential)
            identifier, station = site.enrolled()
            with second.calls(station) as line:
                assert system_pb2_grpc.SystemServiceStub(line).Hello(HELLO, timeout=PATIENCE).protocol == 1
            shown = second.call(
                site.officer, lambda line: system_pb2_grpc.SystemServiceStub(line).Status, system_pb2.StatusRequest()
            )
            assert (shown.database, [one.name for one in shown.parts if not one.good]) == ("postgresql", [])
            revoke = workstations_pb2.RevokeWorkstationRequest(id=identifier, reason="lost")
            first.call(site.officer, lambda to: workstations_pb2_grpc.WorkstationServiceStub(to).Revoke, revoke)
            assert second.stop() == 0, second.complaint
            second.start()
            with pytest.raises(grpc.RpcError) as error, second.calls(station) as line:
                system_pb2_grpc.SystemServiceStub(line).Hello(HELLO, timeout=PATIENCE)
            assert refusal(error.value)[0] == "UNAUTHENTICATED"
        finally:
            second.stop()
            first.stop()
