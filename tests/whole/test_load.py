"""Simulated workstations against a server on PostgreSQL: they are served, and what a due-check asks of the database."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cardwright_proto.cms.v1 import devices_pb2
from tests.support.databases import PostgreSql
from tests.support.front_desk import Desk
from tests.support.installation import Site
from tests.support.load import LIMITS, log_statements, many_cards, site_on, to_issue, transactions_of, write_tasks

MAIN = [sys.executable, "-W", "ignore", "-c", "from cardwright_clients.cli.main import main; main()"]
CHECKS = 30
UUIDS = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def place(postgresql: PostgreSql) -> Iterator[tuple[Site, str]]:
    """A running installation on PostgreSQL whose statements are logged."""
    with site_on(postgresql, LIMITS) as (here, name):
        assert here.process.stop() == 0, here.process.complaint
        log_statements(postgresql, name)
        here.process.start()
        yield here, name


def workstations(here: Site, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """``cardwright sim workstations``."""
    addresses, operator = here.process.addresses, here.data / "operators" / "ann.pem"
    words = ["--server", addresses["calls"], "--entry", addresses["entry"], "--operator", operator, *arguments]
    command = [*MAIN, "sim", "workstations", "--json", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_due_check_is_one_statement_at_most_and_no_transaction(
    place: tuple[Site, str], postgresql: PostgreSql, tmp_path: Path
) -> None:
    here, name = place
    key = ec.generate_private_key(ec.SECP256R1())
    guids = many_cards(postgresql, name, 200, key.public_key())
    (tmp_path / "names").write_text("".join(f"{guid}\n" for guid in guids))
    (tmp_path / "key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    words = ("--count", "3", "--rate", str(CHECKS), "--seconds", "1", "--names", tmp_path / "names")
    for proof in ((), ("--proof-key", tmp_path / "key")):
        with transactions_of(postgresql, name) as found:
            done = workstations(here, *words, *proof)
        assert done.returncode == 0, done.stderr
        enrolled, stood, checked = json.loads(done.stdout)["parts"]
        assert [one["part"] for one in (enrolled, stood, checked)] == ["enrol", "stand", "insertions"]
        assert (enrolled["answered"], stood["answered"], checked["answered"]) == (3, 3, CHECKS)
        # A stream's one look at its card comes before the checks, and is no transaction either.
        alone = [one[0] for one in found if len(one) == 1]
        asked = [one for one in alone if "device_due" in one and "device.guid" in one]
        # Checks that come at the same time share a statement: each asks for a card by its id.
        assert sum(len(UUIDS.findall(one.rpartition("$3 = ")[2])) for one in asked) == CHECKS + 3
        assert 0 < len(asked) <= CHECKS + 3
        assert [one for one in alone if "card_key" in one and one not in asked] == []
        within = [one for one in found if len(one) > 1 and any("device.guid" in row for row in one)]
        assert within == []


def test_cards_are_issued_and_others_stay_blank(place: tuple[Site, str], tmp_path: Path) -> None:
    here, _ = place
    desk = Desk(here)
    write_tasks(tmp_path / "tasks", to_issue(desk, 6, 50_000_000))
    done = workstations(
        here, "--count", "2", "--issue", tmp_path / "tasks", "--parallel", "6", "--rate", "4", "--seconds", "1",
        "--first-serial", "50000000",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    parts = {one["part"]: one for one in json.loads(done.stdout)["parts"]}
    assert (parts["insertions"]["answered"], parts["issuances"]["answered"]) == (4, 6)
    listed = desk.ask(desk.issuer, "DeviceService", "Find", devices_pb2.FindDevicesRequest(page_size=200)).devices
    states = [one.state for one in listed if one.serial.startswith("500000")]
    assert states == [devices_pb2.DEVICE_STATE_ISSUED] * 6


def test_a_card_that_is_nobodys_is_an_error_by_its_code(place: tuple[Site, str]) -> None:
    here, _ = place
    done = workstations(here, "--count", "1", "--rate", "2", "--seconds", "1", "--first-serial", "90000000")
    assert done.returncode == 1
    assert json.loads(done.stdout)["parts"][-1]["errors"] == {"NO_SUCH_DEVICE": 2}
