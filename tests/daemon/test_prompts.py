"""Prompts through a pinentry program: what it is told, and that it can always be closed."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import termios
from pathlib import Path

import pytest

from cardwright_cardops.pinentry import PinentryCancelled, PinentryUnavailable, Seat
from cardwright_daemon.config import Pins
from cardwright_daemon.errors import BadRequest
from cardwright_daemon.prompts import Asked, DialogPrompter, seat_of
from cardwright_proto.agent.v1 import agent_pb2 as pb
from tests.support.daemons import failing, running, token


def program(folder: Path, getpin: str, *, wait: bool = False) -> str:
    """A pinentry that writes down what it hears and answers GETPIN with lines of ``getpin``, one each time."""
    answers = folder / "answers"
    answers.write_text(getpin)
    file = folder / "pinentry"
    hang = f"mkfifo {folder}/never 2>/dev/null; : > {folder}/asked; read -r x < {folder}/never;" if wait else ""
    file.write_text(
        f"#!/bin/sh\necho \"display $DISPLAY\" >> {folder}/heard\necho 'OK hello'\n"
        "while read -r line; do\n"
        f'  printf "%s\\n" "$line" >> {folder}/heard\n'
        f"  case $line in GETPIN) {hang} head -n 1 {answers}; sed -i 1d {answers}; echo OK;; *) echo OK;; esac\ndone\n"
    )
    file.chmod(0o755)
    return str(file)


def asker(name: str, seat: Seat | None = None) -> DialogPrompter:
    return DialogPrompter(Pins(pinentry=name, seconds=20), asyncio.Lock(), seat)


async def test_pinentry_is_told_the_act_and_where_the_person_sits(tmp_path: Path) -> None:
    seat = seat_of("/dev/pts/7", "xterm-256color", ":3")
    given = await asker(program(tmp_path, "D 739146\n"), seat).ask(
        Asked("current PIN", "unblock card 1\nOPTION evil", 2, error="It was wrong.")
    )
    assert given.reveal() == b"739146"
    heard = (tmp_path / "heard").read_text().splitlines()
    assert heard[0] == "display :3"
    assert "OPTION ttyname=/dev/pts/7" in heard
    assert "OPTION ttytype=xterm-256color" in heard
    assert "SETERROR It was wrong." in heard
    assert "SETDESC Enter the current PIN to unblock card 1%0AOPTION evil. 2 tries left." in heard
    assert not any(line.startswith("OPTION evil") for line in heard)


async def test_a_cancelled_question_ends_its_program_at_once(tmp_path: Path) -> None:
    prompter = asker(program(tmp_path, "", wait=True))
    task = asyncio.create_task(prompter.ask(Asked("current PIN", "x")))
    async with asyncio.timeout(10):
        while not (tmp_path / "asked").exists():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    # The lock is free again, and the next question gets its answer.
    second = tmp_path / "second"
    second.mkdir()
    prompter._pins = Pins(pinentry=program(second, "D 1\n"))
    assert (await prompter.ask(Asked("current PIN", "x"))).reveal() == b"1"


async def test_cancel_says_cancelled_and_not_unavailable(tmp_path: Path) -> None:
    from cardwright_cardops.pinentry import Pinentry

    with Pinentry(program(tmp_path, "", wait=True)) as entry:
        asking = asyncio.create_task(asyncio.to_thread(entry.ask, title="t", description="d", prompt="p"))
        async with asyncio.timeout(10):
            while not (tmp_path / "asked").exists():
                await asyncio.sleep(0.01)
        entry.cancel()
        with pytest.raises(PinentryCancelled):
            await asking


async def test_without_pinentry_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(PinentryUnavailable):
        await asker(str(tmp_path / "absent")).ask(Asked("current PIN", "x"))
    async with running(token(), asks=False, pins=Pins(pinentry="/absent/pinentry")) as run:
        card = (await run.client.card()).id
        error = await failing(run.client.pins.ChangePin(pb.ChangePinRequest(card=card)))
        status = await run.client.pins.GetPinStatus(pb.GetPinStatusRequest(card=card))
    assert error.code == "PINENTRY_UNAVAILABLE"
    assert status.pin.tries_left == 3


async def test_where_nobody_can_be_asked_there_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's pinentry without a terminal and a display, as a daemon that was started with the machine has it."""
    program = shutil.which("pinentry-curses")
    if program is None:
        pytest.skip("pinentry-curses is not installed (package pinentry-curses)")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "GPG_TTY"):
        monkeypatch.delenv(name, raising=False)
    async with running(token(), asks=False, pins=Pins(pinentry=program)) as run:
        card = (await run.client.card()).id
        for seat in (pb.Asking(), pb.Asking(tty="/dev/pts/999999", tty_type="xterm"), pb.Asking(display=":999")):
            error = await failing(run.client.pins.ChangePin(pb.ChangePinRequest(card=card, asking=seat)))
            assert (error.code, error.effect) == ("PINENTRY_UNAVAILABLE", "Nothing was sent to the card.")
            assert "on a terminal" in error.advice


async def test_the_daemon_changes_a_pin_with_a_pinentry_program(tmp_path: Path) -> None:
    name = program(tmp_path, "D 123456\nD 639174\nD 639174\n")
    async with running(token(), asks=False, pins=Pins(pinentry=name)) as run:
        card = (await run.client.card()).id
        asking = pb.Asking(tty="/dev/pts/0", tty_type="xterm")
        await run.client.pins.ChangePin(pb.ChangePinRequest(card=card, asking=asking))
    heard = (tmp_path / "heard").read_text()
    assert heard.count("GETPIN") == 3
    assert "3 tries left" in heard


@pytest.mark.parametrize(
    ("tty", "kind", "display"),
    [("/etc/passwd", "xterm", ""), ("/dev/pts/1", "x\ny", ""), ("", "", ":0\n"), ("/dev/../etc", "xterm", ":0")],
)
def test_odd_places_to_sit_are_refused(tty: str, kind: str, display: str) -> None:
    with pytest.raises(BadRequest):
        seat_of(tty, kind, display)


def test_no_seat_is_the_daemons_own() -> None:
    assert seat_of("", "", "") is None


async def test_the_real_curses_program_asks_on_the_terminal_of_the_caller() -> None:
    """A stranger's pinentry, on a terminal of ours: what it shows, and what is typed there."""
    program = shutil.which("pinentry-curses")
    if program is None:
        pytest.skip("pinentry-curses is not installed (package pinentry-curses)")
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    seat = seat_of(os.ttyname(theirs), "xterm", "")
    asking = asyncio.create_task(
        asker(program, seat).ask(Asked("current PIN", "unblock card 42", 2, error="It was wrong."))
    )
    shown = ""
    try:
        async with asyncio.timeout(20):
            while "OK" not in shown:
                shown += (await asyncio.to_thread(os.read, ours, 4096)).decode("utf-8", "replace")
            for key in b"739146\r":
                os.write(ours, bytes((key,)))
            given = await asking
    finally:
        asking.cancel()
        os.close(ours)
        os.close(theirs)
    assert given.reveal() == b"739146"
    plain = re.sub(r"\x1b[\[(][0-9;?]*[a-zA-Z]", "", shown)
    assert "unblock card 42" in plain and "2 tries left" in plain
    assert "739146" not in plain
