"""The server's sessions on PKCS#11 tokens through the daemon: preview, consent, steps, going on; pkcs11-tool judges."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cardwright_cardops.pkcs11.errors import error_of
from cardwright_cardops.plan.inventory import Identity
from cardwright_cardops.plan.token_state import name_of
from cardwright_daemon import sessions, tokens
from cardwright_daemon.config import Pkcs11Module
from cardwright_daemon.link.ports import CardSession, Due, Opening, Purpose
from cardwright_daemon.link.session import StreamSession, begin, hello, say
from cardwright_daemon.machine import NOTHING_ALLOWED, Machine
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_proto.cms.v1 import sessions_pb2_grpc
from cardwright_server.store.unit import Database
from tests.oracle.books import Books
from tests.support.daemon_server import Server, an_update
from tests.support.daemon_sessions import ended, preview, quiet, start
from tests.support.daemons import PATIENCE, Person, Run, failing, running
from tests.support.seat import seated
from tests.support.session_world import SessionWorld
from tests.support.softhsm import SOFTHSM
from tests.support.token_faults import so_pin_of
from tests.support.token_sessions import IDS, PIN, SO_PIN, SoftToken, all_of, bound, token_world

NEW_PIN = b"582047"
pytestmark = pytest.mark.parametrize("engine_name", ["sqlite"])


class Line(Server):
    """The server's real sessions, over a socket in place of mutual TLS."""

    socket: str = ""
    assisted: bool = False

    async def open(self, opening: Opening) -> CardSession:
        self.openings.append(opening)
        channel = grpc.aio.insecure_channel(f"unix:{self.socket}")
        call = begin(sessions_pb2_grpc.SessionServiceStub(channel), opening)
        await say(call, hello(opening, assisted=self.assisted))
        made: Any = StreamSession(call)
        made.channel = channel
        return made  # type: ignore[no-any-return]

    async def due(self, card: Identity, proof: bytes = b"") -> Due:
        self.asked.append(card)
        return self.due_is


@pytest.fixture
def soft(tmp_path: Path) -> Iterator[SoftToken]:
    with SoftToken(tmp_path / "soft") as made:
        yield made


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[SessionWorld]:
    async with token_world(database, tmp_path) as made:
        yield made


@asynccontextmanager
async def desk(
    world: SessionWorld,
    soft: SoftToken,
    device: UUID,
    *answers: bytes,
    helper: bool = False,
    machine: Machine = NOTHING_ALLOWED,
) -> AsyncIterator[tuple[Run, str, Line]]:
    """A daemon with the token in a module of its configuration; gives the token's id, too."""
    line, who = Line(), world.world.helper if helper else None
    line.assisted = helper
    async with world.serving(world.office(device), who) as line.socket:
        module = Pkcs11Module(str(SOFTHSM), soft.environment, look_seconds=0)
        async with running(person=Person(*answers), pkcs11=(module,), link=line, machine=machine) as run:
            (card,) = (await run.client.cards.ListCards(pb.ListCardsRequest(tokens=True))).cards
            yield run, card.id, line


async def issued(world: SessionWorld, soft: SoftToken, device: UUID) -> None:
    request = str((await world.world.issuance(device)).id)
    async with desk(world, soft, device, PIN, PIN) as (run, card, _):
        wanted = pb.PreviewUpdateRequest(card=card, purpose=pb.PURPOSE_ISSUE, request=request)
        done = await start(run, card, await run.client.updates.PreviewUpdate(wanted))
        assert (done.error.code, done.outcome) == ("", pb.OUTCOME_DONE)


async def test_what_is_mandatory_is_begun_on_a_token_too(world: SessionWorld, soft: SoftToken) -> None:
    device = await bound(world, soft)
    request = (await world.world.issuance(device)).id
    now = datetime.now(UTC)
    async with desk(world, soft, device, PIN, PIN, machine=Machine(begin_mandatory=True)) as (run, card, line):
        line.due_is = replace(an_update(), purpose=Purpose.ISSUE, request=request, mandatory_from=now)
        found = (await run.client.updates.GetDue(pb.GetDueRequest(card=card))).due
        assert found.HasField("begins_at")
        while not (begun := [one for one in run.daemon.desk.operations.all if one.unasked]):
            await asyncio.sleep(0.01)
        done = await ended(run, begun[0].id)
        assert (done.error.code, done.outcome) == ("", pb.OUTCOME_DONE)
        line.due_is = Due()
        await world.database.transact(
            lambda unit: world.world.services.requests.create_reissue(unit, world.world.issuer, device)
        )
        run.person.answers = [PIN]
        again = await start(run, card, await preview(run, card, pb.PURPOSE_REISSUE))
        assert (again.error.code, again.outcome) == ("", pb.OUTCOME_DONE)
    # The first session was agreed to by nobody, the second one by the person.
    first, second = (row["id"] for row in _books(world).of("card_session"))
    (told,) = _books(world).of("audit_entry", action="session.agreed-unasked")
    (plan,) = (row["plan"] for row in _books(world).of("card_session", id=first))
    assert told["session"] == first != second
    assert json.loads(told["facts"])["plan"] == plan


