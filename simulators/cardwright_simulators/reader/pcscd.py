"""A pcscd of one's own with virtual readers of vpcd, and the cards in them: no root, nothing of the machine's own.

pcscd takes its listening socket from us, the way systemd hands it over, so the socket lies in a folder of ours and
neither root nor a free ``/run/pcscd`` is needed. Programs reach it by PCSCLITE_CSOCK_NAME; libpcsclite reads that once
in a process, so it has to be there before the first call.

vpcd listens on every address of the machine: whoever reaches its ports can be the card in an empty slot.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from smartcard import scard

from cardwright_cardops.errors import CardwrightError

from .slot import Card
from .vpicc import Vpicc

DRIVER: Final = Path("/usr/lib/pcsc/drivers/serial/libifdvpcd.so")
SLOTS: Final = 2
"""Slots of each vpcd reader."""
SOCKET_VARIABLE: Final = "PCSCLITE_CSOCK_NAME"

_PATIENCE: Final = 20.0
"""Seconds until a wait for pcscd has failed; pcscd looks at its readers every 0.4 s."""


class PcscdUnusable(CardwrightError):
    """A pcscd of one's own cannot be started, or does not do what it should."""

    code = "PCSCD_UNUSABLE"
    default_effect = "There are no virtual readers."
    default_advice = "Install the packages pcscd, vsmartcard-vpcd and util-linux (packages.txt), then try again."


def lacking() -> str:
    """What of this machine is missing for a pcscd of one's own, as a sentence; empty if it has everything."""
    if not _program("pcscd"):
        return "pcscd is not installed (package pcscd)."
    if not DRIVER.exists():
        return f"The virtual reader driver is not installed (package vsmartcard-vpcd): there is no {DRIVER}."
    if not _program("setpriv"):
        return "setpriv is not installed (package util-linux)."
    return ""


class PrivatePcscd:
    """One pcscd process in ``folder`` and the cards in its readers, which are called ``names``, each with its slot.

    Whoever makes one sets SOCKET_VARIABLE to ``socket`` for this process before its first call of PC/SC.
    """

    def __init__(self, folder: Path, *names: str) -> None:
        self.socket = folder / "pcscd.comm"
        self.log = folder / "pcscd.log"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._cards: dict[str, Vpicc] = {}
        self._conf = folder / "reader.conf.d"
        self._conf.mkdir(exist_ok=True)
        self._ports: dict[str, int] = {}
        self._names = names

    @property
    def readers(self) -> tuple[str, ...]:
        """All reader names, in pcscd's order."""
        return tuple(self._ports)

    def address(self, reader: str) -> str:
        """HOST:PORT at which a virtual card of another process gets into ``reader``."""
        return f"127.0.0.1:{self._ports[reader]}"

    @property
    def pid(self) -> int:
        """Process id of the running pcscd. Raises PcscdUnusable."""
        if self._process is None:
            raise PcscdUnusable("pcscd does not run.")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self, inherited: Iterable[int] = ()) -> None:
        """Start pcscd and wait until it lists its readers. Raises PcscdUnusable.

        It ends with the calling thread, however that ends. ``inherited``: descriptors over 9 that it keeps open.
        """
        if missing := lacking():
            raise PcscdUnusable(missing)
        self._ports.clear()
        for path in self._conf.iterdir():
            path.unlink()
        for number, name in enumerate(self._names):
            self._configure(name, number)
        self.socket.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listening, self.log.open("ab") as log:
            listening.bind(str(self.socket))
            listening.listen(64)
            # The descriptor has to be number 3, and LISTEN_PID pcscd's own process id (sd_listen_fds(3)).
            script = 'exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec setpriv --pdeathsig TERM -- "$0" "$@"'
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", script, _program("pcscd"), "--foreground", "--config", str(self._conf)],
                stdin=listening.fileno(), stdout=log, stderr=log, pass_fds=tuple(inherited), start_new_session=True,
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
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self.kill()
        self.socket.unlink(missing_ok=True)

    def freeze(self) -> None:
        """Stop pcscd from running without ending it."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen pcscd go on."""
        os.kill(self.pid, signal.SIGCONT)

    def insert(self, card: Card, reader: str | None = None) -> str:
        """Put ``card`` into ``reader`` (default: the first empty slot), wait for pcscd, return the name.

        Raises PcscdUnusable, ValueError when there is a card.
        """
        name = reader or next(name for name in self.readers if name not in self._cards)
        if name in self._cards:
            raise ValueError(f"there is a card in {name}")
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
        """Wait until pcscd says that ``reader`` has a card, or none. Raises PcscdUnusable."""

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
        if not self._ask(seen):
            raise PcscdUnusable(f"pcscd never saw {reader} with{'' if present else 'out'} a card.")

    def wait_for_readers(self, *names: str) -> None:
        """Wait until pcscd lists exactly ``names``. Raises PcscdUnusable."""
        found: list[str] = []

        def seen(context: int) -> bool:
            while time.monotonic() < deadline and self.running:
                _, found[:] = scard.SCardListReaders(context, [])
                if set(found) == set(names):
                    return True
                scard.SCardGetStatusChange(context, 200, [("\\\\?PnP?\\Notification", len(found) << 16)])
            return False

        deadline = time.monotonic() + _PATIENCE
        if not self._ask(seen):
            raise PcscdUnusable(f"pcscd lists {found}, not {names}: {self.log.read_text(errors='replace')[-2000:]}")

    def _ask(self, seen: Callable[[int], bool]) -> bool:
        code, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
        if code != scard.SCARD_S_SUCCESS:
            said = self.log.read_text(errors="replace")[-2000:]
            raise PcscdUnusable(f"pcscd does not answer: {code & 0xFFFFFFFF:08X}. {said}".rstrip())
        try:
            return seen(context)
        finally:
            scard.SCardReleaseContext(context)

    def _configure(self, name: str, number: int) -> None:
        """Write the reader's configuration. Each reader has a copy of the driver: vpcd keeps its slots in
        global variables, so that two readers on one loaded library would share them."""
        driver = self._folder / f"driver{number}.so"
        if not driver.exists():
            shutil.copy(DRIVER, driver)
        port = _free_ports(SLOTS)
        (self._conf / f"{number}.conf").write_text(
            f'FRIENDLYNAME "{name}"\nDEVICENAME /dev/null:{port:#x}\nLIBPATH {driver}\nCHANNELID {port:#x}\n'
        )
        for slot, reader in enumerate(slots_of(name)):
            self._ports[reader] = port + slot


def slots_of(*names: str) -> tuple[str, ...]:
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


def _program(name: str) -> str:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or ""
