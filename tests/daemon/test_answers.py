"""What the server said is due outlives the daemon: a file without names, for one server, ignored if it is not ours."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from cardwright_cardops.plan.pin_rules import PinRules
from cardwright_daemon import due as due_module
from cardwright_daemon.answers import MAX_OCTETS, MOST, Answers
from cardwright_daemon.app import answers_of
from cardwright_daemon.config import Config
from cardwright_daemon.link.ports import Due, DueItem, Push
from cardwright_proto.agent.v1 import agent_pb2 as pb
from tests.support.daemon_server import Server, an_update
from tests.support.daemon_sessions import in_future, issued_card
from tests.support.daemons import PATIENCE, Run, running, token

SERVER = b"cms.example:8443 and its root"
HOUR = timedelta(hours=1)


def nothing(until: timedelta = HOUR) -> Due:
    return Due(until=datetime.now(UTC).replace(microsecond=0) + until)


def kept(path: Path, server: bytes = SERVER) -> Answers:
    return Answers(path, lambda: server)


def written(path: Path, *guids: UUID) -> None:
    """The file of a daemon that was told that nothing is due for these cards."""
    answers = kept(path)
    for guid in guids:
        answers.put(guid, nothing())
    answers.write(answers.take())


def test_the_next_daemon_knows_what_was_said(tmp_path: Path) -> None:
    path, guid, told = tmp_path / "due.json", uuid4(), nothing()
    answers = kept(path)
    answers.put(guid, told)
    answers.write(answers.take())
    assert answers.take() == b"", "what is written need not be written again"
    found = kept(path).get(guid)
    assert found is not None and (found.due, found.at) == (told, None)
    assert kept(path).get(uuid4()) is None
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_file_names_neither_card_nor_server(tmp_path: Path) -> None:
    path, guid = tmp_path / "due.json", uuid4()
    written(path, guid)
    text = path.read_text()
    assert guid.hex not in text and str(guid) not in text and "example" not in text
    assert set(json.loads(text)) == {"version", "server", "nothing", "rules", "later"}
    assert re.fullmatch(r"[0-9a-f]{32}", next(iter(json.loads(text)["nothing"])))


def test_another_server_does_not_get_it(tmp_path: Path) -> None:
    path, guid = tmp_path / "due.json", uuid4()
    written(path, guid)
    assert kept(path, b"cms.example:8443 and another root").get(guid) is None
    assert kept(path).get(guid) is not None


def test_what_is_due_is_not_in_the_file_and_takes_the_place_of_nothing(tmp_path: Path) -> None:
    path, guid = tmp_path / "due.json", uuid4()
    written(path, guid)
    answers = kept(path)
    answers.put(guid, Due((DueItem("renewal", datetime.now(UTC)),), until=nothing().until))
    answers.write(answers.take())
    assert json.loads(path.read_text())["nothing"] == {}


@pytest.mark.parametrize("everything", [False, True])
def test_what_the_server_takes_back_is_forgotten(tmp_path: Path, everything: bool) -> None:
    path, first, second = tmp_path / "due.json", uuid4(), uuid4()
    written(path, first, second)
    answers = kept(path)
    answers.drop(None if everything else first)
    assert answers.get(first) is None
    assert (answers.get(second) is None) == everything
    answers.write(answers.take())
    assert len(json.loads(path.read_text())["nothing"]) == (0 if everything else 1)


def test_the_newest_are_kept(tmp_path: Path) -> None:
    path, guids = tmp_path / "due.json", [uuid4() for _ in range(MOST + 10)]
    written(path, *guids)
    assert len(json.loads(path.read_text())["nothing"]) == MOST
    assert path.stat().st_size < MAX_OCTETS
    answers = kept(path)
    assert [answers.get(guid) is None for guid in guids] == [True] * 10 + [False] * MOST


def test_rules_for_pins_are_kept_whatever_becomes_due(tmp_path: Path) -> None:
    path, guids, rules = tmp_path / "due.json", [uuid4() for _ in range(MOST + 1)], PinRules(7, 8, digits_only=False)
    answers = kept(path)
    for guid in guids:
        answers.put_rules(guid, rules)
    answers.drop(None)
    answers.write(answers.take())
    assert path.stat().st_size < MAX_OCTETS
    found = kept(path)
    assert [found.rules(guid) for guid in (guids[0], guids[1], guids[-1])] == [None, rules, rules]
    found.put_rules(guids[-1], rules)
    assert found.take() == b"", "the same again is no news"


def test_rules_that_no_pin_could_keep_spoil_the_file(tmp_path: Path) -> None:
    path, guid = tmp_path / "due.json", uuid4()
    answers = kept(path)
    answers.put_rules(guid, PinRules())
    answers.write(answers.take())
    path.write_text(path.read_text().replace('"min_length":6', '"min_length":9'))
    assert kept(path).rules(guid) is None


def test_what_holds_no_more_is_not_believed(tmp_path: Path) -> None:
    path, guid = tmp_path / "due.json", uuid4()
    written(path, guid)
    document = json.loads(path.read_text())
    (row,) = document["nothing"]
    for when in (datetime.now(UTC) - HOUR, datetime.now(UTC) + timedelta(days=4000)):
        document["nothing"][row] = int(when.timestamp())
        path.write_text(json.dumps(document))
        assert kept(path).get(guid) is None
    document["nothing"][row] = 10**40
    path.write_text(json.dumps(document))
    assert kept(path).get(guid) is None


@pytest.mark.parametrize("name", [UUID(int=7), "12345678"])
def test_what_was_put_off_is_put_off_for_the_next_daemon(tmp_path: Path, name: UUID | str) -> None:
    path, until = tmp_path / "due.json", datetime.now(UTC) + HOUR
    answers = kept(path)
    answers.put_later(name, until)
    answers.drop(None)
    answers.write(answers.take())
    assert "12345678" not in path.read_text() and UUID(int=7).hex not in path.read_text()
    assert (kept(path).later(name), kept(path).later("1")) == (until, None)
    assert kept(path, b"another server").later(name) is None


def test_no_file_puts_off_for_longer_than_a_person_can(tmp_path: Path) -> None:
    """A clock that was set back does not make it longer; one that was set right by a little changes nothing."""
    path, guid, now = tmp_path / "due.json", uuid4(), datetime.now(UTC).timestamp()
    answers = kept(path)
    answers.put_later(guid, datetime.now(UTC) + HOUR)
    answers.write(answers.take())
    document = json.loads(path.read_text())
    (row,) = document["later"]
    day = 86400.0
    for said, until, holds in (
        (now - 60, now + 60, True),
        (now + 60, now + 120, True),
        (now + day, now + day + 60, False),
        (now - day, now - 1, False),
        (now - day, now + 40 * day, False),
        (now - 1e300, now + 60, False),
        (now, 1e300, False),
    ):
        document["later"][row] = (said, until)
        path.write_text(json.dumps(document))
        assert (kept(path).later(guid) is not None) == holds, (said, until)


def test_a_full_file_is_read_again(tmp_path: Path) -> None:
    path, guids, until = tmp_path / "due.json", [uuid4() for _ in range(MOST + 1)], datetime.now(UTC) + HOUR
    answers = kept(path)
    for guid in guids:
        answers.put(guid, nothing())
        answers.put_rules(guid, PinRules(7, 8, digits_only=False))
        answers.put_later(guid, until)
    answers.write(answers.take())
    assert path.stat().st_size < MAX_OCTETS
    again = kept(path)
    assert [again.later(guid) for guid in (guids[0], guids[1], guids[-1])] == [None, until, until]
    assert again.rules(guids[-1]) is not None and again.get(guids[-1]) is not None


def test_the_file_of_a_daemon_that_kept_no_later_is_read(tmp_path: Path) -> None:
    path, guid = tmp_path / "due.json", uuid4()
    written(path, guid)
    path.write_text(path.read_text().replace(',"later":{}', ""))
    assert kept(path).get(guid) is not None


def test_what_was_put_off_is_not_kept_for_ever(tmp_path: Path) -> None:
    path, guid = tmp_path / "due.json", uuid4()
    answers = kept(path)
    answers.put_later(guid, datetime.now(UTC) - HOUR)
    answers.write(answers.take())
    assert json.loads(path.read_text())["later"] == {}


async def test_later_outlives_the_daemon(tmp_path: Path) -> None:
    """Nobody is asked again at once because the machine was started anew; and it is no answer of the server's."""
    path, card = tmp_path / "due.json", token()
    server = Server()
    await issued_card(server, card)
    server.due_is = an_update()
    later = in_future(timedelta(hours=2))
    async with running(card, link=server, answers=kept(path)) as run:
        identifier = (await run.client.card()).id
        await run.client.updates.PostponeUpdate(pb.PostponeUpdateRequest(card=identifier, until=later))
    async with running(card, link=server, answers=kept(path)) as run:
        identifier = (await run.client.card()).id
        found = (await run.client.updates.GetDue(pb.GetDueRequest(card=identifier))).due
    assert found.items and found.postponed_until == later


