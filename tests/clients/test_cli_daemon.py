"""Commands on the daemon: update, unlock, pin, escrow, status, watch, report."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.guard import Act
from cardwright_cardops.plan.policy import parse_keys
from cardwright_clients.cli import cards, daemon_consent, update
from cardwright_clients.sdk.values import Purpose
from cardwright_daemon import sessions
from cardwright_daemon.link import ports
from cardwright_daemon.link.ports import (
    CardSession,
    EscrowedKey,
    LinkState,
    Opening,
    Proof,
    ServerRefused,
    ServerUnreachable,
)
from tests.support.command_line import Ran
from tests.support.daemon_server import KEYS as POLICY_KEYS
from tests.support.daemon_server import PUK, Server, a_lock, an_update
from tests.support.daemon_sessions import renewing
from tests.support.daemons import Person, token
from tests.support.seat import Seat, seated

PIN = b"739146"
NEW = b"862951"
ISSUE = replace(an_update(), purpose=ports.Purpose.ISSUE)


class Wary(Server):
    """A server that begins no session before the person proved who they are."""

    async def open(self, opening: Opening) -> CardSession:
        self._require(opening.proof)
        return await super().open(opening)

    async def escrowed(self, card: Any, proof: Proof | None) -> tuple[EscrowedKey, ...]:
        self._require(proof)
        return await super().escrowed(card, proof)

    def _require(self, proof: Proof | None) -> None:
        if proof is None:
            error = CardwrightError("Prove who you are first.")
            vars(error)["code"] = "PROOF_REQUIRED"
            raise error


async def issued(seat: Seat) -> None:
    card = (await seat.card()).id
    done = await seat.daemon.wait(
        (await seat.daemon.start(card, await seat.daemon.preview(card, Purpose.ISSUE))).id
    )
    assert done.error is None, done.error


# ------------------------------------------------------------------------------------------------------- update


async def test_update_shows_the_plan_asks_and_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(due_is=ISSUE)
    async with seated(monkeypatch, token(), link=server, person=Person(PIN, PIN)) as seat:
        seat.terminal(True)
        ran = await seat.done("update")
        server.due_is = ports.Due()
        again = await seat.done("update")
    lines = ran.out.splitlines()
    assert lines[0].startswith("card 12345678: certificates have to be renewed. In about ")
    assert "  Make a p256 key in slot 9A" in lines
    assert lines[-1] == "card 12345678: The card is issued."
    assert seat.asked == ["Begin with card 12345678?"]
    # A state that a newer one overtook is not shown; the last one is.
    assert re.search(r"^card 12345678: \d+ %, [A-Z]", ran.err, re.MULTILINE)
    assert again.out == "card 12345678: nothing is due.\n"


async def test_update_without_consent_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(due_is=ISSUE)
    async with seated(monkeypatch, token(), link=server) as seat:
        seat.terminal(False)
        ran = await seat.cli("update")
        assert ran.code == 130
        assert (server.consented, server.batches) == ([], 0)
        monkeypatch.setattr(update, "on_terminal", lambda: False)
        blind = await seat.cli("update", "--json")
    assert (blind.code, blind.json["error"]["code"]) == (2, "USAGE")


async def test_update_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(due_is=ISSUE)
    async with seated(monkeypatch, token(), link=server, person=Person(PIN, PIN)) as seat:
        shown = (await seat.done("update", "--show", "--json")).json["cards"][0]
        assert (shown["operation"], server.batches) == (None, 0)
        done = (await seat.done("update", "--yes", "--json", "--serial", "12345678")).json["cards"][0]
    assert [step["id"] for step in shown["steps"]] == [step["id"] for step in done["steps"]]
    assert shown["due"]["items"][0]["what"] == "renewal" and shown["seconds"] > 0
    assert (done["operation"]["outcome"], done["operation"]["percentage"]) == ("done", 100)
    assert (done["card"]["identity"]["serial"], done["error"]) == ("12345678", None)


async def test_a_card_that_was_written_elsewhere_is_activated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its holder proves who they are, and the server finds nothing to write; looking does not activate it."""
    server = Server()
    async with seated(monkeypatch, token(), link=server, person=Person(PIN, PIN)) as seat:
        await issued(seat)
        opened = len(server.openings)
        waits = ports.Due((ports.DueItem("activation", datetime.now(UTC)),), purpose=ports.Purpose.ISSUE)
        server.due_is = waits
        looked = await seat.done("update", "--show")
        assert "waits until you activate it" in looked.out and len(server.openings) == opened
        done = await seat.done("update", "--yes")
    assert done.out == "card 12345678: it is activated, and can be used now.\n"
    assert [one.purpose for one in server.openings[opened:]] == [ports.Purpose.ISSUE]


