"""Programs of others use the card while a session is under way: before Start, while the PIN is typed, in the middle of
what is written; or they keep the card to themselves. Both come to their end, and no try of a PIN is lost.

A session writes in one transaction, so the middle is there only where the server is slow: then the stage ends, the
others get the card, and the daemon begins a session for the rest by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from cardwright_cardops.program.items import AnyBatch
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.deadlines import Deadlines
from cardwright_daemon import relay, sessions
from cardwright_daemon.app import Daemon
from cardwright_daemon.prompts import Asked
from cardwright_daemon.readers import PcscReaders
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.reader.around import Around
from tests.support.daemon_server import Server
from tests.support.daemon_sessions import faults_of, issued_card, renewing
from tests.support.daemons import PATIENCE, Client, Person, client_of, config, failing, token
from tests.support.kdc import MODULE
from tests.support.pcscd import Pcscd
from tests.support.strangers import Tools

pytestmark = pytest.mark.pcscd

PIN = b"739146"
JOBS = {"issue": pb.PURPOSE_ISSUE, "update": pb.PURPOSE_UPDATE}
KINDS = {"issue": pb.OPERATION_KIND_ISSUE, "update": pb.OPERATION_KIND_UPDATE}
_KEEPING = """
import sys
from smartcard import scard
mode, reader = sys.argv[1:]
_, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
share = scard.SCARD_SHARE_EXCLUSIVE if mode == "exclusive" else scard.SCARD_SHARE_SHARED
code, handle, _ = scard.SCardConnect(context, reader, share, scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1)
assert code == 0, code
if mode == "transaction":
    assert scard.SCardBeginTransaction(handle) == 0
print("kept", flush=True)
sys.stdin.read()
scard.SCardDisconnect(handle, scard.SCARD_RESET_CARD)
"""


class PinWatch(Around[VirtualCard]):
    """A card that notes what was wrong of what a PIN or PUK was sent with."""

    def __init__(self, inside: VirtualCard) -> None:
        super().__init__(inside)
        self.refused: list[str] = []

    def transmit(self, command: bytes) -> bytes:
        answer = self.inside.transmit(command)
        if command[1] in (0x20, 0x24, 0x2C) and len(command) > 5 and answer[-2:-1] in (b"\x63", b"\x69"):
            self.refused.append(f"{command[:4].hex()} {answer[-2:].hex()}")
        return answer

    @property
    def pin(self) -> str:
        """What the card takes now."""
        value = json.loads(self.inside.snapshot())["references"]["80"]["value"]
        return bytes.fromhex(value).rstrip(b"\xff").decode()


class Others:
    """ykman, OpenSC's tools and yubico-piv-tool, one after another, at the card in ``reader``."""

    def __init__(self, tools: Tools, card: PinWatch) -> None:
        self._tools = tools
        self._card = card
        self.reader = ""
        self.used = 0

    async def use(self) -> None:
        """Raises ToolFailed if one of them is not content."""
        await asyncio.to_thread(self._use)

    def _use(self) -> None:
        module = next(Path("/usr/lib").rglob(MODULE))
        run, reader = self._tools.run, self.reader
        run("yubico-piv-tool", "-r", reader, "-a", "verify-pin", "-a", "status",
            given=f"{self._card.pin}\n".encode())  # fmt: skip
        run("pkcs15-tool", "--reader", reader, "--dump")
        run(
            *("pkcs11-tool", "--module", module, "--slot-description", reader, "--login", "--test"),
            *("--pin", "env:STRANGER_PIN"),
            STRANGER_PIN=self._card.pin,
        )
        run("ykman", "-r", reader, "piv", "info")
        self.used += 1


class Typist(Person):
    """Types the PIN; ``first`` is done at the first question, while it is waited for."""

    def __init__(self, first: Callable[[], Awaitable[None]] | None = None) -> None:
        super().__init__()
        self._first = first

    async def ask(self, asked: Asked) -> Secret:
        self.asked.append(asked)
        first, self._first = self._first, None
        if first is not None:
            await first()
        return Secret(PIN)


class Place:
    """A daemon that watches PC/SC, with the card that ``job`` is due for, and others beside it."""

    def __init__(self, client: Client, server: Server, job: str, reader: str) -> None:
        self.client = client
        self.server = server
        self.job = job
        self.reader = reader
        self._events = client.cards.WatchEvents(pb.WatchEventsRequest())

    async def until(self, wanted: Callable[[pb.WatchEventsResponse], bool]) -> pb.WatchEventsResponse:
        """Of one stream from the beginning: nothing is missed."""
        async with asyncio.timeout(PATIENCE * 2):
            while not wanted(event := await self._events.read()):
                continue
        return event  # type: ignore[no-any-return]

    async def card(self) -> str:
        """Its id, once it is known."""
        event = await self.until(
            lambda event: event.HasField("card")
            and event.card.card.reader == self.reader
            and event.card.card.state == pb.CARD_STATE_READY
        )
        return str(event.card.card.id)

    async def shown(self, card: str) -> bytes:
        """The digest of the preview."""
        asked = pb.PreviewUpdateRequest(card=card, purpose=JOBS[self.job])
        return bytes((await self.client.updates.PreviewUpdate(asked)).digest)

    async def started(self, card: str, digest: bytes) -> pb.Operation:
        """What was shown, to its end."""
        begun = await self.client.updates.StartUpdate(pb.StartUpdateRequest(card=card, digest=digest))
        asked = pb.WaitOperationRequest(operation=begun.operation.id)
        return (await self.client.operations.WaitOperation(asked)).operation  # type: ignore[no-any-return]

    async def goes_on(self, broken: pb.Operation) -> None:
        """The daemon does the rest by itself."""
        await self.until(
            lambda event: event.HasField("operation")
            and event.operation.operation.kind == KINDS[self.job]
            and event.operation.operation.id != broken.id
            and event.operation.operation.phase == pb.OPERATION_PHASE_DONE
            and event.operation.operation.outcome == pb.OUTCOME_DONE
        )


