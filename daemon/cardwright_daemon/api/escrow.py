"""``EscrowService``."""

from __future__ import annotations

from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_proto.agent.v1 import agent_pb2_grpc

from ..desk import Desk
from ..errors import BadRequest
from ..link.ports import Purpose
from ..tokens import TokenDevice
from . import encoding as to
from .asking import prompter_of
from .edge import Context
from .updates import MOST_KEYS


class EscrowServicer(agent_pb2_grpc.EscrowServiceServicer):
    """Keys that the server keeps."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def ListEscrowedKeys(
        self, request: pb.ListEscrowedKeysRequest, context: Context
    ) -> pb.ListEscrowedKeysResponse:
        """Keys of the card's holder."""
        card = await self._desk.device(request.card)
        proof = self._desk.proofs.of(card, Purpose.RECOVER)
        found = await self._desk.link.escrowed(card.identity, proof)
        if isinstance(card, TokenDevice):
            from ..token_relay import look_at  # takes long to load, with the guard

            _, inventory = await look_at(card)
        else:
            inventory = await self._desk.cards.inventory(card)
        on_card = frozenset(key.fingerprint for key in inventory.keys)
        return pb.ListEscrowedKeysResponse(keys=[to.escrowed(one, on_card) for one in found])

    async def RecoverKeys(self, request: pb.RecoverKeysRequest, context: Context) -> pb.RecoverKeysResponse:
        """Put them into retired slots."""
        card = await self._desk.device(request.card)
        if len(request.keys) > MOST_KEYS:
            raise BadRequest("Too many keys.")
        prompter = prompter_of(self._desk, request.asking)
        operation = await self._desk.sessions.through(card, Purpose.RECOVER, prompter, keys=tuple(request.keys))
        return pb.RecoverKeysResponse(operation=to.operation(operation))

    async def DownloadPfx(self, request: pb.DownloadPfxRequest, context: Context) -> pb.DownloadPfxResponse:
        """One as PKCS #12."""
        card = await self._desk.device(request.card)
        content = await self._desk.keys.pfx(card, request.key, prompter_of(self._desk, request.asking))
        return pb.DownloadPfxResponse(pfx=content)
