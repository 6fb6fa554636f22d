"""A private pcscd with two virtual readers of two slots each, for tests and strangers' tools.

pcscd takes its listening socket from us, the way systemd hands it over, so the socket lies in a folder of this
process and neither root nor a free ``/run/pcscd`` is needed. Importing this module sets PCSCLITE_CSOCK_NAME for
this process and its children: libpcsclite reads it once, and no test can reach the machine's real cards.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from smartcard import scard

from cardwright_simulators.reader.slot import Card
from cardwright_simulators.reader.vpicc import Vpicc

DRIVER = Path("/usr/lib/pcsc/drivers/serial/libifdvpcd.so")
YUBICO = "Yubico YubiKey CCID"
"""Tools of Yubico look for a reader that is called so."""
PLAIN = "Plain Virtual Reader"
SLOTS = 2
"""Slots of each vpcd reader."""

_FOLDER = Path(tempfile.mkdtemp(prefix="cardwright-pcscd-"))
SOCKET = _FOLDER / "pcscd.comm"
os.environ["PCSCLITE_CSOCK_NAME"] = str(SOCKET)
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)

_PATIENCE = 20.0
"""Seconds until a wait for pcscd is a failed test; pcscd looks at its readers every 0.4 s."""


class Pcscd:
    """One pcscd process and the cards in its readers. Reader names: ``readers``, each with its slot."""

    def __init__(self, *names: str) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._cards: dict[str, Vpicc] = {}
        self._conf = _FOLDER / "reader.conf.d"
        self._conf.mkdir(exist_ok=True)
        self._ports: dict[str, int] = {}
        self._names = names
        self._log = _FOLDER / "pcscd.log"

    @property
    def readers(self) -> tuple[str, ...]:
        """All reader names, in pcscd's order."""
        return tuple(self._ports)

    def address(self, reader: str) -> str:
        """HOST:PORT at which a virtual card of another process gets into ``reader``."""
        return f"127.0.0.1:{self._ports[reader]}"

    @property
    def pid(self) -> int:
        """Process id of the running pcscd."""
        assert self._process is not None, "pcscd does not run"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start pcscd and wait until it lists its readers."""
        self._ports.clear()
        for path in self._conf.iterdir():
            path.unlink()
        for number, name in enumerate(self._names):
            self._configure(name, number)
        SOCKET.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listening, self._log.open("ab") as log:
            listening.bind(str(SOCKET))
            listening.listen(64)
            # The descriptor has to be number 3, and LISTEN_PID pcscd's own process id (sd_listen_fds(3)). pcscd
            # ends with us, also when nobody is left to stop it.
            script = 'exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec setpriv --pdeathsig TERM -- "$0" "$@"'
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", script, _program(), "--foreground", "--config", str(self._conf)],
                stdin=listening.fileno(), stdout=log, stderr=log,
            )  # fmt: skip
        self.wait_for_readers(*self.readers)

    def kill(self) -> None:
        """End pcscd at once, as a crash would: the socket stays behind and refuses connections."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        for card in self._cards.values():
            card.stop()
        self._cards.clear()

    def restart(self, *names: str) -> None:
        """Kill and start again, with other readers if ``names`` are given; all cards are out afterwards."""
        self.kill()
        self._names = names or self._names
        self.start()

    def stop(self) -> None:
        """End pcscd the ordinary way and remove its socket."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        self.kill()
        SOCKET.unlink(missing_ok=True)

    def freeze(self) -> None:
        """Stop pcscd from running without ending it."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen pcscd go on."""
        os.kill(self.pid, signal.SIGCONT)

    def insert(self, card: Card, reader: str | None = None) -> str:
        """Put ``card`` into ``reader`` (default: the first empty slot), wait for pcscd, return the name."""
        name = reader or next(name for name in self.readers if name not in self._cards)
        assert name not in self._cards, f"there is a card in {name}"
        self._cards[name] = Vpicc(card, port=self._ports[name]).start()
        self.wait_for_card(name, present=True)
        return name

    def port(self, reader: str) -> int:
        """Where vpcd waits for the card of an empty ``reader``."""
        return self._ports[reader]

    def remove(self, reader: str) -> None:
        """Pull the card out of ``reader`` and wait until pcscd has noticed."""
        self._cards.pop(reader).stop()
        self.wait_for_card(reader, present=False)

    def pull(self, reader: str) -> None:
        """Pull the card out of ``reader`` without waiting."""
        self._cards.pop(reader).stop()

    def clear(self) -> None:
        """Take out every card."""
        for name in tuple(self._cards):
            self.remove(name)

    def wait_for_card(self, reader: str, *, present: bool) -> None:
        """Wait until pcscd says that ``reader`` has a card, or none."""

        def seen(context: int) -> bool:
            known = 0
            while time.monotonic() < deadline:
                code, states = scard.SCardGetStatusChange(context, 1000, [(reader, known)])
                if code not in (scard.SCARD_S_SUCCESS, scard.SCARD_E_TIMEOUT):
                    break
                known = states[0][1]
                if bool(known & scard.SCARD_STATE_PRESENT) is present:
                    return True
            return False

        deadline = time.monotonic() + _PATIENCE
        assert self._ask(seen), f"pcscd never saw {reader} with{'' if present else 'out'} a card"

    def wait_for_readers(self, *names: str) -> None:
        """Wait until pcscd lists exactly ``names``."""
        found: list[str] = []

        def seen(context: int) -> bool:
            while time.monotonic() < deadline:
                _, found[:] = scard.SCardListReaders(context, [])
                if set(found) == set(names):
                    return True
                scard.SCardGetStatusChange(context, 200, [("\\\\?PnP?\\Notification", len(found) << 16)])
            return False

        deadline = time.monotonic() + _PATIENCE
        assert self._ask(seen), f"pcscd lists {found}, not {names}: {self._log.read_text()[-2000:]}"

    def _ask(self, seen: Callable[[int], bool]) -> bool:
        code, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
        assert code == scard.SCARD_S_SUCCESS, f"pcscd does not answer: {code & 0xFFFFFFFF:08X}"
        try:
            return seen(context)
        finally:
            scard.SCardReleaseContext(context)

    def _configure(self, name: str, number: int) -> None:
        """Write the reader's configuration. Each reader has a copy of the driver: vpcd keeps its slots in
        global variables, so that two readers on one loaded library would share them."""
        driver = _FOLDER / f"driver{number}.so"
        if not driver.exists():
            shutil.copy(DRIVER, driver)
        port = _free_ports(SLOTS)
        (self._conf / f"{number}.conf").write_text(
            f'FRIENDLYNAME "{name}"\nDEVICENAME /dev/null:{port:#x}\nLIBPATH {driver}\nCHANNELID {port:#x}\n'
        )
        for slot, reader in enumerate(_slots(name)):
            self._ports[reader] = port + slot


