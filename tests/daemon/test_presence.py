"""The question what is due goes with a proof by 9E, and disturbs nobody."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key

from cardwright_cardops.piv import commands
from cardwright_cardops.piv.proofs import PROOF_AUDIENCE, ProofInvalid, check_nonce, verify
from cardwright_cardops.piv.references import PinReference, Slot
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_daemon import presence
from cardwright_daemon.cards import Card
from cardwright_daemon.link.ports import Push
from cardwright_daemon.presence import Presence
from cardwright_simulators.card import Verify
from tests.support.daemon_server import Server
from tests.support.daemon_sessions import issue
from tests.support.daemons import PATIENCE, Person, running, token

PIN = b"739146"


async def test_card_proves_itself_to_the_minute_without_a_pin() -> None:
    card, server = token(), Server()
    async with running(card, link=server, person=Person(PIN, PIN)) as run:
        known = next(iter(run.daemon.desk.cards.all))
        here = Presence(run.daemon.desk.cards)
        assert await here.proof(known) == b"", "a card without a card UUID has nothing to prove"
        await issue(run)
        before = len([one for one in card.log if isinstance(one, Verify)])
        begin = datetime.now(UTC)
        proof = await here.proof(known)
        inventory = await run.daemon.desk.cards.inventory(known)
        row = inventory.key(Slot.CARD_AUTHENTICATION)
        assert row is not None and known.identity.guid is not None
        key = load_der_public_key(row.public_key)
        nonces = {check_nonce(known.identity.guid, moment) for moment in (begin, datetime.now(UTC))}
        assert sum(_holds(proof, nonce, key) for nonce in nonces) == 1
        assert len([one for one in card.log if isinstance(one, Verify)]) == before
        known.operation = "some operation"
        try:
            assert await here.proof(known) == b""
        finally:
            known.operation = ""


async def test_a_check_waits_for_a_program_that_is_logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """SELECT would make the card forget the PIN between that program's VERIFY and its signature."""
    looked = asyncio.Event()
    real = Presence._logged_in

    def logged_in(here: Presence, known: Card) -> bool:
        found = real(here, known)
        if found:
            loop.call_soon_threadsafe(looked.set)
        return found

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(presence, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(Presence, "_logged_in", logged_in)
    card, server = token(), Server()
    async with running(card, link=server, person=Person(PIN, PIN)) as run:
        await issue(run)
        async with asyncio.timeout(PATIENCE):
            while len(server.asked) < 2:  # after the insertion, and after the session
                server.was_asked.clear()
                await server.was_asked.wait()
        other = DirectConnection(card)
        other.transmit(commands.select().encode())
        assert other.transmit(commands.verify(PinReference.PIN, Secret(PIN)).encode()) == b"\x90\x00"
        asked = len(server.asked)
        server.was_asked.clear()
        assert server.pushed is not None
        server.pushed(Push())
        async with asyncio.timeout(PATIENCE):
            await looked.wait()
        assert len(server.asked) == asked
        assert other.transmit(commands.pin_state().encode()) == b"\x90\x00", "the login is still there"
        other.transmit(commands.clear_status().encode())
        async with asyncio.timeout(PATIENCE):
            await server.was_asked.wait()
        assert len(server.asked) > asked


def _holds(proof: bytes, nonce: bytes, key: Any) -> bool:
    try:
        verify(proof, audience=PROOF_AUDIENCE, nonce=nonce, key=key)
    except ProofInvalid:
        return False
    return True
