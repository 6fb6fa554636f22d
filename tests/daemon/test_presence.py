"""The question what is due goes with a proof by 9E, and disturbs nobody."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.serialization import load_der_public_key

from cardwright_cardops.piv.proofs import PROOF_AUDIENCE, ProofInvalid, check_nonce, verify
from cardwright_cardops.piv.references import Slot
from cardwright_daemon.presence import Presence
from cardwright_simulators.card import Verify
from tests.support.daemon_server import Server
from tests.support.daemon_sessions import issue
from tests.support.daemons import Person, running, token

PIN = b"739146"


async def test_card_proves_itself_to_the_minute_without_a_pin() -> None:
    card, server = token(), Server()
    async with running(card, link=server, person=Person(PIN, PIN)) as run:
        known = next(iter(run.daemon.desk.cards.all))
        presence = Presence(run.daemon.desk.cards)
        assert await presence.proof(known) == b"", "a card without a card UUID has nothing to prove"
        await issue(run)
        before = len([one for one in card.log if isinstance(one, Verify)])
        begin = datetime.now(UTC)
        proof = await presence.proof(known)
        inventory = await run.daemon.desk.cards.inventory(known)
        row = inventory.key(Slot.CARD_AUTHENTICATION)
        assert row is not None and known.identity.guid is not None
        key = load_der_public_key(row.public_key)
        nonces = {check_nonce(known.identity.guid, moment) for moment in (begin, datetime.now(UTC))}
        assert sum(_holds(proof, nonce, key) for nonce in nonces) == 1
        assert len([one for one in card.log if isinstance(one, Verify)]) == before
        known.operation = "some operation"
        try:
            assert await presence.proof(known) == b""
        finally:
            known.operation = ""


def _holds(proof: bytes, nonce: bytes, key: Any) -> bool:
    try:
        verify(proof, audience=PROOF_AUDIENCE, nonce=nonce, key=key)
    except ProofInvalid:
        return False
    return True
