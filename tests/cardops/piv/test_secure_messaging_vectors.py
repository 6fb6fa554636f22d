"""PIV secure messaging against sessions recorded from NIST test cards, the host's and the card's side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cardwright_cardops.iso7816.apdu import CommandAPDU, ResponseAPDU
from cardwright_cardops.piv.cvc import ContentSigner, Cvc, verify_cvc
from cardwright_cardops.piv.secure_messaging import (
    SmHandshake,
    SmSession,
    SmSuite,
    derive_session_keys,
    other_info,
)
from cardwright_cardops.secret import Secret
from cardwright_simulators.card.secure_messaging import CardSession

SESSIONS = 7
FILE = "sm-opacity-vectors.json"


@pytest.fixture(scope="module")
def vectors(shared_data: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((shared_data / FILE).read_text())
    return loaded


def octets(text: str) -> bytes:
    return bytes.fromhex(text)


def answer(row: dict[str, Any]) -> ResponseAPDU:
    return ResponseAPDU(octets(row["r"]), int(row["sw"], 16))


def protected(session: dict[str, Any]) -> list[tuple[CommandAPDU, CommandAPDU, ResponseAPDU, bytes]]:
    """Plain command, protected command with its blocks joined, protected response, plain response data."""
    rows, blocks = [], b""
    for row in session["apdus"]:
        sent = CommandAPDU.parse(octets(row["c"]))
        if sent.cla & 0x0C != 0x0C:
            continue
        blocks += sent.data
        if sent.cla & 0x10:
            continue
        joined = CommandAPDU(sent.cla, sent.ins, sent.p1, sent.p2, blocks, sent.le)
        blocks = b""
        plain = CommandAPDU.parse(octets(row["pc"]))
        rows.append((plain, joined, answer(row), octets(row.get("pr", ""))))
    return rows


def handshake_of(session: dict[str, Any]) -> SmHandshake:
    suite = SmSuite(int(session["suite"], 16))
    secret = int(session["host_ephemeral_private_d"], 16)
    key = ec.derive_private_key(secret, suite.parameters.curve)
    return SmHandshake(suite, host_id=octets(session["id_sH"]), ephemeral=key)


class RecordedKey:
    """Stands for a card's private key that only the card has: what it agreed on is in the recording."""

    def __init__(self, curve: ec.EllipticCurve, shared: bytes) -> None:
        self.curve = curve
        self._shared = shared

    def exchange(self, algorithm: ec.ECDH, peer: ec.EllipticCurvePublicKey) -> bytes:
        assert peer.curve.name == self.curve.name
        return self._shared


@pytest.mark.parametrize("index", range(SESSIONS))
def test_host_reproduces_a_recorded_session(vectors: dict[str, Any], index: int) -> None:
    recorded = vectors["sessions"][index]
    handshake = handshake_of(recorded)
    assert handshake.command.encode() == octets(recorded["ga_command"])
    session = handshake.finish(ResponseAPDU(octets(recorded["ga_response"]), 0x9000), None)
    assert session.card.guid == Cvc.parse(octets(recorded["c_icc"])).subject
    assert not session.card.proven
    rows = protected(recorded)
    assert rows
    for plain, joined, response, data in rows:
        assert session.wrap(plain) == joined
        got = session.unwrap(response)
        assert got.data == data
        assert b"\x99\x02" + got.sw.to_bytes(2, "big") == response.data[-14:-10]


@pytest.mark.parametrize("index", range(SESSIONS))
def test_key_derivation_step_by_step(vectors: dict[str, Any], index: int) -> None:
    recorded = vectors["sessions"][index]
    suite = SmSuite(int(recorded["suite"], 16))
    request = CommandAPDU.parse(octets(recorded["ga_command"])).data
    point = request[13:-2]
    info = other_info(
        suite,
        octets(recorded["id_sH"]),
        point,
        octets(recorded["id_sICC"]),
        octets(recorded["n_icc"]),
    )
    assert info == octets(recorded["other_info"])
    keys = derive_session_keys(suite, Secret(octets(recorded["Z"])), info)
    assert [key.reveal() for key in (keys.confirmation, keys.mac, keys.enc, keys.rmac)] == [
        octets(recorded[name]) for name in ("sk_cfrm", "sk_mac", "sk_enc", "sk_rmac")
    ]


@pytest.mark.parametrize("index", range(SESSIONS))
def test_virtual_card_reproduces_a_recorded_session(vectors: dict[str, Any], index: int) -> None:
    recorded = vectors["sessions"][index]
    suite = SmSuite(int(recorded["suite"], 16))
    key = RecordedKey(suite.parameters.curve, octets(recorded["Z"]))
    card = CardSession()
    data = card.establish(
        CommandAPDU.parse(octets(recorded["ga_command"])).data,
        suite.value,
        cast(ec.EllipticCurvePrivateKey, key),
        octets(recorded["c_icc"]),
        draw=lambda size: octets(recorded["n_icc"])[:size],
    )
    assert data == octets(recorded["ga_response"])
    host: SmSession = handshake_of(recorded).finish(ResponseAPDU(data, 0x9000), None)
    for plain, joined, response, _ in protected(recorded):
        unwrapped = card.unwrap(joined)
        assert unwrapped.header == plain.header
        assert (unwrapped.data, bool(unwrapped.le)) == (plain.data, bool(plain.le))
        host.wrap(plain)
        assert card.wrap(host.unwrap(response)) == response


def test_all_recorded_sessions_are_used(vectors: dict[str, Any]) -> None:
    assert len(vectors["sessions"]) == SESSIONS
    assert {session["suite"] for session in vectors["sessions"]} == {"0x27", "0x2E"}


def test_recorded_cards_are_vouched_for(vectors: dict[str, Any]) -> None:
    expected = {"card-3-intermediate": True, "card-4-direct": False, "card-2-direct": False}
    for name, through_intermediate in expected.items():
        row = vectors["sm_signer_objects"][name]
        item = octets(row["smcs_5fc122"])
        at = item.find(b"\x7f\x21\x82") if through_intermediate else len(item)
        size = 5 + int.from_bytes(item[at + 3 : at + 5], "big")
        signer = ContentSigner.load(octets(row["content_signer"]), item[at : at + size])
        assert (signer.intermediate is not None) == through_intermediate
        when = signer.certificate.not_valid_before_utc
        verify_cvc(Cvc.parse(octets(row["cvc"])), signer, at=when)
