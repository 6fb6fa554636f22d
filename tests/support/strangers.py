"""Other people's tools at a card in a reader, and our own library beside them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from cardwright_cardops.piv import programs
from cardwright_cardops.piv.algorithms import ManagementAlgorithm, PublicKey
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.local_key import open_key
from cardwright_cardops.piv.management_key import ManagementKey
from cardwright_cardops.piv.pins import FixedPins
from cardwright_cardops.piv.private_key import CardPrivateKey
from cardwright_cardops.piv.references import PinReference, Slot
from cardwright_cardops.plan.execute import Report
from cardwright_cardops.plan.init import Secrets, initialize
from cardwright_cardops.plan.inventory import Inventory
from cardwright_cardops.plan.observe import EVERYTHING, Look, observe
from cardwright_cardops.plan.policy import DevicePolicy, SecretsPolicy, parse_keys
from cardwright_cardops.plan.records import Kind, MemoryJournal
from cardwright_cardops.program.items import Program
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.pcsc import connect
from cardwright_simulators.card import KeyPool, VirtualCard
from cardwright_simulators.reader.around import Around
from tests.support.pcscd import Pcscd

PIN, PUK = "123456", "12345678"
NEW_PIN, NEW_PUK = "739146", "46824682"
"""What ``initialized`` sets."""
FACTORY_KEY = "0102030405060708" * 3


POOL = KeyPool(size=1)
"""One RSA key of each length is enough here, and even that is slow to make."""


class Seat(Around[VirtualCard]):
    """A card in a reader. Each test gets a card of its own, put in its place without a pull: pcscd looks for
    cards only every 0.4 s."""

    reader = ""


class Seats:
    """The cards in the readers of one pcscd, one of each kind."""

    def __init__(self, pcscd: Pcscd) -> None:
        self._pcscd = pcscd
        self._seats: dict[str, Seat] = {}

    def put(self, card: VirtualCard) -> Seat:
        """Have ``card`` in the reader for cards of its profile."""
        name = card.profile.name
        if name not in self._seats:
            seat = Seat(card)
            seat.reader = self._pcscd.insert(seat)
            self._seats[name] = seat
        self._seats[name].inside = card
        return self._seats[name]

    def fresh(self, profile: str, serial: int = 12345678) -> Seat:
        """A factory-fresh card of ``profile``."""
        return self.put(VirtualCard(profile, key_pool=POOL, serial=serial))


class ToolFailed(Exception):
    """A tool ended with another exit code than zero. ``output`` is all it said."""

    def __init__(self, command: tuple[str, ...], code: int, output: str) -> None:
        super().__init__(f"{' '.join(command)} ended with {code}:\n{output}")
        self.output = output


class Tools:
    """Runs programs in ``folder``, with a home there and nothing of the user's own configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        bin_ = folder / "bin"
        bin_.mkdir()
        # ykman ends other people's scdaemon and yubikey-agent with pkill when it cannot connect at once.
        (bin_ / "pkill").symlink_to(shutil.which("false") or "/bin/false")
        kept = {name: os.environ[name] for name in ("PCSCLITE_CSOCK_NAME", "LANG") if name in os.environ}
        path = f"{bin_}:{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
        self._environment = {"PATH": path, "HOME": str(folder), "OPENSC_CONF": str(folder / "none"), **kept}
        self._path = path

    def run(self, *command: str | Path, given: bytes | None = None, **environment: str) -> str:
        """Run a program to its end and return what it said. Raises ToolFailed."""
        words = tuple(map(str, command))
        if shutil.which(words[0], path=self._path) is None:
            pytest.skip(f"{words[0]} is not installed")
        done = subprocess.run(
            words, cwd=self.folder, env=self._environment | environment, input=given or b"", capture_output=True,
            timeout=60, check=False,
        )  # fmt: skip
        said = (done.stdout + done.stderr).decode(errors="replace")
        if done.returncode != 0:
            raise ToolFailed(words, done.returncode, said)
        return said

    def path(self, name: str) -> Path:
        """A file in the folder."""
        return self.folder / name

    def write(self, name: str, content: bytes) -> Path:
        """Write a file in the folder."""
        path = self.folder / name
        path.write_bytes(content)
        return path

    def certificate(self, name: str) -> x509.Certificate:
        """The PEM certificate in a file."""
        return x509.load_pem_x509_certificate(self.path(name).read_bytes())

    def public_key(self, name: str) -> PublicKey:
        """The PEM public key in a file."""
        return load_pem_public_key(self.path(name).read_bytes())  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Ykman:
    """ykman's own command line, run in this process: its start alone would take most of a test's time."""

    reader: str

    def __call__(self, *command: str | Path) -> str:
        """``ykman piv COMMAND`` and what it printed. Raises ToolFailed."""
        return self.run("piv", *command)

    def run(self, *command: str | Path) -> str:
        """``ykman COMMAND``. Raises ToolFailed."""
        from ykman._cli.__main__ import cli

        words = ("-r", self.reader, *map(str, command))
        done = CliRunner().invoke(cli, words, prog_name="ykman")
        if done.exit_code != 0:
            raise ToolFailed(("ykman", *words), done.exit_code, f"{done.output}{done.exception}")
        return str(done.output)