async def test_update_of_a_revoked_card_says_so_and_begins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(due_is=ports.Due((ports.DueItem("revoked", datetime.now(UTC)),)))
    async with seated(monkeypatch, token(), link=server) as seat:
        said = await seat.done("update", "--yes")
        shown = (await seat.done("update", "--yes", "--json")).json["cards"][0]
    assert said.out.startswith("card 12345678: the card was revoked") and "hand it in" in said.out
    assert (shown["due"]["items"][0]["what"], shown["steps"], shown["error"]) == ("revoked", [], None)
    assert (server.openings, server.batches) == ([], 0)


async def test_update_of_all_cards_goes_on_where_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(due_is=ISSUE)

    async def broken(number: int, batch: Any) -> Any:
        if server.batches == 1:
            raise ServerRefused("Not this card.")
        return batch

    server.on_batch = broken
    person = Person(PIN, PIN, PIN, PIN)
    async with seated(monkeypatch, token(1), token(2), link=server, person=person) as seat:
        ambiguous = await seat.cli("update", "--yes")
        ran = await seat.cli("update", "--all", "--yes", "--json")
    assert (ambiguous.code, "CARD_AMBIGUOUS" in ambiguous.err) == (1, True)
    assert ran.code == 1
    outcomes = [one["error"] and one["error"]["code"] for one in ran.json["cards"]]
    assert sorted(map(str, outcomes)) == ["None", ServerRefused.code]


async def test_update_wants_acts_confirmed_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(due_is=ISSUE)
    acts = frozenset({Act.SET_RETRIES})
    real = sessions.Sessions._wait

    def wait(self: sessions.Sessions, card: Any, waiting: Any) -> Any:
        return replace(real(self, card, waiting), acts=acts)

    monkeypatch.setattr(sessions.Sessions, "_wait", wait)
    async with seated(monkeypatch, token(), link=server, person=Person(PIN, PIN, PIN, PIN)) as seat:
        ran = await seat.cli("update", "--yes")
        assert (ran.code, "to --confirm by name: set retries." in ran.err) == (2, True)
        seat.terminal(True, False)
        refused = await seat.cli("update")
        assert (refused.code, server.batches) == (130, 0)
        assert seat.asked[0] == "It includes the act 'set retries'. Do you want that"
        assert (await seat.cli("update", "--yes", "--confirm", "set retries")).code == 0


async def test_a_lock_is_done_by_update_once_it_is_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    server, person = Server(), Person(PIN, PIN)
    async with seated(monkeypatch, token(), link=server, person=person) as seat:
        await issued(seat)
        asked = len(person.asked)
        server.due_is = a_lock()
        told = await seat.done("status")
        seat.terminal(False)
        refused = await seat.cli("update")
        for module in (update, daemon_consent):
            monkeypatch.setattr(module, "on_terminal", lambda: False)
        unnamed = await seat.cli("update", "--yes")
        done = await seat.done("update", "--yes", "--confirm", "lock card")
        again = (await seat.done("update", "--yes", "--confirm", "lock card", "--json")).json["cards"][0]
        state = (await seat.done("pin", "status", "--json")).json
        server.due_is = ports.Due(suspended=True)
        after = [(await seat.done(*words)).out for words in (("status",), ("update", "--yes"))]
        sessions_before = len(server.openings)
        unlocking = await seat.cli("unlock", "--json")
        as_json = (await seat.done("status", "--json")).json["cards"][0]["due"]
    suspended = "the card is suspended: it is good for nothing until your help desk gives it back"
    assert all(suspended in out and "mandatory" not in out for out in after)
    assert (as_json["suspended"], as_json["items"]) == (True, [])
    assert (unlocking.code, unlocking.json["error"]["code"]) == (1, "CARD_SUSPENDED")
    assert len(server.openings) == sessions_before
    what = "the card is to be locked: its PIN will not work until your help desk gives the card back"
    assert what in told.out and "It is mandatory and cannot be put off." in told.out
    assert (refused.code, seat.asked) == (130, ["It includes the act 'lock card'. Do you want that"])
    assert unnamed.code == 2 and "lock card" in unnamed.err
    lines = done.out.splitlines()
    assert lines[0] == f"card 12345678: {what}. In about 1 s this is done:"
    assert lines[1] == "  Lock the card: its PIN is blocked until the help desk gives the card back"
    assert lines[-1] == (
        "card 12345678: The card is locked. Its PIN does not work until your help desk gives the card back."
        " Nothing on it is lost."
    )
    assert (again["steps"], again["operation"], again["error"]) == ([], None, None)
    assert state["pin"]["tries_left"] == 0
    assert state["puk"]["tries_left"] == 3
    assert len(person.asked) == asked, "no dialog was shown"


