"""What workstations ask about cards, and something to tell them."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.commands import select
from cardwright_cardops.piv.proofs import check_nonce
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.program.items import Apdu, Batch, Group, Prove
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.devices.due import What
from cardwright_server.store.unit import Unit
from cardwright_simulators.card import VirtualCard
from tests.support.session_world import SessionWorld
from tests.support.sessions import reader


def proof_of(card: VirtualCard, guid: UUID, moment: datetime) -> bytes:
    """What the card signs with 9E."""
    item = Prove(Slot.CARD_AUTHENTICATION, Algorithm.P256, check_nonce(guid, moment))
    (_, (answer,)) = reader(card).execute(Batch((Group((Apdu(select()),)), Group((item,)))))
    return answer.require("proving")


def asked(guid: UUID | str, proof: bytes = b"", serial: str = "", number: int = 0) -> sessions_pb2.DueRequest:
    """A question about a card."""
    name = sessions_pb2.CardName(guid=str(guid), serial=serial)
    return sessions_pb2.DueRequest(protocol=1, card=name, proof=proof, policy_number=number)


async def put(
    world: SessionWorld, device: UUID, what: What, days: float, ends: float | None = None, **detail: int
) -> None:
    """Something becomes due in so many days."""
    async def work(unit: Unit) -> None:
        ends_at = None if ends is None else unit.now + timedelta(days=ends)
        due_at = unit.now + timedelta(days=days)
        await world.world.services.due.put(unit, world.org, device, what, due_at, ends_at=ends_at, detail=detail)

    await world.database.transact(work)
