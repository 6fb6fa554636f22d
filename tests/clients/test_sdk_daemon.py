"""The client of the daemon against a daemon in this process, and against lines that fail."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from cardwright_cardops.plan.words import kind_words
from cardwright_cardops.rpc_status import RemoteError
from cardwright_cardops.wire_reading import WireUnsupported
from cardwright_cardops.workstation import SOCKET, FolderUnsafe
from cardwright_clients.sdk import DaemonClient, DaemonNotRunning, OperationLost, reading, values
from cardwright_clients.sdk.daemon import REPEATABLE
from cardwright_clients.sdk.values import (
    Asking,
    CardChanged,
    CardState,
    DueChanged,
    Event,
    LinkState,
    MethodKind,
    Missed,
    OperationKind,
    Outcome,
    Phase,
    Purpose,
    ReaderChanged,
    Synced,
)
from cardwright_daemon.config import Pins
from cardwright_daemon.link import ports
from cardwright_daemon.link.ports import EscrowedKey
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_proto.agent.v1 import agent_pb2_grpc
from tests.support.daemon_server import Server, an_update
from tests.support.daemons import PATIENCE, Person, Run, running, short_folder, token

PIN = b"739146"


@asynccontextmanager
async def client(run: Run) -> AsyncIterator[DaemonClient]:
    async with DaemonClient(run.daemon.socket.parent) as daemon:
        yield daemon


async def until(daemon: DaemonClient, wanted: Callable[[Event], bool]) -> list[Event]:
    """Events up to the one that is wanted."""
    seen = []
    async with asyncio.timeout(PATIENCE), aclosing(daemon.events()) as events:
        async for event in events:
            seen.append(event)
            if wanted(event):
                break
    return seen


async def the_card(daemon: DaemonClient) -> values.Card:
    (card,) = await daemon.settled_cards()
    return card


# ------------------------------------------------------------------------------------------------ what is told


async def test_readers_cards_and_what_is_on_them() -> None:
    async with running(token(), link=Server()) as run, client(run) as daemon:
        card = await the_card(daemon)
        readers = await daemon.readers()
        assert [(one.name, one.card) for one in readers.readers] == [
            ("Virtual reader 00", card.id),
            ("Virtual reader 01", ""),
        ]
        assert readers.service is None
        assert (card.identity.serial, card.state, card.name) == ("12345678", CardState.READY, "card 12345678")
        contents = await daemon.contents(card.id)
        assert contents.inventory is not None and contents.inventory.identity.serial == "12345678"
        status = await daemon.pin_status(card.id)
        assert (status.pin.tries_left, status.pin.is_default, status.puk.is_blocked) == (3, True, False)
        report = await daemon.check(card.id)
        assert not report.good and report.findings
        assert (await daemon.trace(card.id))[0].instruction == "SELECT"
        told = await daemon.report()
        assert (told.link, [one.has_card for one in told.readers]) == (LinkState.CONNECTED, [True, False])


async def test_an_error_keeps_the_code_and_the_texts_it_had() -> None:
    async with running() as run, client(run) as daemon:
        with pytest.raises(RemoteError) as caught:
            await daemon.contents("nothing")
    assert caught.value.code == "NO_SUCH_CARD"
    assert (caught.value.effect, caught.value.advice[:15]) == ("Nothing was sent to the card.", "List the cards ")


async def test_a_card_is_issued_and_its_operation_followed() -> None:
    server = Server(due_is=replace(an_update(), purpose=ports.Purpose.ISSUE))
    async with running(token(), link=server, person=Person(PIN, PIN)) as run, client(run) as daemon:
        card = await the_card(daemon)
        due = await daemon.due(card.id)
        assert due and (due.purpose, due.items[0].what, due.is_mandatory()) == (Purpose.ISSUE, "renewal", False)
        preview = await daemon.preview(card.id, due.purpose)
        assert not preview.nothing_due and preview.seconds > 0 and preview.asks_new_pin
        operation = await daemon.start(card.id, preview, asking=Asking())
        async with aclosing(daemon.follow(operation.id)) as steps:
            seen = [one async for one in steps]
        last = seen[-1]
        assert (last.phase, last.outcome, last.percentage) == (Phase.DONE, Outcome.DONE, 100)
        assert [one.percentage for one in seen] == sorted(one.percentage for one in seen)
        assert {one.kind for one in seen} == {OperationKind.ISSUE}
        # States give way to newer ones, so any one of the steps may be passed over, but not all, and none is made up.
        told = {one.words for one in seen} - {""}
        assert told and told <= {kind_words(one.kind) for one in preview.steps}
        async with aclosing(daemon.follow(operation.id)) as again:
            assert [one async for one in again] == [last]
        assert await daemon.wait(operation.id) == last
        assert (await daemon.operations())[-1] == last
        assert (await daemon.preview(card.id)).nothing_due
        later = datetime.now(UTC) + timedelta(hours=1)
        assert (await daemon.postpone(card.id, later)).postponed_until == later
        assert (await daemon.due(card.id)).is_postponed()


async def test_methods_proofs_and_pins() -> None:
    server, person = Server(due_is=an_update()), Person(b"secret", b"123456", PIN, PIN)
    async with running(token(), link=server, person=person) as run, client(run) as daemon:
        card = await the_card(daemon)
        methods = await daemon.methods(card.id, Purpose.ISSUE)
        assert methods[1].questions == ("First pet?", "First car?")
        proved = await daemon.prove(card.id, Purpose.ISSUE, MethodKind.DIRECTORY_PASSWORD, "ada")
        assert proved is not None and server.proved == [(server.proved[0][0], {"": b"secret"})]
        await daemon.change_pin(card.id)
        await daemon.preview(card.id, Purpose.ISSUE)
        await daemon.dismiss(card.id)
        assert person.answers == []


async def test_headless_values_go_only_where_they_may() -> None:
    asking = Asking(current=b"123456", new=PIN)
    assert b"739146" not in repr(asking).encode()
    async with running(token()) as run, client(run) as daemon:
        with pytest.raises(RemoteError) as caught:
            await daemon.change_pin((await the_card(daemon)).id, asking=asking)
        assert caught.value.code == "HEADLESS_PIN_REFUSED"
    async with running(token(), pins=Pins(headless=True)) as run, client(run) as daemon:
        card = (await the_card(daemon)).id
        await daemon.change_pin(card, asking=asking)
        assert (await daemon.pin_status(card)).pin.is_default is False


async def test_escrowed_keys_and_a_pfx() -> None:
    server = Server(keys=(EscrowedKey("ab" * 32, "rsa2048", datetime(2025, 1, 1, tzinfo=UTC), None, True),))
    async with running(token(), link=server, person=Person(PIN, PIN, PIN)) as run, client(run) as daemon:
        card = (await the_card(daemon)).id
        await daemon.wait((await daemon.start(card, await daemon.preview(card, Purpose.ISSUE))).id)
        (key,) = await daemon.escrowed_keys(card)
        assert (key.fingerprint, key.algorithm, key.on_card, key.downloadable) == ("ab" * 32, "rsa2048", False, True)
        assert key.not_before == datetime(2025, 1, 1, tzinfo=UTC)
        assert (await daemon.pfx(card, key.fingerprint)).startswith(b"PFX ")


async def test_an_operation_is_cancelled_while_it_asks() -> None:
    typing = asyncio.Event()
    person = Person(typing)
    async with running(token(), link=Server(), person=person) as run, client(run) as daemon:
        card = (await the_card(daemon)).id
        operation = await daemon.start(card, await daemon.preview(card, Purpose.ISSUE))
        await person.waits.wait()
        ended = await daemon.cancel(operation.id)
    assert (ended.phase, ended.over) == (Phase.CANCELLED, True)
    assert ended.error is not None and ended.error.code == "OPERATION_CANCELLED"


# ------------------------------------------------------------------------------------------------------- events


async def test_events_tell_what_is_there_then_what_happens() -> None:
    async with running(link=Server(due_is=an_update())) as run, client(run) as daemon:
        first = await until(daemon, lambda event: isinstance(event, Synced))
        assert [type(one) for one in first] == [ReaderChanged, ReaderChanged, Synced]
        inserted, seen = False, list[Event]()
        async with asyncio.timeout(PATIENCE), aclosing(daemon.events()) as events:
            async for event in events:
                if isinstance(event, Synced):
                    run.bench.insert(token())
                    inserted = True
                elif inserted:
                    seen.append(event)
                if isinstance(event, DueChanged):
                    break
        assert isinstance(event, DueChanged) and event.due.items[0].what == "renewal"
        cards = [one.card for one in seen if isinstance(one, CardChanged)]
        assert {one.id for one in cards} == {event.card}


async def test_events_go_on_with_the_next_daemon_and_say_that_some_were_lost() -> None:
    async with running(token()) as run:
        folder = run.daemon.socket.parent
        async with DaemonClient(folder) as daemon, aclosing(daemon.events()) as events:
            async with asyncio.timeout(PATIENCE):
                while not isinstance(await anext(events), Synced):
                    pass
                await run.daemon.__aexit__()
                lost = await anext(events)
                while not isinstance(lost, Missed):
                    lost = await anext(events)
                assert lost == Missed(None)
                async with type(run.daemon)(run.daemon.config, sources=[]):
                    assert await anext(events) == Synced()


async def test_a_slow_reader_of_events_hears_how_many_it_missed() -> None:
    message = pb.WatchEventsResponse(synced=pb.Synced(), missed=7)
    async with a_daemon(WatchEvents=_stream(message)) as (daemon, _), aclosing(daemon.events()) as events:
        assert [await anext(events), await anext(events)] == [Missed(7), Synced()]


async def test_following_an_operation_that_the_next_daemon_does_not_know() -> None:
    message = pb.WatchEventsResponse(synced=pb.Synced())
    async with a_daemon(
        WatchEvents=_stream(message),
        ListOperations=_answers(pb.ListOperationsResponse()),
    ) as (daemon, _):
        with pytest.raises(OperationLost):
            async for _ in daemon.follow("gone"):
                raise AssertionError("there is nothing to tell")


async def test_following_an_operation_of_a_daemon_that_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cardwright_clients.sdk.daemon.AWAY_SECONDS", 0.2)
    begun = pb.Operation(id="begun", kind=pb.OPERATION_KIND_UPDATE, phase=pb.OPERATION_PHASE_WORKING)
    changed = pb.WatchEventsResponse(operation=pb.OperationEvent(operation=begun))
    async with a_daemon(WatchEvents=_stream(changed)) as (daemon, server), aclosing(daemon.follow("begun")) as states:
        assert (await anext(states)).phase is Phase.WORKING
        await server.stop(None)
        with pytest.raises(OperationLost) as lost:
            async with asyncio.timeout(PATIENCE):
                await anext(states)
    assert "Start it" in lost.value.advice


# ------------------------------------------------------------------------------------------------ lines that fail


async def test_no_daemon_runs(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(DaemonNotRunning):
        await DaemonClient(folder).__aenter__()
    folder.mkdir(0o700)
    with pytest.raises(DaemonNotRunning):
        await DaemonClient(folder).__aenter__()
    folder.chmod(0o755)
    with pytest.raises(FolderUnsafe):
        await DaemonClient(folder).__aenter__()


async def test_a_socket_that_a_killed_daemon_left() -> None:
    folder = short_folder()
    folder.mkdir(0o700)
    (folder / SOCKET).touch()
    async with DaemonClient(folder) as daemon:
        with pytest.raises(DaemonNotRunning):
            await daemon.readers()
        with pytest.raises(DaemonNotRunning):
            await anext(daemon.events())
    shutil.rmtree(folder.parent)


async def test_only_calls_that_change_nothing_are_repeated() -> None:
    refuse: list[str] = []

    async def flaky(request: Any, context: Any) -> Any:
        refuse.append(type(request).__name__)
        if refuse.count("ListReadersRequest") < 3:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return pb.ListReadersResponse(readers=[pb.Reader(name="one")])

    async with a_daemon(ListReaders=flaky, UnblockPin=flaky) as (daemon, _):
        with pytest.raises(DaemonNotRunning):
            await daemon.unblock_pin("card")
        assert refuse == ["UnblockPinRequest"]
        assert (await daemon.readers()).readers[0].name == "one"
    assert refuse.count("ListReadersRequest") == 3


async def test_an_answer_from_another_release_is_refused() -> None:
    strange = pb.ListReadersResponse.FromString(b"\x7a\x01x")
    async with a_daemon(ListReaders=_answers(strange)) as (daemon, _):
        with pytest.raises(WireUnsupported, match="does not know"):
            await daemon.readers()


def test_what_may_be_repeated_is_in_the_contract() -> None:
    for service, call in REPEATABLE:
        assert call in pb.DESCRIPTOR.services_by_name[service].methods_by_name
    from cardwright_clients.sdk.daemon import _OPTIONS

    config = json.loads(dict(_OPTIONS)["grpc.service_config"])
    assert len(config["methodConfig"][0]["name"]) == len(REPEATABLE)


def test_every_value_of_the_contract_has_a_name_here() -> None:
    tables = [value for name, value in vars(reading).items() if name.isupper() and isinstance(value, dict)]
    known = {frozenset(one.values()) for one in tables}
    for enum in pb.DESCRIPTOR.enum_types_by_name.values():
        if enum.name != "PinReference":
            assert frozenset(value.number for value in enum.values if value.number) in known, enum.name


# ------------------------------------------------------------------------------------- a daemon that does as told


def _stream(*messages: Message) -> Callable[..., AsyncIterator[Message]]:
    async def stream(request: Any, context: Any) -> AsyncIterator[Message]:
        for message in messages:
            yield message
        await asyncio.Event().wait()

    return stream


def _answers(message: Message) -> Callable[..., Any]:
    async def answer(request: Any, context: Any) -> Message:
        return message

    return answer


@asynccontextmanager
async def a_daemon(**calls: Callable[..., Any]) -> AsyncIterator[tuple[DaemonClient, grpc.aio.Server]]:
    """Something at the daemon's place whose calls are these functions."""
    folder = short_folder()
    folder.mkdir(0o700)
    server = grpc.aio.server()
    for service in ("Card", "Pin", "Operation"):
        base = getattr(agent_pb2_grpc, f"{service}ServiceServicer")
        made = type(service, (base,), {name: staticmethod(call) for name, call in calls.items()})()
        getattr(agent_pb2_grpc, f"add_{service}ServiceServicer_to_server")(made, server)
    server.add_insecure_port(f"unix:{folder / SOCKET}")
    await server.start()
    try:
        async with DaemonClient(folder) as daemon:
            yield daemon, server
    finally:
        await server.stop(None)
        shutil.rmtree(folder.parent)

