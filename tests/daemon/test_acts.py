"""W2: recovery, sign-in and unlocking ask for the PIN anew and name the act; and proofs of who the person is."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from cardwright_cardops.piv.proofs import verify
from cardwright_cardops.plan.inventory import Identity
from cardwright_cardops.rpc_status import RemoteError
from cardwright_daemon.link.ports import EscrowedKey, Method, MethodKind, Purpose
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.card.log import Verify
from tests.support.daemon_server import Server
from tests.support.daemons import Person, failing, running, token

PIN = b"739146"


async def issued(server: Server) -> VirtualCard:
    """A card with keys."""
    card = token()
    async with running(card, link=server, person=Person(PIN, PIN)) as run:
        identifier = (await run.client.card()).id
        shown = await run.client.updates.PreviewUpdate(
            pb.PreviewUpdateRequest(card=identifier, purpose=pb.PURPOSE_ISSUE)
        )
        begun = await run.client.updates.StartUpdate(pb.StartUpdateRequest(card=identifier, digest=shown.digest))
        done = await run.client.operations.WaitOperation(pb.WaitOperationRequest(operation=begun.operation.id))
        assert done.operation.phase == pb.OPERATION_PHASE_DONE
    return card


async def test_w2_a_pfx_needs_the_pin_names_the_act_and_shows_its_password_in_our_prompt_only() -> None:
    server = Server(keys=(EscrowedKey("ab" * 32, "p256", datetime.now(UTC), downloadable=True),))
    card = await issued(server)
    async with running(card, link=server, person=Person(b"111119", PIN)) as run:
        identifier = (await run.client.card()).id
        keys = (await run.client.escrow.ListEscrowedKeys(pb.ListEscrowedKeysRequest(card=identifier))).keys
        found = await run.client.escrow.DownloadPfx(pb.DownloadPfxRequest(card=identifier, key=keys[0].fingerprint))
        assert found.pfx == b"PFX " + b"ab" * 32
    assert [one.act for one in run.person.asked] == ["download a key with card 12345678"] * 2
    assert run.person.told == ["The password of the downloaded key is: pfx-password"]
    assert b"pfx-password" not in found.SerializeToString()
    assert not keys[0].on_card and keys[0].downloadable


async def test_w2_signing_in_needs_the_pin_and_shows_where_to() -> None:
    server = Server()
    card = await issued(server)
    async with running(card, link=server, person=Person(PIN, PIN)) as run:
        identifier = (await run.client.card()).id
        inventory = await run.daemon.desk.cards.inventory(run.daemon.desk.cards.get(identifier))
        for _ in range(2):
            done = await run.client.workstation.SignIn(pb.SignInRequest(card=identifier, link="cardwright:abc"))
            assert done.url == "https://portal.example/once"
    assert [one.act for one in run.person.asked] == ["sign in to https://portal.example with card 12345678"] * 2
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    key = next(row for row in inventory.keys if row.slot == 0x9A)
    public = load_der_public_key(key.public_key)
    for token_ab in server.signed_in:
        verify(token_ab, audience="https://portal.example", nonce=b"nonce of the portal", key=public)  # type: ignore[arg-type]
    assert len(set(server.signed_in)) == 2


class Exchanged:
    """What lies in the reader: tests exchange it and nothing tells the reader of it."""

    def __init__(self, card: VirtualCard) -> None:
        self.card = card

    def __getattr__(self, name: str) -> Any:
        return getattr(self.card, name)


async def test_g2_a_copy_that_took_the_place_of_the_card_while_the_pin_is_typed_does_not_get_it() -> None:
    server, typing = Server(), asyncio.Event()
    card = await issued(server)
    raw = json.loads(card.snapshot())
    raw["keys"]["9E"] = raw["keys"]["9A"]
    place, copy = Exchanged(card), VirtualCard.restore(json.dumps(raw).encode())
    async with running(cast(VirtualCard, place), link=server, person=Person(typing, PIN)) as run:
        identifier = (await run.client.card()).id
        signing = asyncio.ensure_future(
            failing(run.client.workstation.SignIn(pb.SignInRequest(card=identifier, link="cardwright:abc")))
        )
        await run.person.waits.wait()
        copy.power_on()
        place.card = copy
        typing.set()
        error = await signing
    assert error.code == "GUARD_REFUSED"
    assert not any(isinstance(row, Verify) for row in copy.log)
    assert server.signed_in == []


@pytest.mark.parametrize("audience", ["http://portal.example", "https://portal.example/\nEnter", "portal", "https://"])
async def test_w2_only_an_origin_comes_into_the_prompt(audience: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from cardwright_daemon.link.ports import SignInChallenge

    server = Server()
    card = await issued(server)

    async def challenge(self: Server, link: str) -> SignInChallenge:
        return SignInChallenge(audience, b"nonce of the portal")

    monkeypatch.setattr(Server, "sign_in_challenge", challenge)
    async with running(card, link=server, person=Person(PIN)) as run:
        identifier = (await run.client.card()).id
        error = await failing(run.client.workstation.SignIn(pb.SignInRequest(card=identifier, link="x")))
    assert error.code == "REQUEST_INVALID"
    assert run.person.asked == []


async def test_w2_unlocking_asks_for_a_new_pin_and_names_the_act() -> None:
    server = Server()
    card = await issued(server)
    async with running(card, link=server, person=Person(PIN, PIN)) as run:
        identifier = (await run.client.card()).id
        begun = await run.client.updates.ResetForgottenPin(pb.ResetForgottenPinRequest(card=identifier))
        wait = pb.WaitOperationRequest(operation=begun.operation.id)
        done = await run.client.operations.WaitOperation(wait)
    assert done.operation.phase == pb.OPERATION_PHASE_DONE, done.operation.error
    assert [one.sentence.partition(".")[0] for one in run.person.asked] == [
        "Enter the new PIN to set a new PIN on card 12345678",
        "Enter the new PIN once more to set a new PIN on card 12345678",
    ]


async def test_who_the_person_is_is_asked_here_and_no_text_of_the_server_is_in_a_prompt() -> None:
    server = Server()
    card = await issued(server)
    async with running(card, link=server, person=Person(b"Rex", b"Beetle", b"secret")) as run:
        identifier = (await run.client.card()).id
        purpose = pb.PURPOSE_UNLOCK
        methods = await run.client.updates.ListMethods(pb.ListMethodsRequest(card=identifier, purpose=purpose))
        for method in (pb.METHOD_KIND_SECURITY_ANSWERS, pb.METHOD_KIND_DIRECTORY_PASSWORD):
            request = pb.ProveRequest(card=identifier, purpose=purpose, method=method, account="holder")
            assert (await run.client.updates.Prove(request)).until.ToDatetime(tzinfo=UTC) > datetime.now(UTC)
        run.person.answers = [PIN, PIN]
        await run.client.updates.Unlock(pb.UnlockRequest(card=identifier))
        await run.client.until(
            lambda event: (event.HasField("operation")
            and event.operation.operation.kind == pb.OPERATION_KIND_UNLOCK
            and event.operation.operation.phase == pb.OPERATION_PHASE_DONE)
            or event.HasField("synced")
        )
        for operation in run.daemon.desk.operations.all:
            await run.daemon.desk.operations.wait(operation.id)
    assert list(methods.methods[1].questions) == ["First pet?", "First car?"]
    assert server.proved == [
        (MethodKind.SECURITY_ANSWERS, {"a": b"Rex", "b": b"Beetle"}),
        (MethodKind.DIRECTORY_PASSWORD, {"": b"secret"}),
    ]
    assert [one.what for one in run.person.asked[:3]] == [
        "answer to your security question 1 of 2",
        "answer to your security question 2 of 2",
        "password of your account",
    ]
    assert all("?" not in one.sentence for one in run.person.asked)
    assert server.openings[-1].proof is not None


async def test_only_methods_that_the_server_named_as_enough_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    card = await issued(server)
    asked: list[Purpose | None] = []

    async def methods(self: Server, card: Identity, purpose: Purpose | None, account: str) -> tuple[Method, ...]:
        asked.append(purpose)
        return (Method(MethodKind.DIRECTORY_PASSWORD), Method(MethodKind.EMERGENCY_PASSWORD))

    monkeypatch.setattr(Server, "methods", methods)
    refusal = RemoteError("Prove who you are.")
    vars(refusal)["code"] = "PROOF_REQUIRED"
    refusal.methods = frozenset({"emergency-password", "card"})
    async with running(card, link=server) as run:
        listed: list[list[int]] = []
        for turn in range(3):
            if turn == 2:  # another insertion: what was named before counts no more
                run.bench.insert(run.bench.remove())
            identifier = (await run.client.card()).id
            if turn == 1:
                server.error = refusal
                begun = await run.client.updates.Unlock(pb.UnlockRequest(card=identifier))
                done = await run.daemon.desk.operations.wait(begun.operation.id)
                assert done.error is not None and done.error.code == "PROOF_REQUIRED"
                server.error = None
            wanted = pb.ListMethodsRequest(card=identifier, purpose=pb.PURPOSE_UNLOCK)
            listed.append([one.kind for one in (await run.client.updates.ListMethods(wanted)).methods])
    both = [pb.METHOD_KIND_DIRECTORY_PASSWORD, pb.METHOD_KIND_EMERGENCY_PASSWORD]
    assert listed == [both, [pb.METHOD_KIND_EMERGENCY_PASSWORD], both]
    assert asked == [Purpose.UNLOCK, None, Purpose.UNLOCK]