def _books(world: SessionWorld) -> Books:
    return Books.read(Path(str(world.database.engine.url.database)))


async def test_a_token_is_issued_from_the_preview_on(
    world: SessionWorld, soft: SoftToken, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    device = await bound(world, soft)
    await world.world.issuance(device)
    async with desk(world, soft, device, PIN, PIN) as (run, card, _):
        shown = await preview(run, card)
        assert [step.words for step in shown.steps] == [
            "Set a new PIN of the security officer, which only the server knows",
            "Set a new PIN, which you choose",
            "Make a p256 key in slot 9A",
            "Make a p256 key in slot 9C",
            "Make a p256 key in slot 9E",
            "Write a p256 key to slot 9D",
            "Write the certificate of slot 9A",
            "Write the certificate of slot 9C",
            "Write the certificate of slot 9D",
            "Write the certificate of slot 9E",
        ]
        assert (shown.asks_pin, shown.asks_new_pin) == (False, True)
        done = await start(run, card, shown)
        assert (done.error.code, done.phase, done.outcome) == ("", pb.OPERATION_PHASE_DONE, pb.OUTCOME_DONE)
        again = await run.client.updates.PreviewUpdate(pb.PreviewUpdateRequest(card=card))
        assert again.nothing_due
    assert soft.holds() == all_of(*IDS)
    assert [(one.what, one.act.partition(" token")[0]) for one in run.person.asked] == [
        ("new PIN", "set up"), ("new PIN once more", "set up"),
    ]  # fmt: skip
    secrets = (PIN, SO_PIN, await so_pin_of(world, device))
    assert not [secret for secret in secrets if secret.decode() in caplog.text]
    kept = world.database.engine.url.database
    books = b"".join(path.read_bytes() for path in Path(str(kept)).parent.glob(f"{Path(str(kept)).name}*"))
    assert b"SoftHSM" in books
    assert not [secret for secret in secrets if secret in books]


async def test_a_module_that_dies_in_the_middle_is_gone_on_with(
    world: SessionWorld, soft: SoftToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Consent covers the rest: the daemon begins a new session, asks for the PIN again, and ends it."""
    monkeypatch.setattr(sessions, "AGAIN", (0.0,))
    device = await bound(world, soft)
    await issued(world, soft, device)
    old = {one: soft.public_key(one) for one in IDS}
    request = await world.database.transact(
        lambda unit: world.world.services.requests.create_reissue(unit, world.world.issuer, device)
    )
    async with desk(world, soft, device, b"999999", PIN, PIN) as (run, card, line):
        wanted = pb.PreviewUpdateRequest(card=card, purpose=pb.PURPOSE_REISSUE, request=str(request.request.id))
        shown = await run.client.updates.PreviewUpdate(wanted)
        assert (shown.asks_pin, shown.asks_new_pin) == (True, False)
        module = (await run.daemon.desk.tokens.get(card)).token._module
        strike(module, "WriteCertificate")
        done = await start(run, card, shown)
        assert done.error.code == "PKCS11_MODULE_CRASHED"
        await over(run)
    assert len(line.openings) == 2
    assert soft.holds() == all_of("82", *IDS)
    assert soft.public_key("82") == old["9d"]
    assert not {soft.public_key(one) for one in IDS} & set(old.values())
    assert [(one.what, one.error) for one in run.person.asked] == [
        ("current PIN", ""), ("current PIN", "It was wrong."), ("current PIN", ""),
    ]  # fmt: skip


async def test_a_token_that_is_taken_out_closes_the_dialog_and_is_gone_on_with(
    world: SessionWorld, soft: SoftToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a card: nothing was done, and what was agreed to is done when it is back."""
    monkeypatch.setattr(sessions, "AGAIN", (0.0,))
    monkeypatch.setattr(tokens, "WHILE_ASKED", 0.01)
    device = await bound(world, soft)
    await issued(world, soft, device)
    request = await world.database.transact(
        lambda unit: world.world.services.requests.create_reissue(unit, world.world.issuer, device)
    )
    async with desk(world, soft, device) as (run, card, _):
        never = asyncio.Event()
        run.person.answers = [never, PIN]
        token = (await run.daemon.desk.tokens.get(card)).token
        wanted = pb.PreviewUpdateRequest(card=card, purpose=pb.PURPOSE_REISSUE, request=str(request.request.id))
        shown = await run.client.updates.PreviewUpdate(wanted)
        starting = asyncio.create_task(start(run, card, shown))
        await run.person.waits.wait()

        def gone() -> None:
            raise error_of("TOKEN_GONE")

        vars(token)["refresh"] = gone
        assert (await starting).error.code == "PKCS11_TOKEN_REMOVED"
        assert len(run.person.asked) == 1
        vars(token).pop("refresh")
        await over(run)
        assert run.daemon.desk.operations.all[-1].outcome == "done"
    assert soft.holds() == all_of("82", *IDS)
    assert [one.what for one in run.person.asked] == ["current PIN"] * 2


def strike(module: Any, name: str) -> None:
    """Kill the module's process in the first call of this name."""
    ask = module.ask

    def struck(request: Any, *rest: Any, **named: Any) -> Any:
        if type(request).__name__ == name:
            vars(module).pop("ask")
            os.kill(module.pid, signal.SIGSTOP)
            kept = module._channel._pipe.poll

            def poll(seconds: float) -> bool:
                """The question was sent: nobody answers it."""
                os.kill(module.pid, signal.SIGKILL)
                return bool(kept(seconds))

            module._channel._pipe.poll = poll
        return ask(request, *rest, **named)

    vars(module)["ask"] = struck


async def over(run: Run) -> None:
    """Nothing is left that the daemon would go on with."""
    while run.daemon.desk.sessions._consents:
        await quiet(run)
        await run.client.cards.ListReaders(pb.ListReadersRequest())


async def test_a_forgotten_pin_is_set_anew(world: SessionWorld, soft: SoftToken) -> None:
    device = await bound(world, soft)
    await issued(world, soft, device)
    old = await so_pin_of(world, device)
    request = await world.database.transact(
        lambda unit: world.world.services.requests.create_unlock(unit, world.world.helper, device)
    )
    async with desk(world, soft, device, NEW_PIN, NEW_PIN, helper=True) as (run, card, _):
        wanted = pb.UnlockRequest(card=card, request=str(request.request.id))
        begun = await run.client.updates.Unlock(wanted)
        done = await ended(run, begun.operation.id)
    assert (done.error.code, done.error.message, done.outcome) == ("", "", pb.OUTCOME_DONE)
    assert [(one.what, one.act.partition(" token")[0]) for one in run.person.asked] == [
        ("new PIN", "unlock"), ("new PIN once more", "unlock"),
    ]  # fmt: skip
    assert soft.holds(NEW_PIN) == all_of(*IDS)
    assert not soft.so_pin_opens(old) and soft.so_pin_opens(await so_pin_of(world, device))


async def test_a_preview_that_is_dismissed_leaves_everything_as_it_was(world: SessionWorld, soft: SoftToken) -> None:
    device = await bound(world, soft)
    await world.world.issuance(device)
    async with desk(world, soft, device) as (run, card, _):
        shown = await preview(run, card)
        await run.client.updates.DismissPreview(pb.DismissPreviewRequest(card=card))
        late = run.client.updates.StartUpdate(pb.StartUpdateRequest(card=card, digest=shown.digest))
        assert (await failing(late)).code == "NO_SUCH_PREVIEW"
    assert run.person.asked == []
    assert soft.so_pin_opens(SO_PIN)


async def test_a_preview_ends_when_its_token_leaves(
    world: SessionWorld, soft: SoftToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = await bound(world, soft)
    await world.world.issuance(device)
    async with desk(world, soft, device) as (run, card, _):
        shown = await preview(run, card)
        assert run.daemon.desk.sessions.is_wanted(await run.daemon.desk.device(card))
        (shelf,) = run.daemon.desk.tokens._shelves
        monkeypatch.setattr(shelf.module, "tokens", tuple)
        gone = await run.daemon.desk.device(card)
        assert await run.daemon.desk.tokens.list() == ()
        async with asyncio.timeout(PATIENCE):
            while run.daemon.desk.sessions.is_wanted(gone):
                await asyncio.sleep(0.01)
        monkeypatch.undo()
        late = run.client.updates.StartUpdate(pb.StartUpdateRequest(card=card, digest=shown.digest))
        assert (await failing(late)).code == "NO_SUCH_PREVIEW"
    assert run.person.asked == []


async def test_the_command_line_works_with_tokens(
    world: SessionWorld, soft: SoftToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = await bound(world, soft)
    await issued(world, soft, device)
    request = str(
        (
            await world.database.transact(
                lambda unit: world.world.services.requests.create_unlock(unit, world.world.helper, device)
            )
        ).request.id
    )
    line = Line(due_is=an_update())
    module = Pkcs11Module(str(SOFTHSM), soft.environment, look_seconds=0)
    async with world.serving(world.office(device)) as line.socket:
        person = Person(NEW_PIN, NEW_PIN)
        async with seated(monkeypatch, readers=0, person=person, pkcs11=(module,), link=line) as seat:
            table = (await seat.done("status")).out
            told = (await seat.done("status", "--json")).json
            nothing = await seat.done("update", "--yes")
            escrowed = await seat.done("escrow", "list")
            line.assisted = True
            async with world.serving(world.office(device), world.world.helper) as line.socket:
                unlocked = await seat.done("unlock", "--forgotten", "--request", request)
    number = name_of(soft.token.info).number
    assert f"card {number}" in table and "certificates have to be renewed" in table
    assert [(one["kind"], one["identity"]["serial"]) for one in told["cards"]] == [("pkcs11", number)]
    assert "nothing is due" in nothing.out.lower(), nothing.out
    assert "keeps no key" in escrowed.out
    assert unlocked.out
    assert soft.holds(NEW_PIN) == all_of(*IDS)


@pytest.mark.parametrize("hidden", [False, True], ids=["another key shows", "another key is hidden"])
async def test_a_token_that_is_another_one_after_the_preview_gets_no_pin(
    world: SessionWorld, soft: SoftToken, tmp_path: Path, hidden: bool
) -> None:
    """Its label and its number are the same; the key in 9E, by which it shows that it is the one, is not."""
    device = await bound(world, soft)
    await issued(world, soft, device)
    request = await world.database.transact(
        lambda unit: world.world.services.requests.create_reissue(unit, world.world.issuer, device)
    )
    login = (*soft.named, "--login", "--pin", PIN.decode())
    async with desk(world, soft, device) as (run, card, _):
        wanted = pb.PreviewUpdateRequest(card=card, purpose=pb.PURPOSE_REISSUE, request=str(request.request.id))
        shown = await run.client.updates.PreviewUpdate(wanted)
        soft.tool(*login, "--delete-object", "--type", "privkey", "--id", "9e")
        if hidden:
            key = ec.generate_private_key(ec.SECP256R1())
            (tmp_path / "9e.der").write_bytes(
                key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
            )
            soft.tool(*login, "--write-object", str(tmp_path / "9e.der"), "--type", "privkey", "--id", "9e")
        else:
            soft.tool(*login, "--delete-object", "--type", "pubkey", "--id", "9e")
            soft.tool(*login, "-k", "--key-type", "EC:prime256v1", "--id", "9e")
        done = await start(run, card, shown)
    assert done.error.code == "GUARD_REFUSED"
    assert run.person.asked == []


async def test_keys_are_put_back_on_a_token_by_recovery(world: SessionWorld, soft: SoftToken) -> None:
    """What was on it once, the server keeps; whoever names a key that it does not give is told so."""
    device = await bound(world, soft)
    await issued(world, soft, device)
    wanted = [key for key in soft.dump(PIN, SO_PIN).keys.items() if key[0] == "9d"]
    ((_, old),) = wanted
    await world.database.transact(
        lambda unit: world.world.services.requests.create_reissue(unit, world.world.issuer, device)
    )
    async with desk(world, soft, device, PIN, PIN, PIN) as (run, card, _):
        renewed = await start(run, card, await preview(run, card, pb.PURPOSE_REISSUE))
        assert (renewed.error.code, renewed.outcome) == ("", pb.OUTCOME_DONE)
        assert soft.holds() == all_of("82", *IDS) and soft.dump(PIN, SO_PIN).keys["82"] == old
        for kind in ("privkey", "pubkey", "cert"):
            soft.tool(*soft.named, "--login", "--pin", PIN.decode(), "--delete-object", "--type", kind, "--id", "82")
        assert soft.holds() == all_of(*IDS)
        asked = len(run.person.asked)
        again = await run.client.escrow.RecoverKeys(pb.RecoverKeysRequest(card=card, keys=[old]))
        done = await ended(run, again.operation.id)
        assert (done.kind, done.error.code, done.outcome) == (pb.OPERATION_KIND_RECOVER, "", pb.OUTCOME_DONE)
        assert soft.holds() == all_of("82", *IDS) and soft.dump(PIN, SO_PIN).keys["82"] == old
        assert [one.act.partition(" token")[0] for one in run.person.asked[asked:]] == ["put recovered keys on"]
        # It is there by now; another one was never made.
        there = await run.client.escrow.RecoverKeys(pb.RecoverKeysRequest(card=card, keys=[old]))
        assert (await ended(run, there.operation.id)).outcome == pb.OUTCOME_NOTHING_DUE
        other = await run.client.escrow.RecoverKeys(pb.RecoverKeysRequest(card=card, keys=["ab" * 32]))
        assert (await ended(run, other.operation.id)).error.code == "KEY_NOT_RELEASED"
    assert len(run.person.asked) == asked + 1