async def test_update_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    async with seated(monkeypatch, token(), link=server, person=Person(PIN, PIN)) as seat:
        fresh = await seat.done("update", "--later", "2")
        assert fresh.out == "card 12345678: nothing is due.\n"
        server.due_is = ISSUE
        await seat.daemon.due((await seat.card()).id, refresh=True)
        told = (await seat.done("update", "--later", "2")).out
        assert told.startswith("card 12345678: not offered before 20")
        server.due_is = ports.Due()
        await issued(seat)
        nothing = await seat.done("update", "--later", "2")
        server.due_is = an_update()
        await seat.daemon.due((await seat.card()).id, refresh=True)
        ran = await seat.done("update", "--later", "2", "--json")
    assert nothing.out == "card 12345678: nothing is due.\n"
    until = datetime.fromisoformat(ran.json["cards"][0]["due"]["postponed_until"])
    assert timedelta(hours=1.9) < until - datetime.now(UTC) < timedelta(hours=2)


async def test_what_is_mandatory_cannot_be_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(due_is=replace(ISSUE, mandatory_from=datetime.now(UTC)))
    async with seated(monkeypatch, token(), link=server) as seat:
        shown = await seat.done("update", "--show")
        stands = await seat.done("status")
        refused = await seat.cli("update", "--later", "2", "--json")
    assert shown.out.splitlines()[-1] == "It is mandatory and cannot be put off."
    assert "certificates have to be renewed. It is mandatory and cannot be put off." in stands.out
    assert (refused.code, refused.json["error"]["code"]) == (1, "UPDATE_MANDATORY")


async def test_update_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(due_is=ISSUE)
    async with seated(monkeypatch, link=server, person=Person(PIN, PIN)) as seat:
        watching = asyncio.create_task(seat.cli("update", "--watch", "--yes", "--json"))
        while not seat.run.daemon.hub.listeners:
            await asyncio.sleep(0)
        seat.run.bench.insert(token())
        await seat.until_said('"operation"')
        seat.interrupt()
        ran = await watching
    assert ran.code == 130
    line = json.loads(ran.out.splitlines()[0])
    assert (line["operation"]["outcome"], line["error"]) == ("done", None)