def _slots(*names: str) -> tuple[str, ...]:
    """What pcscd calls the slots of the readers ``names``."""
    return tuple(f"{name} 00 {slot:02X}" for name in names for slot in range(SLOTS))


def _free_ports(count: int) -> int:
    """The first of ``count`` adjacent TCP ports that nothing listens on."""
    while True:
        with socket.socket() as first:
            first.bind(("", 0))
            base: int = first.getsockname()[1]
            if base + count > 0xFFFF:
                continue
            others = [socket.socket() for _ in range(count - 1)]
            try:
                for offset, other in enumerate(others, 1):
                    other.bind(("", base + offset))
                return base
            except OSError:
                continue
            finally:
                for other in others:
                    other.close()


def _program() -> str:
    return shutil.which("pcscd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or ""


@pytest.fixture(scope="session")
def pcscd_process() -> Iterator[Pcscd]:
    """The process behind ``pcscd``, one for each test process."""
    if not _program():
        pytest.skip("pcscd is not installed (package pcscd)")
    if not DRIVER.exists():
        pytest.skip(f"the virtual reader driver is not installed (package vsmartcard-vpcd): no {DRIVER}")
    bench = Pcscd(YUBICO, PLAIN)
    try:
        bench.start()
        yield bench
    finally:
        bench.stop()


@pytest.fixture
def pcscd(pcscd_process: Pcscd) -> Iterator[Pcscd]:
    """A running pcscd with four empty slots; cards that the test leaves are taken out."""
    if not pcscd_process.running:
        pcscd_process.restart(YUBICO, PLAIN)
    yield pcscd_process
    if pcscd_process.readers != _slots(YUBICO, PLAIN):
        pcscd_process.kill()
    if pcscd_process.running:
        pcscd_process.clear()
