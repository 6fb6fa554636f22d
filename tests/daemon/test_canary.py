"""W3: PINs and PUKs are in nothing that the daemon writes, tells or sends; and the search would find them."""

from __future__ import annotations

import asyncio
import gzip
import logging
import zlib
from pathlib import Path

import pytest

from cardwright_cardops import wire
from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.program.items import Answers
from cardwright_daemon.config import Pins
from cardwright_proto.agent.v1 import agent_pb2 as pb
from tests.support import daemon_server
from tests.support.canary import forms, found
from tests.support.daemon_server import Server
from tests.support.daemons import Person, Run, failing, running, token

FACTORY = b"123456"
PIN, WRONG, NEW, PUK = b"739146", b"904417", b"582047", b"98125634"
SECRETS = (PIN, WRONG, NEW, PUK, daemon_server.PUK)


@pytest.mark.parametrize("name", sorted(forms(PIN)))
def test_w3_a_leak_in_any_spelling_is_found(name: str) -> None:
    leak = forms(PIN)[name]
    for place in (leak, b"before " + leak + b" after", b"x" + zlib.compress(b"in " + leak), gzip.compress(leak)):
        assert found(PIN, place)
    assert found(PIN, b"739 146", b"1234567") == set()


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every octet that goes to the server."""
    octets: list[bytes] = []
    real = daemon_server.Session.answer

    async def answer(self: daemon_server.Session, number: int, answers: Answers | CardwrightError) -> None:
        is_error = isinstance(answers, CardwrightError)
        message = wire.error_to_wire(answers) if is_error else wire.answers_to_wire(answers)  # type: ignore[arg-type]
        octets.append(message.SerializeToString())
        await real(self, number, answers)

    monkeypatch.setattr(daemon_server.Session, "answer", answer)
    return octets


async def test_w3_no_pin_is_in_events_traces_reports_logs_files_or_what_the_server_hears(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], heard: list[bytes]
) -> None:
    caplog.set_level(logging.DEBUG)
    server = Server()
    person = Person(PIN, PIN)
    told: list[bytes] = []
    async with running(token(), link=server, person=person, pins=Pins(headless=True)) as run:
        watching = asyncio.create_task(_watch(run, told))
        card = (await run.client.card()).id
        shown = await run.client.updates.PreviewUpdate(pb.PreviewUpdateRequest(card=card, purpose=pb.PURPOSE_ISSUE))
        told.append(shown.SerializeToString())
        begun = await run.client.updates.StartUpdate(pb.StartUpdateRequest(card=card, digest=shown.digest))
        await run.client.operations.WaitOperation(pb.WaitOperationRequest(operation=begun.operation.id))
        person.answers = [WRONG, NEW, NEW, None]
        told.append(str(await failing(run.client.pins.ChangePin(pb.ChangePinRequest(card=card)))).encode())
        person.answers = [PIN, NEW, NEW]
        await run.client.pins.ChangePin(pb.ChangePinRequest(card=card))
        wrong = pb.Asking(headless=pb.HeadlessPins(current=PUK, new=PIN))
        error = await failing(run.client.pins.UnblockPin(pb.UnblockPinRequest(card=card, asking=wrong)))
        told.append(repr(vars(error)).encode())
        trace = await run.client.cards.TraceCard(pb.TraceCardRequest(card=card))
        report = await run.client.workstation.GetReport(pb.GetReportRequest())
        listed = await run.client.operations.ListOperations(pb.ListOperationsRequest())
        told += [message.SerializeToString() for message in (trace, report, listed)]
        told.append(repr(run.daemon.desk).encode())
        files = [path.read_bytes() for path in Path(run.daemon.socket.parent).iterdir() if path.is_file()]
        watching.cancel()
    sent = [wire.inventory_to_wire(opening.card).SerializeToString() for opening in server.openings]
    streams = capfd.readouterr()
    written = [caplog.text.encode(), streams.out.encode(), streams.err.encode()]
    assert len(heard) >= 4 and len(told) > 20 and trace.entries
    for secret in SECRETS:
        assert found(secret, *told, *files, *heard, *sent, *written) == set(), secret


async def _watch(run: Run, told: list[bytes]) -> None:
    async for event in run.client.cards.WatchEvents(pb.WatchEventsRequest()):
        told.append(event.SerializeToString())


async def test_secrets_do_not_outlive_the_act(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every value that was asked for is wiped when the operation is over, done or not."""
    from cardwright_cardops.secret import Secret

    given: list[Secret] = []

    class Remembering(Person):
        async def ask(self, asked: object) -> Secret:
            given.append(await super().ask(asked))  # type: ignore[arg-type]
            return given[-1]

    async with running(token(), link=Server(), person=Remembering(FACTORY, NEW, NEW, WRONG, PIN, PIN, None)) as run:
        card = (await run.client.card()).id
        await run.client.pins.ChangePin(pb.ChangePinRequest(card=card))
        await failing(run.client.pins.ChangePin(pb.ChangePinRequest(card=card)))
        run.person.answers = [NEW]
        shown = await run.client.updates.PreviewUpdate(pb.PreviewUpdateRequest(card=card, purpose=pb.PURPOSE_ISSUE))
        begun = await run.client.updates.StartUpdate(pb.StartUpdateRequest(card=card, digest=shown.digest))
        done = await run.client.operations.WaitOperation(pb.WaitOperationRequest(operation=begun.operation.id))
        assert done.operation.phase == pb.OPERATION_PHASE_DONE, done.operation.error
    assert len(given) == 7
    assert [len(value) for value in given] == [0] * 7