async def test_a_proof_is_asked_for_where_the_server_wants_one(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Wary(due_is=ISSUE)
    person = Person(b"Rex", b"Mini", PIN, PIN)
    async with seated(monkeypatch, token(), link=server, person=person) as seat:
        unsaid = await seat.cli("update", "--yes")
        assert (unsaid.code, "--method" in unsaid.err) == (2, True)
        ran = await seat.done("update", "--yes", "--account", "ada", "--method", "security-answers")
        assert "Question 1 of 2: First pet?" in ran.err
        assert server.proved == [(ports.MethodKind.SECURITY_ANSWERS, {"a": b"Rex", "b": b"Mini"})]
        none = await seat.cli("escrow", "list", "--method", "emergency-password")
    assert (none.code, "PROOF_REQUIRED" in none.err) == (1, True)


async def test_a_proof_is_chosen_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Wary(due_is=ISSUE)
    async with seated(monkeypatch, token(), link=server, person=Person(b"secret", PIN, PIN)) as seat:
        seat.terminal("ada", 1, True)
        ran = await seat.done("update")
    assert seat.asked == ["Account name", "Which", "Begin with card 12345678?"]
    assert "  1  password of the directory" in ran.err
    assert server.proved == [(ports.MethodKind.DIRECTORY_PASSWORD, {"": b"secret"})]


async def test_the_server_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async with seated(monkeypatch, token(), link=Server(error=ServerUnreachable("No answer."))) as seat:
        ran = await seat.cli("update", "--yes", "--json")
    assert (ran.code, ran.json["error"]["code"]) == (1, "SERVER_UNREACHABLE")


# -------------------------------------------------------------------------------------------- unlock and PINs


async def test_unlock_and_a_forgotten_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    card, server = token(), Server()
    person = Person(PIN, PIN, NEW, NEW, PIN, PIN)
    async with seated(monkeypatch, card, link=server, person=person) as seat:
        await issued(seat)
        ran = await seat.done("unlock")
        assert ran.out == "card 12345678: The card is unlocked.\n"
        told = (await seat.done("unlock", "--forgotten", "--json")).json
        assert (told["operation"]["kind"], told["operation"]["outcome"]) == ("forgotten-pin", "done")
        assert person.answers == []
        person.answers.append(None)
        closed = await seat.cli("unlock", "--json")
    assert (closed.code, closed.json["error"]["code"]) == (1, "PINENTRY_CANCELLED")


async def test_unlock_with_a_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    async with seated(monkeypatch, token(), link=server, person=Person(PIN, PIN, b"secret", NEW, NEW)) as seat:
        await issued(seat)
        wary = Wary(due_is=server.due_is, journals=server.journals, ca=server.ca)
        monkeypatch.setattr(server, "open", wary.open)
        await seat.done("unlock", "--account", "ada", "--method", "directory-password")
        assert seat.run.person.answers == []


async def test_pins_through_the_daemon_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    person = Person(b"123456", PIN, PIN, b"12345678", PUK, PUK, PUK, NEW, NEW)
    async with seated(monkeypatch, token(), person=person) as seat:
        status = (await seat.done("pin", "status", "--json")).json
        assert (status["pin"]["tries_left"], status["pin"]["default"], status["puk"]["blocked"]) == (3, True, False)
        assert (await seat.done("pin", "change")).out == "The PIN of card 12345678 is changed.\n"
        assert (await seat.done("pin", "change", "--puk")).out == "The PUK of card 12345678 is changed.\n"
        assert (await seat.done("pin", "unblock", "--reader", "00")).out == "Card 12345678 has a new PIN.\n"
        assert person.answers == []
        assert (await seat.done("pin", "status")).out.splitlines()[0] == "PIN: 3 of 3 tries left"
        gone = await seat.cli("pin", "change", "--serial", "1")
        assert "CARD_NOT_FOUND" in gone.err
        monkeypatch.setattr(cards, "_pcsc_readers", tuple)
        beside = await seat.cli("pin", "status", "--direct")
        notice, _, error = beside.err.partition("\n")
        assert notice == "The card is reached directly, beside the daemon, which runs."
        assert error.startswith("Error CARD_NOT_FOUND")


async def test_pins_without_the_daemon_are_reached_directly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CARDWRIGHT_FOLDER", str(tmp_path / "nothing"))
    monkeypatch.setattr(cards, "_pcsc_readers", tuple)
    seat_less = _plain("pin", "status")
    assert "The daemon does not run: the card is reached directly." in seat_less.err
    assert "CARD_NOT_FOUND" in seat_less.err
    assert "does not run" not in _plain("pin", "status", "--direct").err


def _plain(*arguments: str) -> Ran:
    from tests.support.command_line import Desk

    desk = Desk()
    desk.direct = None  # type: ignore[assignment]
    return desk.run(*arguments)


# -------------------------------------------------------------------------------------------------------- escrow


KEYS = (
    EscrowedKey("ab" * 32, "rsa2048", datetime(2024, 5, 1, tzinfo=UTC), None, True),
    EscrowedKey("ac" * 32, "p256", None, None, False),
)


async def test_escrowed_keys_are_listed_and_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with seated(monkeypatch, token(), link=Server(keys=KEYS), person=Person(PIN, PIN, PIN)) as seat:
        await issued(seat)
        table = (await seat.done("escrow", "list")).out.splitlines()
        told = (await seat.done("escrow", "list", "--json")).json["keys"]
        out = tmp_path / "old.pfx"
        ran = await seat.done("escrow", "pfx", "abababab", "--out", str(out))
        unknown = await seat.cli("escrow", "pfx", "99999999", "--out", str(out))
        short = await seat.cli("escrow", "recover", "a")
    assert table[0].split() == ["KEY", "ALGORITHM", "FROM", "UNTIL", "ON", "CARD", "PFX"]
    assert table[1].split() == ["ab" * 8, "rsa2048", "2024-05-01", "-", "no", "yes"]
    assert [one["fingerprint"] for one in told] == ["ab" * 32, "ac" * 32]
    assert out.read_bytes() == b"PFX " + b"ab" * 32
    assert ran.out == f"The key is in {out}.\n"
    assert out.stat().st_mode & 0o777 == 0o600
    assert seat.run.person.told and "pfx-password" in seat.run.person.told[0]
    assert "ESCROWED_KEY_UNKNOWN" in unknown.err and "ESCROWED_KEY_UNKNOWN" in short.err


async def test_keys_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(keys=KEYS)
    async with seated(monkeypatch, token(), link=server, person=Person(PIN, PIN, PIN)) as seat:
        await issued(seat)
        renewing(server)
        named = await seat.cli("escrow", "recover", "ABAB:ABAB")
        assert (named.code, "KEY_NOT_RELEASED" in named.err) == (1, True)
        assert (server.openings[-1].purpose, server.openings[-1].keys) == (ports.Purpose.RECOVER, ("ab" * 32,))
        assert seat.run.person.answers == [PIN]
        silent = await seat.cli("escrow", "recover", "--json")
        assert (silent.code, "give --yes" in silent.err + silent.out) == (2, True)
        seat.terminal(False)
        shown = await seat.cli("escrow", "recover")
        assert (shown.code, seat.asked) == (130, ["Begin with card 12345678?"])
        assert "keys are put back. In about" in shown.out and "Make a p256 key in slot 9A" in shown.out
        assert seat.run.person.answers == [PIN], "nothing was begun"
        ran = await seat.done("escrow", "recover", "--json", "--yes")
        assert (ran.json["operation"]["kind"], ran.json["operation"]["outcome"]) == ("recover", "done")
        assert ran.json["steps"]


async def test_who_only_has_keys_put_back_is_not_asked_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(keys=KEYS)
    async with seated(monkeypatch, token(), link=server, person=Person(PIN, PIN, PIN)) as seat:
        await issued(seat)
        nothing = await seat.done("escrow", "recover")
        as_json = await seat.done("escrow", "recover", "--json")
        server.policy = replace(server.policy, slots=parse_keys(f"{POLICY_KEYS},82=p256:import"))
        ran = await seat.done("escrow", "recover")
    assert nothing.out == "card 12345678: nothing has to be put back.\n"
    assert as_json.json == {"steps": [], "operation": None}
    assert "Write a p256 key to slot 82" in ran.out and not seat.asked


# ------------------------------------------------------------------------------------ status, watch and report


async def test_status_and_report(monkeypatch: pytest.MonkeyPatch) -> None:
    async with seated(monkeypatch, token(), link=Server(due_is=an_update())) as seat:
        table = (await seat.done("status")).out
        told = (await seat.done("status", "--json")).json
        await seat.cli("unlock", "--serial", "12345678", "--request", "8d5c47c2-1d0a-4a0f-9d57-000000000000")
        report = await seat.done("report")
        reported = (await seat.done("report", "--json")).json
    assert "server: connected" in table
    assert "Virtual reader 00  card 12345678  certificates have to be renewed" in table
    assert "Virtual reader 01  -" in table
    assert told["server"] == {"state": "connected", "error": None}
    assert told["cards"][0]["due"]["items"][0]["what"] == "renewal"
    assert [one["name"] for one in told["readers"]] == ["Virtual reader 00", "Virtual reader 01"]
    assert "reader Virtual reader 00: a card" in report.out
    assert "12345678" not in report.out
    assert reported["link"] == "connected" and "cryptography" in reported["libraries"]


async def test_status_says_that_the_server_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    away = ServerUnreachable("No answer.")
    async with seated(monkeypatch, token(), link=Server(error=away, state=LinkState.UNREACHABLE)) as seat:
        table = (await seat.done("status")).out
        told = (await seat.done("status", "--json")).json
    assert "what is due is not known: No answer." in table
    assert (told["cards"][0]["due"], told["cards"][0]["due_error"]["code"]) == (None, "SERVER_UNREACHABLE")


@pytest.mark.parametrize("as_json", [False, True])
async def test_watch_tells_what_happens(monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    async with seated(monkeypatch, token(), link=Server(due_is=an_update())) as seat:
        await seat.card()
        watching = asyncio.create_task(seat.cli("watch", *(["--json"] if as_json else [])))
        await seat.until_said('"synced"' if as_json else "card 12345678")
        seat.run.bench.remove()
        await seat.until_said('"present": false' if as_json else "was taken out of")
        seat.interrupt()
        ran = await watching
    assert ran.code == 130
    if as_json:
        events = [json.loads(line) for line in ran.out.splitlines()]
        assert [one["event"] for one in events[:4]] == ["reader", "reader", "card", "synced"]
        gone = next(one for one in events if one.get("present") is False)
        assert gone["card"]["identity"]["serial"] == "12345678"
    else:
        assert "card       card 12345678 was taken out of Virtual reader 00" in ran.out.splitlines()


async def test_commands_say_that_no_daemon_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CARDWRIGHT_FOLDER", str(tmp_path / "nothing"))
    for arguments in (["status"], ["report"], ["unlock"], ["escrow", "list"], ["update", "--yes"], ["watch"]):
        ran = await asyncio.to_thread(_plain, *arguments, "--json")
        assert (ran.code, ran.json["error"]["code"]) == (1, "DAEMON_NOT_RUNNING"), arguments
