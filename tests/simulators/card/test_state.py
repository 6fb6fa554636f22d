"""Stores, snapshots, hashes, images: the state survives as the octets it was, or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from pathlib import Path

import pytest

from cardwright_cardops.transport.connection import Interface
from cardwright_simulators.card import (
    PROFILES,
    CardState,
    FileStore,
    MemoryStore,
    StateDamaged,
    UnknownProfile,
    VirtualCard,
    WrongProfile,
    images,
)
from tests.support.raw_card import PIN, WRONG_PIN, RawCard


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_state_reads_back_as_it_was(name: str, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    host = RawCard(name, store=FileStore(path), serial=4711)
    host.select()
    host.verify(WRONG_PIN)
    assert host.admin() == 0x9000
    host.put("5FC107", b"content")
    host.generate("9E")
    again = RawCard(name, store=FileStore(path))
    assert again.card.state_hash() == host.card.state_hash()
    assert again.card.serial == 4711
    again.select()
    assert again.verify() == 0x63C2
    assert again.get("5FC107") == ("5307636F6E74656E74", 0x9000)
    assert again.use("9E", bytes(32))[1] == 0x9000


def test_file_is_private_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    host = RawCard("sp800-73-5", store=FileStore(path))
    host.verify(WRONG_PIN)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["card.json"]
    assert json.loads(path.read_text())["references"]["80"]["tries"] == 2


def test_one_rename_for_each_command_that_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renames: list[str] = []
    replace = Path.replace

    def counted(self: Path, target: Path) -> Path:
        renames.append(str(target))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", counted)
    host = RawCard("sp800-73-5", store=FileStore(tmp_path / "card.json"))
    assert len(renames) == 1
    host.admin()
    host.get("5FC107")
    host.verify()
    assert len(renames) == 1
    host.put("5FC107", bytes(1000))
    host.generate("9A")
    assert len(renames) == 3
    host.verify(WRONG_PIN)
    assert len(renames) == 4


def test_interrupted_write_leaves_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "card.json"
    host = RawCard("sp800-73-5", store=FileStore(path))
    host.admin()
    host.put("5FC107", b"old")
    before = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(os, "fsync", fail)
    assert host.put("5FC107", b"new") == 0x6581
    assert host.verify(PIN) == 0x6581
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["card.json"]
    assert host.get("5FC107")[0] == "53036F6C64"
    assert host.verify() == 0x63C3


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"format": 1}', '{"format": 2}', "\xff"])
def test_damaged_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "card.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(StateDamaged):
        VirtualCard("sp800-73-5", store=FileStore(path))
    assert path.read_bytes() == text.encode("latin-1")


def test_numbers_and_nesting_without_bounds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    card = VirtualCard("sp800-73-5", serial=4711)
    for text in (b"[" * 100_000, card.snapshot().replace(b'"serial":4711', b'"serial":1e999')):
        assert text != card.snapshot()
        path.write_bytes(text)
        with pytest.raises(StateDamaged):
            VirtualCard("sp800-73-5", store=FileStore(path))
    path.write_bytes(b"[" * 100_000)
    with pytest.raises(images.ImageDamaged):
        images.load(path)


def test_files_without_an_end_are_refused() -> None:
    with pytest.raises(StateDamaged):
        VirtualCard("sp800-73-5", store=FileStore("/dev/zero"))
    with pytest.raises(images.ImageDamaged):
        images.load("/dev/zero")


def test_cut_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    VirtualCard("sp800-73-5", store=FileStore(path))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(StateDamaged):
        VirtualCard("sp800-73-5", store=FileStore(path))


def test_wrong_and_unknown_profiles(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "card.json")
    VirtualCard("yubikey-5.4", store=store)
    with pytest.raises(WrongProfile):
        VirtualCard("yubikey-5.7", store=store)
    with pytest.raises(UnknownProfile):
        VirtualCard("yubikey-9")


def test_snapshot_restores_another_card_with_the_same_state() -> None:
    host = RawCard("yubikey-5.7")
    host.select()
    host.admin()
    host.put("5FC107", b"one")
    copy = RawCard.around(VirtualCard.restore(host.card.snapshot()))
    assert copy.card.state_hash() == host.card.state_hash()
    host.put("5FC107", b"two")
    copy.select()
    assert copy.get("5FC107")[0] == "53036F6E65"
    assert copy.card.state_hash() != host.card.state_hash()


def test_reading_and_refusals_leave_the_hash() -> None:
    host = RawCard("yubikey-5.7")
    host.select()
    before = host.card.state_hash()
    for command in ("00F70080", "00F800 00", "00FD0000", "00F700F9", "00F99A00", "00DB3FFF", "0047009A"):
        host.send(command.replace(" ", ""))
    host.get("5FFF01")
    host.get("7E")
    host.verify()
    assert host.card.state_hash() == before


def test_own_profiles_are_values() -> None:
    profile = dataclasses.replace(PROFILES["sp800-73-5"], name="ten-tries", tries=10)
    host = RawCard(profile)
    assert host.verify() == 0x63CA
    copy = VirtualCard.restore(host.card.snapshot(), profile=profile, interface=Interface.CONTACTLESS)
    assert copy.atr == profile.atr_contactless


def test_power_off_forgets_the_volatile_state() -> None:
    host = RawCard("sp800-73-5")
    host.verify(PIN)
    host.card.power_off()
    assert host.card.power_on() == host.card.atr
    assert host.verify() == 0x63C3
    assert host.card.apdu_count == 2


def test_secrets_are_not_in_reprs() -> None:
    state = MemoryStore()
    RawCard("sp800-73-5", store=state)
    loaded = state.load()
    assert isinstance(loaded, CardState)
    shown = repr(loaded) + repr(PROFILES["sp800-73-5"])
    assert "123456" not in shown
    assert repr(PROFILES["sp800-73-5"].management_key) not in shown


def test_image_of_a_card_round_trips() -> None:
    host = RawCard("yubikey-5.7")
    host.select()
    host.admin()
    host.put("5FC107", b"content")
    keys = {slot: host.generate(slot, algorithm) for slot, algorithm in (("9A", "07"), ("9D", "14"), ("82", "E0"))}
    document = json.loads(json.dumps(images.save(host.card)))
    copy = RawCard.around(images.load(document, profile="yubikey-5.7"))
    copy.select()
    assert copy.get("5FC107") == host.get("5FC107")
    for slot, public in keys.items():
        data, sw = copy.send(f"00F700{slot}")
        assert sw == 0x9000
        assert public.hex().upper() in data
    assert images.save(copy.card) == document


@pytest.mark.parametrize(
    "document",
    [{}, {"objects": []}, {"objects": {"XX": ""}}, {"objects": {"7E": "7"}}, {"objects": {}, "keys": {"9A": "3000"}},
     {"objects": {}, "keys": {"9A": {}}}],
)  # fmt: skip
def test_damaged_images_are_refused(document: dict[str, object]) -> None:
    with pytest.raises(images.ImageDamaged):
        images.load(document)


def published(shared_data: Path) -> list[Path]:
    folders = (shared_data / "icam-cards", shared_data / "nist-sd33-cards")
    return [path for folder in folders for path in sorted(folder.glob("*.json")) if path.name != "INDEX.json"]


def test_published_images_answer_octet_by_octet(shared_data: Path) -> None:
    paths = published(shared_data)
    assert len(paths) > 40
    for path in paths:
        document = json.loads(path.read_text())
        host = RawCard.around(images.load(path))
        host.verify(PIN)
        for tag, answer in document["objects"].items():
            assert host.get(tag) == (answer, 0x9000), (path.name, tag)


def test_published_keys_sign(shared_data: Path) -> None:
    path = shared_data / "icam-cards" / "46_Golden_FIPS_201-2_PIV.json"
    host = RawCard.around(images.load(path))
    certificate = bytes.fromhex(json.loads(path.read_text())["certs"]["9E"]["der"])
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import rsa

    public = x509.load_der_x509_certificate(certificate).public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    data, sw = host.use("9E", (12345).to_bytes(256, "big"), "07")
    assert sw == 0x9000
    assert pow(int(data[-512:], 16), public.public_numbers().e, public.public_numbers().n) == 12345
