"""A private pcscd with two virtual readers of two slots each, for tests and strangers' tools.

Importing this module sets PCSCLITE_CSOCK_NAME for this process and its children: libpcsclite reads it once, and no
test can reach the machine's real cards.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cardwright_simulators.reader.pcscd import SOCKET_VARIABLE, PrivatePcscd, lacking, slots_of

YUBICO = "Yubico YubiKey CCID"
"""Tools of Yubico look for a reader that is called so."""
PLAIN = "Plain Virtual Reader"

_FOLDER = Path(tempfile.mkdtemp(prefix="cardwright-pcscd-"))
SOCKET = _FOLDER / "pcscd.comm"
os.environ[SOCKET_VARIABLE] = str(SOCKET)
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)


class Pcscd(PrivatePcscd):
    """The pcscd of this process."""

    def __init__(self, *names: str) -> None:
        super().__init__(_FOLDER, *names)


@pytest.fixture(scope="session")
def pcscd_process() -> Iterator[Pcscd]:
    """The process behind ``pcscd``, one for each test process."""
    if missing := lacking():
        pytest.skip(missing)
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
    if pcscd_process.readers != slots_of(YUBICO, PLAIN):
        pcscd_process.kill()
    if pcscd_process.running:
        pcscd_process.clear()
