"""Two tokens of one module, and a server that is killed in the middle of both: the daemon ends both by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest

from cardwright_cardops.plan.token_state import name_of
from cardwright_daemon.config import Pkcs11Module
from cardwright_daemon.link.ports import Message
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_proto.cms.v1 import authentication_pb2 as proofs
from tests.support.daemons import PATIENCE
from tests.support.front_desk import Desk
from tests.support.installation import Site
from tests.support.softhsm import SOFTHSM
from tests.support.token_sessions import IDS, SO_PIN, SoftToken, all_of
from tests.support.whole_place import PIN, Place, placed, soon, station_of, token_for


async def previewed(place: Place, card: pb.Card) -> pb.PreviewUpdateResponse:
    """The token is somebody's, who proves who they are; what would be done at its issuance."""
    login = f"p{uuid4().hex[:8]}"
    person = await asyncio.to_thread(place.desk.person, login)
    await asyncio.to_thread(token_for, place.desk, person, card.identity.serial)
    given = await place.ask(
        "AuthenticationService", "SetInitialPassword", proofs.SetInitialPasswordRequest(person=person)
    )
    place.typist.password = given.password.encode()
    method, updates = pb.METHOD_KIND_INITIAL_PASSWORD, place.run.client.updates
    await updates.Prove(pb.ProveRequest(card=card.id, purpose=pb.PURPOSE_ISSUE, method=method, account=login))
    shown: pb.PreviewUpdateResponse = await updates.PreviewUpdate(
        pb.PreviewUpdateRequest(card=card.id, purpose=pb.PURPOSE_ISSUE)
    )
    return shown


async def test_server_killed_in_the_middle_of_two_tokens(
    here: Site, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon(monkeypatch)
    label = uuid4().hex[:8]
    with SoftToken(tmp_path / "soft", label=f"Ada {label}") as soft:
        soft.tool("--init-token", "--slot-index", "1", "--label", f"Bob {label}", "--so-pin", SO_PIN.decode())
        labels = {name_of(one.info).number: one.info.identity.label for one in soft.module.tokens()}
    await station_of(here, tmp_path / "station")
    module = Pkcs11Module(str(SOFTHSM), soft.environment, look_seconds=0)
    killed = asyncio.Event()
    async with placed(here, desk, tmp_path / "station", pkcs11=(module,)) as place:
        cards = (await place.run.client.cards.ListCards(pb.ListCardsRequest(tokens=True))).cards
        assert {card.identity.serial for card in cards} == set(labels)
        shown = {card.id: await previewed(place, card) for card in cards}

        async def kill(now: int, message: Message) -> None:
            """Both are at work on their keys."""
            if all(len(said) >= 4 for said in place.link.said) and not killed.is_set():
                killed.set()
                await asyncio.to_thread(here.process.kill)

        place.link.on_message = kill
        begun = [
            await place.run.client.updates.StartUpdate(pb.StartUpdateRequest(card=card, digest=one.digest))
            for card, one in shown.items()
        ]
        ends = [await place.over(one.operation) for one in begun]
        assert killed.is_set()
        assert [(one.error.code, one.continues) for one in ends] == [("SERVER_UNREACHABLE", True)] * 2
        here.end_leases()
        here.process.start()  # here: it ends with the thread that started it
        place.line.target = here.process.addresses["calls"]
        operations = place.run.daemon.desk.operations
        async with asyncio.timeout(3 * PATIENCE):
            while sum(one.outcome == "done" for one in operations.all) < 2:
                await asyncio.sleep(0.05)
        assert {one.card for one in operations.all if one.outcome == "done"} == set(shown)
    for name in labels.values():
        with SoftToken(tmp_path / "soft", label=name, made=True) as one:
            assert one.holds(PIN) == all_of(*IDS)
