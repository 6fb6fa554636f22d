"""SCP03 against recorded sessions: our own of every key length, mode and level, and published ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cardwright_cardops.globalplatform.channel import Scp03Channel, authenticate
from cardwright_cardops.globalplatform.put_key import key_check_value, put_key
from cardwright_cardops.globalplatform.scp03 import (
    CardAnswer,
    SecurityLevel,
    StaticKeys,
    initialize_update,
    mac,
    match_candidates,
    session_keys,
)
from cardwright_cardops.iso7816.apdu import CommandAPDU, ResponseAPDU
from cardwright_cardops.secret import Secret

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "data" / "scp03.json").read_text(encoding="ascii"))
OWN: list[dict[str, Any]] = VECTORS["scp03_own"]["sessions"]


def name_of(session: dict[str, Any]) -> str:
    return f"aes{session['aes']}-{'s16' if session['s16'] else 's8'}-{session['level']}"


def keys_of(session: dict[str, Any]) -> StaticKeys:
    return StaticKeys(*(Secret(bytes.fromhex(session[f"key_{name}"])) for name in ("enc", "mac", "dek")))


def open_session(session: dict[str, Any], level: SecurityLevel) -> tuple[CommandAPDU, Scp03Channel]:
    sent = CommandAPDU.parse(bytes.fromhex(session["init_update"]))
    assert initialize_update(sent.p1, sent.data) == sent
    answer = CardAnswer.parse(ResponseAPDU(bytes.fromhex(session["init_update_rsp"]), 0x9000), sent.data)
    derived = session_keys(keys_of(session), answer.context)
    assert [key.reveal().hex() for key in (derived.enc, derived.mac, derived.rmac)] == [
        session["s_enc"],
        session["s_mac"],
        session["s_rmac"],
    ]
    assert match_candidates([keys_of(session)], answer) == 0
    return authenticate(keys_of(session), answer, level)


@pytest.mark.parametrize("session", OWN, ids=name_of)
def test_own_session_reproduces(session: dict[str, Any]) -> None:
    command, channel = open_session(session, SecurityLevel(int(session["level"], 16)))
    assert command.encode().hex() == session["external_authenticate"]
    assert len(session["commands"]) == 4
    for row in session["commands"]:
        wrapped = channel.wrap(CommandAPDU.parse(bytes.fromhex(row["plain"])))
        assert wrapped.encode().hex() == row["wrapped"]
        response = ResponseAPDU(bytes.fromhex(row["response"]), int(row["sw"], 16))
        plain = b"" if response.sw == 0x6A88 else bytes.fromhex(row["response_plain"])
        assert channel.unwrap(response) == ResponseAPDU(plain, response.sw)


def test_own_sessions_are_all_there() -> None:
    assert len({name_of(session) for session in OWN}) == 3 * 2 * 5


def test_published_sessions_reproduce(shared_data: Path) -> None:
    published = json.loads((shared_data / "test-vectors.json").read_text())["scp03_published"]["sessions"]
    assert len(published) == 9
    unwrapped = 0
    for session in published:
        level = SecurityLevel(int(session["name"].rpartition("_")[2], 16))
        command, channel = open_session(session, level)
        assert command.encode().hex() == session["external_authenticate"]
        for row in session["commands"]:
            wrapped = channel.wrap(CommandAPDU.parse(bytes.fromhex(row["plain"])))
            assert wrapped.encode().hex() == row["wrapped"], (session["name"], row)
            if "response_data" in row:
                response = ResponseAPDU(bytes.fromhex(row["response_data"]), int(row["sw"], 16))
                assert channel.unwrap(response).data.hex() == row["response_plain"]
                unwrapped += 1
    assert unwrapped == 9


def test_aes_cmac_of_rfc_4493() -> None:
    rows = VECTORS["aes_cmac_rfc4493"]
    key, message = Secret(bytes.fromhex(rows["key"])), bytes.fromhex(rows["message"])
    for row in rows["rows"]:
        assert mac(key, b"", message[: row["len"]]).hex() == row["cmac"]


def test_put_key_of_amendment_d() -> None:
    row = VECTORS["put_key_aes128"]
    keys = StaticKeys(*(Secret(bytes.fromhex(key)) for key in row["new_keys"]))
    dek = Secret(bytes.fromhex(row["dek"]))
    command = put_key(int(row["new_kvn"], 16), keys, dek, replaces=0x30).command
    # The vector has no Le; the command asks for the confirmation.
    assert command.encode() == bytes.fromhex(row["plain_apdu"]) + b"\x00"


@pytest.mark.parametrize(("first", "expected"), [(0x00, "c35280"), (0x10, "013808"), (0x20, "840de5")])
def test_key_check_values(first: int, expected: str) -> None:
    assert key_check_value(Secret(bytes(range(first, first + 16)))).hex() == expected
