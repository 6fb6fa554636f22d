"""Starting: the command, its errors, and the files that start it with a session."""

from __future__ import annotations

import configparser
import json
import plistlib
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as Xml
from collections.abc import Iterator
from pathlib import Path

import pytest

import cardwright_daemon
from tests.support.daemons import short_folder

PACKAGING = Path(cardwright_daemon.__file__).parent / "packaging"
CARDWRIGHT = [sys.executable, "-c", "from cardwright_clients.cli.main import main; main()"]


@pytest.fixture
def settings() -> Iterator[Path]:
    """A configuration file with a folder of its own."""
    folder = short_folder()
    file = folder.parent / "daemon.toml"
    file.write_text(f'folder = "{folder}"\npcsc = false\n')
    yield file
    shutil.rmtree(folder.parent, ignore_errors=True)


def test_the_command_runs_until_interrupted_and_a_second_one_says_why_not(settings: Path) -> None:
    command = [*CARDWRIGHT, "daemon", "--config", str(settings), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        socket = json.loads(first.stdout.readline())["socket"]
        assert Path(socket).is_socket()
        second = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert second.returncode == 1
        assert json.loads(second.stdout)["error"]["code"] == "DAEMON_RUNNING"
        first.send_signal(signal.SIGINT)
        assert first.wait(30) == 0
    assert not Path(socket).exists()


def test_a_configuration_that_cannot_be_read_is_an_error(settings: Path) -> None:
    settings.write_text("foldr = 1\n")
    done = subprocess.run(
        [*CARDWRIGHT, "daemon", "--config", str(settings)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "DAEMON_CONFIG_INVALID" in done.stderr
    module = subprocess.run(
        [sys.executable, "-m", "cardwright_daemon", "--config", str(settings)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert module.returncode == 1
    assert "DAEMON_CONFIG_INVALID" in module.stderr


def test_the_files_that_start_it_name_the_command() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(PACKAGING / "cardwright-daemon.service")
    assert unit["Service"]["ExecStart"].endswith("cardwright daemon")
    assert unit["Service"]["UMask"] == "0077"
    agent = plistlib.loads((PACKAGING / "io.cardwright.daemon.plist").read_bytes())
    assert agent["ProgramArguments"][-1] == "daemon"
    assert agent["Umask"] == 0o077
    task = Xml.fromstring((PACKAGING / "cardwright-daemon-task.xml").read_bytes())
    space = "{" + task.tag[1:].partition("}")[0] + "}"
    assert task.findtext(f"{space}Actions/{space}Exec/{space}Arguments") == "daemon"
    for name in ("io.cardwright.daemon.plist", "cardwright-daemon-task.xml"):
        assert "UNTESTED" in (PACKAGING / name).read_text()
