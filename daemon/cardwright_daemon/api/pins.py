"""``PinService``."""

from __future__ import annotations

from typing import Final

from cardwright_cardops.piv.references import PinReference
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_proto.agent.v1 import agent_pb2_grpc

from ..cards import Card
from ..desk import Desk
from ..errors import NotForTokens
from . import encoding as to
from .asking import prompter_of
from .edge import Context

_REFERENCES: Final = {
    PinReference.PIN: pb.PIN_REFERENCE_PIN,
    PinReference.GLOBAL_PIN: pb.PIN_REFERENCE_GLOBAL_PIN,
    PinReference.PUK: pb.PIN_REFERENCE_PUK,
}


class PinServicer(agent_pb2_grpc.PinServiceServicer):
    """PIN and PUK on this workstation, without a server."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def GetPinStatus(self, request: pb.GetPinStatusRequest, context: Context) -> pb.GetPinStatusResponse:
        """What the card says."""
        device = await self._desk.device(request.card)
        if isinstance(device, Card):
            status = await self._desk.pins.status(device)
            return pb.GetPinStatusResponse(pin=to.secret(status.pin), puk=to.secret(status.puk))
        from cardwright_cardops.pkcs11 import PinState

        state = await self._desk.tokens.pin_state(device)
        told = pb.SecretStatus(is_blocked=state is PinState.LOCKED)
        if state is PinState.FINAL_TRY:
            told.tries_left = 1
        return pb.GetPinStatusResponse(pin=told)

    async def ChangePin(self, request: pb.ChangePinRequest, context: Context) -> pb.ChangePinResponse:
        """Old to new."""
        device = await self._desk.device(request.card)
        reference = to.key_of(_REFERENCES, request.reference, "PIN", PinReference.PIN)
        prompter = prompter_of(self._desk, request.asking)
        last = request.allow_last_try
        if isinstance(device, Card):
            await self._desk.pins.change(device, prompter, reference, self._desk.due.rules(device), last_try=last)
        elif reference is not PinReference.PIN:
            raise NotForTokens("Of a PKCS#11 token only the user's PIN is changed.")
        else:
            await self._desk.tokens.change_pin(device, prompter, self._desk.due.rules(device), last_try=last)
        return pb.ChangePinResponse()

    async def UnblockPin(self, request: pb.UnblockPinRequest, context: Context) -> pb.UnblockPinResponse:
        """A new PIN with the PUK."""
        card = await self._desk.card(request.card)
        prompter = prompter_of(self._desk, request.asking)
        await self._desk.pins.unblock(card, prompter, self._desk.due.rules(card), last_try=request.allow_last_try)
        return pb.UnblockPinResponse()
