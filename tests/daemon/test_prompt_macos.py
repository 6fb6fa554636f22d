"""Dialogs of macOS: what osascript would be told, and programs in its place that answer, refuse, hang and babble."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.pinentry import PinentryCancelled, PinentryUnavailable, Seat
from cardwright_cardops.piv.references import PinReference
from cardwright_cardops.plan.pin_rules import PinRules
from cardwright_daemon.config import Pins
from cardwright_daemon.dialogs import Dialog
from cardwright_daemon.prompt_macos import MacDialog, literal
from cardwright_daemon.prompts import Asked, DialogPrompter, ask_current, ask_new

_ATOM = r'(?:"(?:[^"\\]|\\.)*"|\(character id [0-9]+\))'
_TEXT = re.compile(rf"\({_ATOM}(?: & {_ATOM})*\)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}


def read(expression: str) -> str:
    """What AppleScript makes of an expression of quoted strings and character numbers."""
    assert expression == '""' or _TEXT.fullmatch(expression)
    found = []
    for quoted, number in re.findall(r'"((?:[^"\\]|\\.)*)"|character id ([0-9]+)', expression):
        found.append(chr(int(number)) if number else re.sub(r"\\(.)", lambda one: _ESCAPES[one[1]], quoted))
    return "".join(found)


def program(folder: Path, then: str) -> str:
    """An osascript that keeps its arguments and its script, numbered, and does ``then``."""
    file = folder / "osascript"
    file.write_text(
        f'#!/bin/sh\ncd {folder}\nn=$(ls | grep -c script.)\necho "$@" >> arguments\ncat > script.$n\n{then}\n'
    )
    file.chmod(0o755)
    return str(file)


def dialog(folder: Path, then: str, seconds: float = 20.0) -> MacDialog:
    return MacDialog(seconds, program(folder, then))


def ask(shown: MacDialog) -> bytes:
    with shown:
        return shown.ask(title="cardwright", description="Enter it.", prompt="Current PIN:", error="Wrong.").reveal()


def asker(folder: Path, then: str) -> DialogPrompter:
    def opening(pins: Pins, seat: Seat | None) -> Dialog:
        return dialog(folder, then, pins.seconds)

    return DialogPrompter(Pins(seconds=20), asyncio.Lock(), None, opening)


@given(st.text() | st.text('"\\&()\n\r\t -#*«»é a'))
def test_applescript_reads_the_text_back_and_nothing_ends_it(text: str) -> None:
    written = literal(text)
    assert written.isascii() and written.isprintable()
    assert read(written) == text


@given(st.text(max_size=50), st.text(max_size=50), st.text(max_size=50))
def test_texts_change_nothing_else_in_the_script(title: str, text: str, prompt: str) -> None:
    shown = MacDialog(20, "/bin/true")
    shown.close()
    script = shown._asking("x" + title, text, prompt).decode("ascii")
    plain = shown._asking("x", "x", "x").decode("ascii")
    assert _TEXT.sub("TEXT", script) == _TEXT.sub("TEXT", plain)
    assert [read(found) for found in _TEXT.findall(script)] == [f"{text}\n\n{prompt}", "x" + title]


def test_what_was_typed_comes_back_and_nothing_is_an_argument(tmp_path: Path) -> None:
    assert ask(dialog(tmp_path, "printf '+12 \\303\\251+!\\n'")) == "12 é+!".encode()
    assert (tmp_path / "arguments").read_text() == "-\n"
    script = (tmp_path / "script.0").read_text()
    assert [read(found) for found in _TEXT.findall(script)] == [
        "Wrong.\n\nEnter it.\n\nCurrent PIN:", "cardwright"
    ]  # fmt: skip
    assert "with hidden answer giving up after 30" in script


def test_nothing_typed_is_an_empty_value(tmp_path: Path) -> None:
    assert ask(dialog(tmp_path, "echo +")) == b""


def test_a_closed_dialog_is_no_failure(tmp_path: Path) -> None:
    with pytest.raises(PinentryCancelled):
        ask(dialog(tmp_path, "echo '!-128'"))


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ("echo '!-1713'", "cannot ask for a PIN (error -1713)"),
        ("exit 1", "ended without an answer"),
        ("printf +1234", "ended without an answer"),
        ("printf '+12\\n34\\n'", "ended without an answer"),
        ("echo '!x'", "ended without an answer"),
        ("echo 1234", "ended without an answer"),
        ("exec yes +", "ended without an answer"),
        ("exec tr '\\0' 1 < /dev/zero", "ended without an answer"),
    ],
)
def test_answers_that_are_none_are_clear_errors_without_them(then: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(PinentryUnavailable) as caught:
        ask(dialog(tmp_path, then))
    assert said in str(caught.value)
    assert "1234" not in caught.value.explain()
    assert "desktop" in caught.value.advice


@pytest.mark.parametrize("then", ["exec sleep 600", "trap '' TERM; printf +12; while :; do read -r x < never; done"])
def test_a_person_has_limited_time(then: str, tmp_path: Path) -> None:
    shown = dialog(tmp_path, "mkfifo never\n" + then, 0.3)
    with pytest.raises(PinentryUnavailable, match="not answered in time"):
        ask(shown)
    assert shown._process.returncode is not None


def test_a_program_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(PinentryUnavailable, match="cannot be started"):
        MacDialog(20, str(tmp_path / "absent"))


def test_a_message_has_one_button_and_no_entry(tmp_path: Path) -> None:
    with dialog(tmp_path, "echo +") as shown:
        shown.tell(title="cardwright", description='The password is: "x"')
    script = (tmp_path / "script.0").read_text()
    assert 'buttons {"OK"} default button "OK" giving up' in script
    assert "default answer" not in script and "text returned" not in script
    assert read(_TEXT.findall(script)[0]) == 'The password is: "x"'


async def test_a_cancelled_question_closes_its_dialog_at_once(tmp_path: Path) -> None:
    prompter = asker(tmp_path, "mkfifo never\n: > asked\nexec cat never")
    task = asyncio.create_task(prompter.ask(Asked("current PIN", "x")))
    async with asyncio.timeout(10):
        while not (tmp_path / "asked").exists():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_cancel_says_cancelled_and_not_unavailable(tmp_path: Path) -> None:
    with dialog(tmp_path, "mkfifo never\n: > asked\nexec cat never") as shown:
        asking = asyncio.create_task(asyncio.to_thread(shown.ask, title="t", description="d", prompt="p"))
        async with asyncio.timeout(10):
            while not (tmp_path / "asked").exists():
                await asyncio.sleep(0.01)
        shown.cancel()
        with pytest.raises(PinentryCancelled):
            await asking


async def test_a_pin_is_changed_by_dialogs(tmp_path: Path) -> None:
    """The act, the tries, the rules, what was wrong, and the entry once more are all shown."""
    prompter = asker(tmp_path, "case $n in 0) echo +123456;; 1) echo +7391;; *) echo +639174;; esac")
    act = "change the PIN of card 42 in reader “é”"
    old = await ask_current(prompter, PinReference.PIN, act, 2)
    new = await ask_new(prompter, PinReference.PIN, act, PinRules(), old)
    assert (old.reveal(), new.reveal()) == (b"123456", b"639174")
    shown = [read(_TEXT.findall((tmp_path / f"script.{n}").read_text())[0]) for n in range(4)]
    assert shown[0] == f"Enter the current PIN to {act}. 2 tries left.\n\nCurrent PIN:"
    assert shown[1].startswith(f"Enter the new PIN to {act}. It has 6 to 8 digits")
    assert shown[2].startswith(f"It is too short.\n\nEnter the new PIN to {act}.")
    assert shown[3] == f"Enter the new PIN once more to {act}.\n\nNew PIN once more:"
