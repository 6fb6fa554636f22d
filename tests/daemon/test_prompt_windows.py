"""Dialogs of Windows with a library of ours in place of credui.dll and user32.dll; and which dialog is chosen."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.pinentry import Pinentry, PinentryCancelled, PinentryUnavailable
from cardwright_daemon import dialogs
from cardwright_daemon.config import Pins
from cardwright_daemon.credui import BOX, FLAGS, MAX_REQUEST, Request, shown
from cardwright_daemon.dialog_program import MAX_TEXT
from cardwright_daemon.dialogs import open_dialog
from cardwright_daemon.prompt_macos import MacDialog
from cardwright_daemon.prompt_windows import WindowsDialog
from tests.support.windows_library import Library

ROOT = Path(__file__).parents[2]
REQUEST = Request("cardwright", "Enter it.", "Current PIN")


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=128))
def test_what_was_typed_comes_as_utf8_and_its_buffer_is_wiped(text: str) -> None:
    library = Library(text.encode("utf-16-le"))
    assert shown(REQUEST, library) == b"+" + text.encode() + b"\n"
    assert not any(library.password)


@pytest.mark.parametrize("unit", ["1", "é", "€"])
def test_the_longest_entry_fits(unit: str) -> None:
    library = Library((unit * 257).encode("utf-16-le"))
    assert shown(REQUEST, library) == b"+" + unit.encode() * 257 + b"\n"


def test_texts_are_in_their_places() -> None:
    library = Library()
    shown(Request("cardwright", "Nul \0 and é\U0001f511.", "x" * 600), library)
    assert library.texts == ["cardwright", "Nul   and é\U0001f511.", "cardwright", "x" * 513]


def test_flags_are_those_of_the_headers() -> None:
    """Never stored, no certificates of the card in the list, always shown, generic, the name stays as it is."""
    assert FLAGS == 0x2 + 0x8 + 0x80 + 0x40000 + 0x100000
    assert BOX == 0x40 + 0x10000 + 0x40000


@pytest.mark.parametrize(("error", "line"), [(1223, b"!1223\n"), (1312, b"!1312\n"), (-1, b"!4294967295\n")])
def test_an_error_leaves_nothing_of_what_was_typed(error: int, line: bytes) -> None:
    library = Library("739146".encode("utf-16-le"), error)
    assert shown(REQUEST, library) == line
    assert not any(library.password)


def test_a_message_is_a_box() -> None:
    library = Library()
    assert shown(Request("cardwright", "The password is: x"), library) == b"+\n"
    assert library.texts == ["cardwright", "The password is: x"]
    assert shown(Request("cardwright", "x"), Library(button=0)) == b"!0\n"


def played(made: str) -> WindowsDialog:
    """The process of a dialog, with a library of ours."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from cardwright_daemon import credui\n"
        "from tests.support.windows_library import Library\n"
        f"credui.main({made})"
    )
    return WindowsDialog(20.0, (sys.executable, "-c", code))


def test_the_process_of_a_dialog_answers() -> None:
    with played("Library('73é146'.encode('utf-16-le'))") as dialog:
        given = dialog.ask(title="cardwright", description="é" * 2000, prompt="Current PIN:", error="Wrong.")
    assert given.reveal() == "73é146".encode()


def test_a_closed_dialog_is_no_failure() -> None:
    with played("Library(error=1223)") as dialog, pytest.raises(PinentryCancelled):
        dialog.ask(title="t", description="d", prompt="p")


def test_without_windows_its_process_is_a_clear_error() -> None:
    with WindowsDialog(20.0) as dialog, pytest.raises(PinentryUnavailable, match="ended without an answer"):
        dialog.tell(title="t", description="d")


def test_requests_name_what_is_asked_for_and_fit() -> None:
    with WindowsDialog(20.0, ("/bin/cat",)) as dialog:
        asking = dialog._asking("cardwright", "\x01" * MAX_TEXT, "Current PIN:")
        telling = dialog._telling("cardwright", "Done.")
    assert len(asking) < MAX_REQUEST
    assert msgspec.json.decode(asking, type=Request).what == "Current PIN"
    assert msgspec.json.decode(telling, type=Request) == Request("cardwright", "Done.")


@pytest.mark.parametrize(
    ("platform", "configured", "found", "kind"),
    [
        ("linux", "", True, Pinentry),
        ("linux", "/bin/cat", False, Pinentry),
        ("darwin", "", True, Pinentry),
        ("darwin", "/bin/cat", False, Pinentry),
        ("darwin", "", False, MacDialog),
        ("win32", "", True, WindowsDialog),
        ("win32", "", False, WindowsDialog),
    ],
)
def test_pinentry_goes_before_the_systems_dialog(
    platform: str, configured: str, found: bool, kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "pinentry"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(dialogs, "MacDialog", lambda seconds: MacDialog(seconds, "/bin/cat"))
    monkeypatch.setenv("PATH", str(tmp_path if found else tmp_path / "nothing"))
    dialog = open_dialog(Pins(pinentry=configured), None, platform)
    dialog.close()
    assert type(dialog) is kind


def test_where_nothing_can_ask_there_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PinentryUnavailable, match="'pinentry' cannot be started"):
        open_dialog(Pins(), None, "linux")
    with pytest.raises(PinentryUnavailable, match="not used on Windows"):
        open_dialog(Pins(pinentry="pinentry"), None, "win32")
