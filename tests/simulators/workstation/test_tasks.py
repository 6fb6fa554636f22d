"""What simulated workstations are given to do, and how it is summed up."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cardwright_cardops.piv.proofs import PROOF_AUDIENCE, check_nonce, verify
from cardwright_simulators.workstation import Identity, LoadRefused, Times, checked_address, read_names, read_tasks


def test_names_are_card_uuids_or_serial_numbers(tmp_path: Path) -> None:
    guid = uuid4()
    (tmp_path / "names").write_text(f"{guid}\n\n12345\n")
    first, second = read_names(tmp_path / "names")
    assert (first.guid, second.guid, second.serial) == (guid, None, "12345")
    assert (first.request().card.guid, first.request().proof) == (str(guid), b"")


def test_a_proof_is_one_that_the_server_would_accept(tmp_path: Path) -> None:
    key, guid = ec.generate_private_key(ec.SECP256R1()), uuid4()
    (tmp_path / "names").write_text(str(guid))
    (tmp_path / "key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (named,) = read_names(tmp_path / "names", tmp_path / "key")
    while True:  # unless a minute ended in between
        before = check_nonce(guid, datetime.now(UTC))
        proof = named.request().proof
        if check_nonce(guid, datetime.now(UTC)) == before:
            break
    verify(proof, audience=PROOF_AUDIENCE, nonce=before, key=key.public_key())


@pytest.mark.parametrize("text", ["", "{}\n", '{"serial": 1}\n', '{"serial": "1", "x": 2}\n', "no json\n"])
def test_tasks_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "tasks").write_text(text)
    with pytest.raises(LoadRefused):
        read_tasks(tmp_path / "tasks")


def test_a_task_does_not_show_its_password(tmp_path: Path) -> None:
    (tmp_path / "tasks").write_text('{"serial": 7, "request": "r", "login": "ann", "password": "geheim"}\n')
    (task,) = read_tasks(tmp_path / "tasks")
    assert (task.serial, task.password) == (7, "geheim")
    assert "geheim" not in repr(task)


@pytest.mark.parametrize("text", ["", "host", "host:0", "host:65536", ":1", "http://h:1", "a b:1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(LoadRefused):
        checked_address(text)


def test_a_file_that_is_no_operators_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("nothing")
    with pytest.raises(LoadRefused):
        Identity.read(tmp_path / "file")


def test_percentiles_are_of_what_succeeded() -> None:
    times = Times([0.001 * number for number in range(100, 0, -1)], Counter({"NO_SUCH_DEVICE": 2}))
    assert (times.at(0.5), times.at(0.99), times.at(1)) == (0.05, 0.099, 0.1)
    assert times.document() == {
        "answered": 100, "errors": {"NO_SUCH_DEVICE": 2}, "p50_ms": 50.0, "p99_ms": 99.0, "longest_ms": 100.0,
    }  # fmt: skip
    assert math.isnan(Times().at(0.5))
    assert Times().document()["p99_ms"] is None