def _without(path: Path) -> Path:
    path.unlink()
    return path


SPOILT: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "noise": lambda path: path.write_bytes(bytes(range(256)) * 8),
    "more": lambda path: path.write_text(path.read_text().replace('"version":1', '"version":1,"more":1')),
    "version": lambda path: path.write_text(path.read_text().replace('"version":1', '"version":2')),
    "times": lambda path: path.write_text(path.read_text().replace('"later":{}', f'"later":{{"{"0" * 32}":[1,"x"]}}')),
    "rows": lambda path: path.write_text(re.sub(r'"([0-9a-f]{32})"', '"card 7"', path.read_text())),
    "long": lambda path: path.write_bytes(path.read_bytes() + b" " * MAX_OCTETS),
    "open to others": lambda path: path.chmod(0o644),
    "a link": lambda path: path.symlink_to(path.rename(path.with_name("real"))),
    "a pipe": lambda path: os.mkfifo(_without(path), 0o600),
    "a folder": lambda path: _without(path).mkdir(),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_file_that_cannot_be_believed_is_ignored_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    path, guid = tmp_path / "due.json", uuid4()
    written(path, guid)
    SPOILT[how](path)
    with caplog.at_level(logging.WARNING):
        answers = kept(path)
        assert answers.get(guid) is None
    assert len(caplog.records) == 1 and "is not used" in caplog.text
    answers.put(guid, nothing())
    answers.write(answers.take())
    assert (kept(path).get(guid) is None) == (how == "a folder")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")
