"""The daemon as a process of its own, on the private pcscd, with a person at its pinentry."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from cardwright_cardops.workstation import SOCKET

_PATIENCE = 60
"""Seconds for the process to start or to end, on a machine that does other things as well."""
_PINENTRY = """#!/bin/sh
here=${0%/*}
echo 'OK hello'
while read -r word rest; do
  case $word in
    SETDESC) asked=$rest; echo OK;;
    GETPIN)
      case $asked in *password*) name=password;; *new\\ PIN*) name=new;; *) name=current;; esac
      echo "$name" >> "$here/asked"
      printf 'D %s\\nOK\\n' "$(cat "$here/$name")";;
    *) echo OK;;
  esac
done
"""


@dataclass
class Typing:
    """What somebody types at the pinentry in ``folder``, and what was asked there."""

    folder: Path

    def __post_init__(self) -> None:
        """Make the program."""
        self.program.write_text(_PINENTRY)
        self.program.chmod(0o755)

    @property
    def program(self) -> Path:
        """The pinentry."""
        return self.folder / "pinentry"

    def types(self, **values: bytes) -> None:
        """From now on: ``password``, ``current``, ``new``."""
        for name, value in values.items():
            (self.folder / name).write_bytes(value)

    @property
    def asked(self) -> list[str]:
        """Names of what was asked, in turn."""
        file = self.folder / "asked"
        return file.read_text().split() if file.exists() else []


@dataclass
class DaemonProcess:
    """``python -m cardwright_daemon``. ``address``: of the server; ``credentials``: the workstation's folder."""

    address: str
    credentials: Path
    place: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="cw-", dir="/tmp")))
    process: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        """Make its folder and configuration."""
        self.typing = Typing(self.place)
        self.configure()

    def configure(self) -> None:
        """Write its configuration, for the next start."""
        told = (("address", self.address), ("folder", str(self.credentials)))
        server = "".join(f"{name} = {json.dumps(value)}\n" for name, value in told)
        (self.place / "daemon.toml").write_text(
            f"folder = {json.dumps(str(self.folder))}\n"
            f"[pins]\npinentry = {json.dumps(str(self.typing.program))}\n"
            f"[updates]\nspread = 0\ncheck_seconds = 30\n[server]\n{server}"
        )

    def serve(self, address: str) -> None:
        """Have it at another server's address from its next start on; it is ended where it runs with the old one."""
        if address != self.address:
            self.address = address
            self.configure()
            if self.runs:
                self.kill()

    @property
    def folder(self) -> Path:
        """Where its socket lies."""
        return self.place / "run"

    @property
    def socket(self) -> Path:
        """Where clients connect."""
        return self.folder / SOCKET

    @property
    def complaint(self) -> str:
        """Its log."""
        return (self.place / "stderr").read_text()

    def start(self) -> None:
        """Start, and wait until it answers calls. It ends with the thread that started it."""
        with (self.place / "stderr").open("a") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "cardwright_daemon", "--config",
                 str(self.place / "daemon.toml")],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said.startswith("ready "), self.complaint

    @property
    def runs(self) -> bool:
        """Whether the process is there."""
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.wait()

    def wait(self) -> int:
        """The exit status."""
        assert self.process is not None and self.process.stdout is not None
        code = self.process.wait(_PATIENCE)
        self.process.stdout.close()
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def close(self) -> None:
        """End it and remove its folder."""
        if self.runs:
            self.kill()
        shutil.rmtree(self.place, ignore_errors=True)