@contextlib.asynccontextmanager
async def placed(
    pcscd: Pcscd, folder: Path, server: Server, job: str, card: PinWatch, person: Person, waiting: float = 10.0
) -> AsyncIterator[Place]:
    """``job`` is due. ``waiting``: how long the daemon waits for a card that others keep."""
    if job == "update":
        await issued_card(server, card.inside)
        renewing(server)
    source = PcscReaders(Deadlines(waiting=waiting))
    made = Daemon(config(folder / "run"), sources=[source], asker=person, link=server)
    async with made as daemon, client_of(daemon.socket) as client:
        yield Place(client, server, job, await asyncio.to_thread(pcscd.insert, card))


class _Hasty(relay.RelayedCard):
    """Keeps a stage for a moment only."""

    def __post_init__(self) -> None:
        self.stage_seconds = 0.05
        super().__post_init__()


@pytest.fixture
def card() -> PinWatch:
    return PinWatch(token(77))


@pytest.fixture
def others(tmp_path: Path, card: PinWatch) -> Others:
    return Others(Tools(tmp_path), card)


def require_right(server: Server, card: PinWatch) -> None:
    assert faults_of(server, card.inside) == []
    assert card.refused == []


@pytest.mark.parametrize("moment", ["shown", "typing"])
@pytest.mark.parametrize("job", JOBS)
async def test_before_anything_is_written(
    pcscd: Pcscd, tmp_path: Path, card: PinWatch, others: Others, job: str, moment: str
) -> None:
    """A card with a key of its own in 9E proves that it is the same one; a blank one cannot, and is shown again."""
    server = Server()
    typist = Typist(others.use if moment == "typing" else None)
    async with placed(pcscd, tmp_path, server, job, card, typist) as place:
        others.reader = place.reader
        known = await place.card()
        digest = await place.shown(known)
        if moment == "shown":
            await others.use()
        done = await place.started(known, digest)
        if job == "issue":
            assert done.error.code == "GUARD_REFUSED"
            done = await place.started(known, await place.shown(known))
        assert done.outcome == pb.OUTCOME_DONE, done
    assert others.used == 1
    require_right(server, card)


@pytest.mark.parametrize("job", JOBS)
async def test_in_the_middle_of_what_is_written(
    pcscd: Pcscd, tmp_path: Path, card: PinWatch, others: Others, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server()
    monkeypatch.setattr(relay, "RelayedCard", _Hasty)
    monkeypatch.setattr(sessions, "AGAIN", (0.05,))
    async with placed(pcscd, tmp_path, server, job, card, Typist()) as place:
        others.reader = place.reader

        async def slow(number: int, batch: AnyBatch) -> AnyBatch:
            if number == 3 and not others.used:
                await others.use()
            return batch

        server.on_batch = slow
        known = await place.card()
        before = card.inside.snapshot()
        broken = await place.started(known, await place.shown(known))
        assert broken.error.code == "STAGE_ENDED"
        assert card.inside.snapshot() != before, "nothing had been written yet"
        await place.goes_on(broken)
    assert others.used == 1
    require_right(server, card)


@contextlib.contextmanager
def kept(reader: str, mode: str) -> Iterator[int]:
    """Another process has the card for itself until the end of the block; gives the process id."""
    process = subprocess.Popen(
        [sys.executable, "-c", _KEEPING, mode, reader], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == b"kept\n"
        yield process.pid
    finally:
        process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize("mode", ["exclusive", "transaction"])
async def test_a_program_that_keeps_the_card_is_named_and_then_it_goes_on(
    pcscd: Pcscd, tmp_path: Path, card: PinWatch, mode: str
) -> None:
    server = Server()
    async with placed(pcscd, tmp_path, server, "update", card, Typist(), waiting=0.3) as place:
        known = await place.card()
        with kept(place.reader, mode) as pid:
            asked = pb.PreviewUpdateRequest(card=known, purpose=pb.PURPOSE_UPDATE)
            told = await failing(place.client.updates.PreviewUpdate(asked))
            assert told.code == "CARD_BUSY"
            assert f"(pid {pid})" in str(told)
        done = await place.started(known, await place.shown(known))
        assert done.outcome == pb.OUTCOME_DONE, done
    require_right(server, card)


@pytest.mark.parametrize("moment", ["pin", "batch"])
async def test_a_card_that_is_kept_when_it_should_be_written_is_written_once_it_is_let_go(
    pcscd: Pcscd, tmp_path: Path, card: PinWatch, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program takes it after Start: before the PIN is tried, or before the first batch."""
    server = Server()
    monkeypatch.setattr(sessions, "AGAIN", (0.05,))
    held = contextlib.ExitStack()
    pids: list[int] = []

    async def take() -> None:
        pids.append(await asyncio.to_thread(held.enter_context, kept(place.reader, "transaction")))

    async def first(number: int, batch: AnyBatch) -> AnyBatch:
        if not pids:
            await take()
        return batch

    typist = Typist(take if moment == "pin" else None)
    async with placed(pcscd, tmp_path, server, "update", card, typist, waiting=0.3) as place:
        if moment == "batch":
            server.on_batch = first
        known = await place.card()
        refused = await place.started(known, await place.shown(known))
        assert refused.error.code == "CARD_BUSY"
        assert f"(pid {pids[0]})" in refused.error.message
        await asyncio.to_thread(held.close)
        await place.goes_on(refused)
    require_right(server, card)