def test_a_file_of_another_user_is_ignored(tmp_path: Path) -> None:
    path, guid = tmp_path / "due.json", uuid4()
    written(path, guid)
    os.chown(path, 65534, 65534)
    assert kept(path).get(guid) is None


async def test_a_restarted_daemon_asks_nobody_until_the_server_says_so(tmp_path: Path) -> None:
    """However often the card comes in; what was said to an earlier daemon is asked for anew within the hour."""
    path, card = tmp_path / "due.json", token()
    server = Server()
    await issued_card(server, card)
    server.due_is = nothing()
    async with running(card, link=server, answers=kept(path)) as run:
        await asked(run, server)
    before = len(server.asked)
    async with running(link=server, answers=kept(path)) as run:
        for _ in range(20):
            run.bench.insert(card)
            shown = await run.client.card()
            run.bench.remove()
        run.bench.insert(card)
        shown = await run.client.card()
        found = (await run.client.updates.GetDue(pb.GetDueRequest(card=shown.id))).due
        assert not found.items and found.until.ToDatetime(UTC) == server.due_is.until
        assert len(server.asked) == before
        server.due_is = an_update()
        assert server.pushed is not None
        server.pushed(Push(UUID(shown.identity.guid)))
        async with asyncio.timeout(PATIENCE):
            while len(server.asked) == before:
                await asyncio.sleep(0.01)
        assert (await run.client.updates.GetDue(pb.GetDueRequest(card=shown.id))).due.items
        assert len(server.asked) == before + 1
    assert json.loads(path.read_text())["nothing"] == {}


async def test_what_an_earlier_daemon_was_told_is_asked_for_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A word of the server's may have been lost while no daemon ran."""
    path, card = tmp_path / "due.json", token()
    server = Server()
    await issued_card(server, card)
    server.due_is = nothing()
    async with running(card, link=server, answers=kept(path)) as run:
        await asked(run, server)
    monkeypatch.setattr(due_module, "WIDE", 0.0)
    before = len(server.asked)
    async with running(card, link=server, answers=kept(path)):
        async with asyncio.timeout(PATIENCE):
            while len(server.asked) == before:
                await asyncio.sleep(0.01)


async def asked(run: Run, server: Server) -> None:
    """The check after the insertion is over, and its answer is there."""
    card = await run.client.card()
    await run.client.updates.GetDue(pb.GetDueRequest(card=card.id))
    assert server.asked


def test_the_file_lies_beside_the_credentials(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without an enrolment there is no server that it could be for."""
    from cardwright_daemon.config import Server as Place

    answers = answers_of(Config(server=Place("cms.example:8443", str(tmp_path))))
    answers.put(uuid4(), nothing())
    answers.write(answers.take())
    assert list(tmp_path.iterdir()) == []
    assert answers_of(Config()).take() == b""
