"""Where ``card init`` keeps the secrets of cards that have no number, and whose they are taken for."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.inventory import Identity
from cardwright_cardops.plan.journal_file import FileJournal
from cardwright_cardops.plan.records import Entry, Kind, fold
from cardwright_clients.cli.secrets_file import default_path
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.reader.faults import FaultyCard
from tests.support.command_line import Desk
from tests.support.virtual import POOL

SECRETS = "271828\n31415926\n"
INIT = ("card", "init", "--keys", "9a=p256", "--management-key", "--keep-management-key", "--json")
GUID = UUID("6f4f1c1e-5ca0-4c5e-9a52-9d5f5c0b1a77")


def blank() -> VirtualCard:
    """A fresh card without a serial number."""
    return VirtualCard("sp800-73-5", key_pool=POOL)


def told(card: VirtualCard) -> str:
    """What ``card init`` is told on --secrets-fd."""
    return f"{SECRETS}{card.profile.management_key.hex()}\n"


def interrupted(desk: Desk, folder: Path) -> tuple[VirtualCard, Path]:
    """A card torn out after PIN and PUK were set, before it has a GUID; and its file."""
    card = blank()
    for number in range(10, 40):
        card = blank()
        desk.cards["only"] = FaultyCard(card, f"apdu={number}+:remove")  # type: ignore[assignment]
        assert desk.run(*INIT, secrets=told(card)).code == 1
        card.power_off()
        for file in folder.glob("*.secrets"):
            records = fold(FileJournal.resume(file).entries())
            if records.pin_settled and records.puk.settled:
                return card, file
            file.unlink()
    raise AssertionError("no fault came between the PIN and the GUID")


def test_a_blank_card_is_never_taken_for_one_that_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = tmp_path / "cardwright" / "cards"
    desk = Desk(only=blank())
    first, begun = interrupted(desk, folder)
    kept = begun.read_bytes()
    promised = str(fold(FileJournal.resume(begun).entries()).guid)

    second = blank()
    desk.cards["only"] = second
    ran = desk.run(*INIT, secrets=told(second))
    assert ran.code == 0, ran.err
    assert ran.json["identity"]["guid"] != promised
    assert begun.read_bytes() == kept
    assert desk.run("pin", "change", secrets="271828\n161803\n").code == 0
    second.transmit(bytes.fromhex("00A4040009A00000030800001000"))
    unblock = bytes.fromhex("002C008010") + b"31415926" + b"271828\xff\xff"
    assert second.transmit(unblock)[-2:] == b"\x90\x00"

    desk.cards["only"] = first
    ran = desk.run(*INIT, "--secrets-out", str(begun), secrets=told(first))
    assert ran.code == 0, ran.err
    assert ran.json["identity"]["guid"] == promised
    assert Path(ran.json["secrets"]) == folder / f"{promised}.secrets"
    assert not begun.exists()

    desk.cards["only"] = third = blank()
    before = third.state_hash()
    ran = desk.run(*INIT, "--secrets-out", str(folder / f"{promised}.secrets"), secrets=told(third))
    assert ran.code == 1 and "JOURNAL_OTHER_CARD" in ran.err
    assert third.state_hash() == before


def test_names_are_found_by_evidence_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = tmp_path / "cardwright" / "cards"
    folder.mkdir(parents=True)
    begun = folder / "unnumbered-1.secrets"
    FileJournal.begin(begun).note(
        (Entry(Kind.CARD, guid=GUID), Entry(Kind.CERTIFICATE, slot=Slot.CARD_AUTHENTICATION, fingerprint="ab"))
    )
    (folder / "unnumbered-0.secrets").write_bytes(b"damaged")
    (folder / "unnumbered-2.secrets").symlink_to(begun)
    assert default_path(Identity(guid=GUID)) == begun
    assert default_path(Identity(card_key="ab")) == begun
    assert default_path(Identity(serial="17", guid=GUID)).name == "17.secrets"
    other = UUID(int=6)
    assert default_path(Identity(guid=other)).name == f"{other}.secrets"
    fresh = {default_path(identity) for identity in (Identity(), Identity(), Identity(card_key="cd"))}
    assert len(fresh) == 3 and not any(path.exists() for path in fresh)


def test_the_management_key_that_another_program_set_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    card = VirtualCard("yubikey-5.7", serial=4711, key_pool=POOL)
    desk = Desk(only=card)
    assert desk.run("card", "init", "--keys", "9a=p256", secrets=SECRETS).code == 0
    new = "5A" * 24
    state = card._core.state  # what a program that knew the key would have set
    state.management = replace(state.management, value=bytes.fromhex(new))
    ran = desk.run("key", "generate", "82", secrets=f"{new}\n")
    assert ran.code == 1 and "MANAGEMENT_KEY_WRONG" in ran.err and "--management-key" in ran.err
    ran = desk.run("key", "generate", "82", "--management-key", secrets=f"{new}\n")
    assert ran.code == 0 and "BEGIN PUBLIC KEY" in ran.out
    ran = desk.run("cert", "delete", "9a", "--management-key", "--management-key-file", "x", secrets=f"{new}\n")
    assert ran.code == 2
    assert desk.run("cert", "delete", "9a", "--management-key", secrets=f"{new}\n").code == 0


def test_a_card_that_another_program_reset_has_its_factory_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    desk = Desk(only=VirtualCard("yubikey-5.7", serial=4711, key_pool=POOL))
    assert desk.run("card", "init", "--keys", "9a=p256", secrets=SECRETS).code == 0
    desk.cards["only"] = VirtualCard("yubikey-5.7", serial=4711, key_pool=POOL)
    assert desk.run("key", "generate", "82").code == 0


def test_a_pin_and_a_puk_that_were_set_before_stay_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    desk = Desk(only=VirtualCard("yubikey-5.7", serial=4711, key_pool=POOL))
    init = ("card", "init", "--keys", "9a=p256")
    assert desk.run("pin", "change", "--puk", secrets="12345678\n87654321\n").code == 0
    assert desk.run("pin", "change", secrets="123456\n271828\n").code == 0
    ran = desk.run(*init, secrets=SECRETS)
    assert ran.code == 0 and "The PUK was set before and stays" in ran.out and "The PIN was set before" in ran.out
    assert desk.run(*init, "--json", secrets=SECRETS).json["stays"] == ["pin", "puk"]
    assert desk.run("pin", "unblock", secrets="87654321\n271828\n").code == 0
    fresh = Desk(only=VirtualCard("yubikey-5.7", serial=4712, key_pool=POOL))
    assert fresh.run(*init, "--json", secrets=SECRETS).json["stays"] == []
    assert fresh.run("pin", "change", secrets="271828\n314159\n").code == 0
    again = fresh.run(*init, "--json", "--secrets-out", str(tmp_path / "none"), secrets=SECRETS)
    assert again.json["secrets"] is None


def test_a_card_that_takes_nothing_from_outside_is_set_up_with_what_the_errors_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    card = blank()
    desk = Desk(only=card)
    secrets = told(card)
    said = desk.run("card", "init", secrets=secrets).err
    keys = re.search(r"with (--keys \S+) it", said)
    assert keys is not None and "--keep-management-key" in said
    options = [*keys[1].split(), "--keep-management-key"]
    said = desk.run("card", "init", *options, secrets=secrets).err
    assert "MANAGEMENT_KEY_WRONG" in said and "--management-key asks for it" in said
    assert desk.run("card", "init", *options, "--management-key", secrets=secrets).code == 0
    assert desk.run("card", "check").code == 0
