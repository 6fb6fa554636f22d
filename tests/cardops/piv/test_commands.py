"""Commands spelled out: every builder against the octets of the standard's rules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cardwright_cardops.iso7816.apdu import CommandAPDU
from cardwright_cardops.piv import commands
from cardwright_cardops.piv.algorithms import (
    Algorithm,
    KeyKind,
    ManagementAlgorithm,
    PinPolicy,
    TouchPolicy,
    UnsupportedAlgorithm,
)
from cardwright_cardops.piv.references import RETIRED_SLOTS, Slot, UnknownSlot, slot_of_certificate
from cardwright_cardops.secret import Secret

PIN, OTHER, PUK = Secret(b"123456"), Secret(b"654321"), Secret(b"12345678")

BUILT: dict[str, CommandAPDU] = {
    "select_piv": commands.select(commands.PIV_AID),
    "select_piv_truncated": commands.select(),
    "get_data_chuid": commands.get_data(0x5FC102),
    "get_data_cert_9a": commands.get_data(0x5FC105),
    "get_data_discovery": commands.get_data(0x7E),
    "get_data_bitgt": commands.get_data(0x7F61),
    "get_data_ccc": commands.get_data(0x5FC107),
    "verify_pin_123456": commands.verify(0x80, PIN),
    "verify_status": commands.pin_state(),
    "verify_reset_status": commands.clear_status(),
    "verify_pairing_12345678": commands.verify(0x98, PUK),
    "change_pin_123456_to_654321": commands.change_reference_data(0x80, PIN, OTHER),
    "change_puk_12345678_to_87654321": commands.change_reference_data(0x81, PUK, Secret(b"87654321")),
    "reset_retry_puk_12345678_pin_123456": commands.reset_retry_counter(PUK, PIN),
    "generate_9a_p256": commands.generate(0x9A, Algorithm.P256),
    "generate_9c_rsa2048": commands.generate(0x9C, Algorithm.RSA2048),
    "ga_internal_auth_9e_p256": commands.use_key(0x11, 0x9E, bytes(32)),
    "ga_ext_auth_challenge_req_9b_aes128": commands.management_challenge(ManagementAlgorithm.AES128),
    "ga_mutual_witness_req_9b_aes128": commands.management_witness(ManagementAlgorithm.AES128),
    "put_data_chuid_empty": commands.put_data(0x5FC102, b""),
}


def test_commands_are_those_of_the_vectors(shared_data: Path) -> None:
    vectors = json.loads((shared_data / "test-vectors.json").read_text())["apdus"]["items"]
    for name, command in BUILT.items():
        short = CommandAPDU(command.cla, command.ins, command.p1, command.p2, command.data, min(command.le, 256))
        assert short.encode().hex().upper() == vectors[name], name


@pytest.mark.parametrize(
    ("command", "wire"),
    [
        (commands.select(b"\x01\x02"), "00a40400020102" + "00"),
        (commands.pin_state(0x00), "00200000"),
        (commands.clear_status(0x98), "0020ff98"),
        (commands.put_data(0x7E, b"\x7e\x00"), "00db3fff027e00"),
        (commands.put_data(0x7F61, b"\x7f\x61\x00"), "00db3fff037f6100"),
        (commands.put_data(0x5FC105, b"\xaa"), "00db3fff085c035fc1055301aa"),
        (commands.use_key(0x11, 0x9D, b"\x04\x01", agree=True), "0087119d087c068200850204" + "01" + "00"),
        (
            commands.generate(0x9A, Algorithm.P256, pin_policy=PinPolicy.ALWAYS, touch_policy=TouchPolicy.CACHED),
            "0047009a0bac09800111aa0103ab010300",
        ),
        (commands.generate(0x9E, Algorithm.P384, pin_policy=PinPolicy.NEVER), "0047009e08ac06800114aa010100"),
        (commands.general_authenticate(3, 0x9B, (0x82, b"\x01"), answers=False), "0087039b057c03820101"),
    ],
)
def test_more_forms(command: CommandAPDU, wire: str) -> None:
    assert (
        CommandAPDU(command.cla, command.ins, command.p1, command.p2, command.data, min(command.le, 256)).encode().hex()
        == wire
    )


def test_answers_are_asked_for_as_large_as_they_come() -> None:
    for command in (commands.get_data(0x7E), commands.generate(0x9A, Algorithm.P256), commands.use_key(7, 0x9A, b"")):
        assert command.le == 65536
    assert commands.put_data(0x5FC102, b"").le == 0


@pytest.mark.parametrize("pin", [b"", b"123456789"])
def test_a_pin_that_fits_no_block_is_refused(pin: bytes) -> None:
    with pytest.raises(ValueError, match="1 to 8 octets"):
        commands.pin_block(Secret(pin))


def test_pin_blocks_are_padded_at_the_end() -> None:
    assert commands.pin_block(Secret(b"1")).hex() == "31ffffffffffffff"
    assert commands.pin_block(PUK) == b"12345678"


def test_algorithms_know_their_names_sizes_and_kinds() -> None:
    rows = {
        Algorithm.RSA1024: ("rsa1024", 128, KeyKind.RSA, 0x06),
        Algorithm.RSA2048: ("rsa2048", 256, KeyKind.RSA, 0x07),
        Algorithm.RSA3072: ("rsa3072", 384, KeyKind.RSA, 0x05),
        Algorithm.RSA4096: ("rsa4096", 512, KeyKind.RSA, 0x16),
        Algorithm.P256: ("p256", 32, KeyKind.EC, 0x11),
        Algorithm.P384: ("p384", 48, KeyKind.EC, 0x14),
        Algorithm.ED25519: ("ed25519", 32, KeyKind.ED25519, 0xE0),
        Algorithm.X25519: ("x25519", 32, KeyKind.X25519, 0xE1),
    }
    assert set(rows) == set(Algorithm)
    for algorithm, (label, octets, kind, code) in rows.items():
        assert (algorithm.label, algorithm.octets, algorithm.kind, int(algorithm)) == (label, octets, kind, code)
        assert Algorithm.named(label.upper()) is algorithm
        assert algorithm.signs is (algorithm is not Algorithm.X25519)
    with pytest.raises(UnsupportedAlgorithm) as caught:
        Algorithm.named("rsa512")
    assert "p256" in caught.value.advice


def test_management_algorithms_know_their_sizes() -> None:
    sizes = {one.name: (int(one), one.key_octets, one.block_octets) for one in ManagementAlgorithm}
    assert sizes == {"TDES": (3, 24, 8), "AES128": (8, 16, 16), "AES192": (10, 24, 16), "AES256": (12, 32, 16)}


def test_slots_know_their_certificates() -> None:
    tags = {"9A": 0x5FC105, "9C": 0x5FC10A, "9D": 0x5FC10B, "9E": 0x5FC101, "82": 0x5FC10D, "95": 0x5FC120}
    for name, tag in tags.items():
        slot = Slot.named(name.lower())
        assert (slot.label, slot.certificate_tag, slot_of_certificate(tag)) == (name, tag, slot)
    assert len(RETIRED_SLOTS) == 20 and all(slot.is_retired for slot in RETIRED_SLOTS)
    assert not Slot.AUTHENTICATION.is_retired and not Slot.ATTESTATION.is_retired
    assert slot_of_certificate(0x5FC102) is None
    for bad in ("9B", "zz", "", "9F", "81"):
        with pytest.raises(UnknownSlot):
            Slot.named(bad)


def test_le_is_all_that_may_come() -> None:
    """256 where an answer is short by nature, all of it where the executing end decides on the length."""
    assert commands.select().le == commands.pin_state().le + 256 == 256
    assert commands.get_data(0x5FC102).le == commands.use_key(0x11, 0x9E, bytes(32)).le == 65536
    assert commands.generate(0x9A, Algorithm.RSA2048).le == 65536
    assert commands.verify(0x80, PIN).le == commands.put_data(0x5FC102, b"").le == 0
