"""Files of the command line: a bad path costs nothing on a card, and files stay what they are."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from cardwright_clients.cli import key as key_commands
from cardwright_clients.cli.files import FileUnusable, require_writable, write_output
from cardwright_simulators.card import VirtualCard
from tests.support.command_line import Desk
from tests.support.virtual import POOL


def desk() -> Desk:
    return Desk(only=VirtualCard("yubikey-5.7", serial=11, key_pool=POOL))


@pytest.mark.parametrize("where", ["absent/key.pem", "", "file/key.pem"])
@pytest.mark.parametrize("line", ["key generate 9a --overwrite", "key attest 9a", "cert export f9", "card trace"])
def test_an_output_that_cannot_be_written_is_refused_before_the_card_is_touched(
    line: str, where: str, tmp_path: Path
) -> None:
    here = desk()
    assert here.run("key", "generate", "9a").code == 0
    before, count = here.cards["only"].state_hash(), here.cards["only"].apdu_count
    (tmp_path / "file").touch()
    ran = here.run(*line.split(), "--out", str(tmp_path / where))
    assert ran.code == 1 and "Error FILE" in ran.err
    assert here.cards["only"].state_hash() == before and here.cards["only"].apdu_count == count


def test_a_key_whose_file_fails_at_the_last_moment_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = desk()
    def full(path: Path | None, content: bytes) -> None:
        if path is not None:
            raise FileUnusable("The disk is full.")
        write_output(path, content)

    monkeypatch.setattr(key_commands, "write_output", full)
    ran = here.run("key", "generate", "9a", "--out", str(tmp_path / "key.pem"))
    assert ran.code == 1 and "The new key IS in slot 9A" in ran.err
    assert "Nothing on the card was changed" not in ran.err
    load_pem_public_key(ran.out.encode())


def test_modes_are_kept_and_umask_is_honoured(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_bytes(b"old")
    old.chmod(0o640)
    write_output(old, b"new")
    assert (old.read_bytes(), stat.S_IMODE(old.stat().st_mode)) == (b"new", 0o640)
    before = os.umask(0o027)
    try:
        write_output(tmp_path / "fresh", b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "fresh").stat().st_mode) == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "old"]


def test_links_are_followed_also_to_what_is_not_there_yet(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    link = tmp_path / "link"
    link.symlink_to(folder / "target")
    for content in (b"one", b"two"):
        require_writable(link)
        write_output(link, content)
        assert link.is_symlink() and (folder / "target").read_bytes() == content


def test_fifos_and_devices_are_written_to(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()))
    reader.start()
    require_writable(fifo)
    write_output(fifo, b"through")
    reader.join(10)
    assert got == [b"through"] and stat.S_ISFIFO(fifo.lstat().st_mode)
    write_output(Path("/dev/null"), b"gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(FileUnusable):
        write_output(Path("/dev/full"), b"too much")


@pytest.mark.parametrize("options", [("--state", "/proc/card.json"), ("--image", "/absent/image.json")])
def test_a_virtual_card_that_can_not_be_read_or_kept_is_not_started(options: tuple[str, str]) -> None:
    ran = desk().run("sim", "card", *options)
    assert ran.code == 1 and "Error FILE" in ran.err and options[1].rsplit("/", 1)[0] in ran.err
    assert "No virtual card was started." in ran.err and "written to a card" not in ran.err
