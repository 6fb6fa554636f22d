"""A real SMTP server (aiosmtpd) in a process of its own, and the handler it runs.

What it does with a mail is written into the recipient's address: ``busy-2-...`` is refused twice for now,
``unknown-...`` for good, ``lost-1-...`` is accepted, and the first time the line is cut before the answer.
"""

from __future__ import annotations

import email
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

_RULE = re.compile(r"(busy|lost)-(\d+)-")
REPOSITORY = Path(__file__).resolve().parents[2]


class Handler:
    """Runs inside the server's process; keeps each accepted mail as a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: dict[str, int] = {}

    @classmethod
    def from_cli(cls, _parser: Any, *arguments: str) -> Handler:
        """As aiosmtpd's command line makes it."""
        return cls(Path(arguments[0]))

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: list[str]) -> str:
        """Refuse, as the address says."""
        if address.startswith("unknown-"):
            return f"550 5.1.1 <{address}> no such mailbox"
        rule = _RULE.match(address)
        if rule and rule[1] == "busy" and self._times(address) <= int(rule[2]):
            return f"451 4.7.1 <{address}> try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Keep the mail; cut the line, where the address says so."""
        number = len(list(self.folder.iterdir()))
        document = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "tls": session.ssl is not None,
            "content": envelope.content.decode("latin-1"),
        }
        temporary = self.folder / f".{number}"
        temporary.write_text(json.dumps(document))
        temporary.rename(self.folder / f"{number:04}.json")
        rule = _RULE.match(envelope.rcpt_tos[0])
        if rule and rule[1] == "lost" and self._times(envelope.rcpt_tos[0]) <= int(rule[2]):
            server.transport.abort()
        return "250 kept"

    def _times(self, address: str) -> int:
        self.seen[address] = self.seen.get(address, 0) + 1
        return self.seen[address]


@dataclass(frozen=True)
class Received:
    """A mail as the server got it."""

    sender: str
    recipients: list[str]
    tls: bool
    octets: bytes

    @property
    def message(self) -> EmailMessage:
        """The mail, parsed by the standard library."""
        return email.message_from_bytes(self.octets, policy=policy.default)


@dataclass
class SmtpServer:
    """A running server."""

    host: str
    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    def received(self) -> list[Received]:
        """Everything accepted so far, in order."""
        found = [json.loads(path.read_text()) for path in sorted(self.folder.glob("*.json"))]
        return [Received(one["from"], one["to"], one["tls"], one["content"].encode("latin-1")) for one in found]


def free_port() -> int:
    """A port of this machine that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_smtp(folder: Path, *, tls: tuple[Path, Path] | None = None) -> Iterator[SmtpServer]:
    """A server; ``tls``: files of certificate and key, then mail without STARTTLS is refused."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    command = [sys.executable, "-m", "aiosmtpd", "-n", "-l", f"127.0.0.1:{port}"]
    if tls is not None:
        command += ["--tlscert", str(tls[0]), "--tlskey", str(tls[1])]
    command += ["-c", "tests.support.smtp.Handler", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait(port, process)
        yield SmtpServer("127.0.0.1", port, folder, process)
    finally:
        process.terminate()
        process.wait(10)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert process.poll() is None, "the SMTP server ended at once"
            assert time.monotonic() < deadline, "the SMTP server does not listen"
            time.sleep(0.02)