@dataclass(frozen=True, slots=True)
class Ours:
    """Our library at the card in a reader."""

    executor: LocalExecutor

    def run(self, program: Program[object]) -> object:
        """Run a program."""
        return run(program, self.executor)

    def inventory(self, look: Look = EVERYTHING) -> Inventory:
        """Everything on the card."""
        return run(observe(look), self.executor)

    def certificate(self, slot: Slot) -> x509.Certificate:
        """The certificate of a slot."""

        def read() -> Program[x509.Certificate]:
            yield from programs.read_marks()
            stored = yield from programs.read_certificate(slot)
            assert stored is not None, slot
            return stored.x509()

        return run(read(), self.executor)

    def key(self, slot: Slot, *, pin: PinReference | None = PinReference.PIN) -> CardPrivateKey:
        """The key of a slot."""
        return open_key(self.executor, slot, pin=pin)

    def managed(self, work: Callable[[str], Program[object]], key: ManagementKey) -> object:
        """Run ``work(stage)`` after authentication with the management key."""

        def program() -> Program[object]:
            marks = yield from programs.read_marks("managed")
            yield from programs.open_management((key,), marks, "managed")
            return (yield from work("managed"))

        return run(program(), self.executor)


@contextmanager
def ours(reader: str, pin: str | None = PIN, new: str | None = None) -> Iterator[Ours]:
    """Our library at ``reader`` over PC/SC; ``pin`` is the PIN in use, ``new`` the one to set."""
    pins = FixedPins(*(None if value is None else Secret(value.encode()) for value in (pin, new)))
    with connect(reader) as connection:
        executor = LocalExecutor(connection, KeyItems(pins, local=True))
        yield Ours(executor)


def management_key(text: str = FACTORY_KEY, algorithm: ManagementAlgorithm = ManagementAlgorithm.TDES) -> ManagementKey:
    """A management key from its hex digits."""
    return ManagementKey(algorithm, Secret(bytes.fromhex(text)))


@dataclass(frozen=True, slots=True)
class SetUp:
    """What ``card init`` did. ``management_key`` is in hex, the one the card has now."""

    report: Report
    management_key: str


def initialized(seat: Seat, keys: str) -> SetUp:
    """``card init`` over PC/SC, with NEW_PIN and NEW_PUK; where the card allows it with a new management key."""
    profile = seat.inside.profile
    policy = DevicePolicy(slots=parse_keys(keys), secrets=SecretsPolicy(management_key=bool(profile.vendor)))
    given = None if profile.vendor else Secret(profile.management_key)
    secrets = Secrets(new_puk=Secret(NEW_PUK.encode()), management_key=given)
    journal = MemoryJournal()
    with ours(seat.reader, NEW_PIN, NEW_PIN) as card:
        report = initialize(card.executor, policy, secrets, journal, now=datetime.now(UTC))
    written = [row.value.reveal() for row in journal.entries() if row.kind is Kind.MANAGEMENT_KEY and row.value]
    return SetUp(report, (written[-1] if written else profile.management_key).hex())
