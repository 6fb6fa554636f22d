"""``UpdateService``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_proto.agent.v1 import agent_pb2_grpc

from ..answers import LONGEST_LATER
from ..desk import Desk
from ..errors import BadRequest, UpdateMandatory
from ..link.ports import Due, MethodKind, Purpose
from ..operations import Operation
from ..tokens import Device, TokenDevice
from . import encoding as to
from .asking import prompter_of
from .edge import Context

MOST_KEYS: Final = 64
MAX_ACCOUNT: Final = 256


class UpdateServicer(agent_pb2_grpc.UpdateServiceServicer):
    """What the server wants done, and doing it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def GetDue(self, request: pb.GetDueRequest, context: Context) -> pb.GetDueResponse:
        """Ask the server, or tell its last answer."""
        card = await self._desk.device(request.card)
        return pb.GetDueResponse(due=self.due(card, await self._desk.due.due(card, refresh=request.refresh)))

    def due(self, card: Device, found: Due) -> pb.Due:
        """What is due, with what is known here of it."""
        return due_message(self._desk, card, found)

    async def PreviewUpdate(self, request: pb.PreviewUpdateRequest, context: Context) -> pb.PreviewUpdateResponse:
        """Begin a session and wait at its preview."""
        card = await self._desk.device(request.card)
        purpose = to.key_of(to.PURPOSES, request.purpose, "purpose", Purpose.UPDATE)
        if len(request.keys) > MOST_KEYS:
            raise BadRequest("Too many keys.")
        shown = await self._desk.sessions.preview(
            card,
            purpose,
            prompter_of(self._desk, pb.Asking()),
            request=to.uuid_of(request.request, "request"),
            keys=tuple(request.keys),
        )
        return to.shown(shown, token=isinstance(card, TokenDevice))

    async def StartUpdate(self, request: pb.StartUpdateRequest, context: Context) -> pb.StartUpdateResponse:
        """Do what was previewed."""
        card = await self._desk.device(request.card)
        prompter = prompter_of(self._desk, request.asking)
        confirmed = to.acts_of(list(request.confirmed))
        operation = self._desk.sessions.start(card, request.digest, confirmed, prompter)
        return pb.StartUpdateResponse(operation=to.operation(operation))

    async def DismissPreview(self, request: pb.DismissPreviewRequest, context: Context) -> pb.DismissPreviewResponse:
        """Give it up."""
        await self._desk.sessions.dismiss(await self._desk.device(request.card))
        return pb.DismissPreviewResponse()

    async def PostponeUpdate(self, request: pb.PostponeUpdateRequest, context: Context) -> pb.PostponeUpdateResponse:
        """Later."""
        card = await self._desk.device(request.card)
        until = to.moment_of(request, "until")
        if until is None or until > datetime.now(UTC) + LONGEST_LATER:
            raise BadRequest(f"An update is put off for at most {LONGEST_LATER.days} days.")
        found = await self._desk.due.due(card)
        if found and found.mandatory_from is not None:
            if found.mandatory_from <= datetime.now(UTC):
                raise UpdateMandatory("This is mandatory by now.")
            until = min(until, found.mandatory_from)
        await self._desk.sessions.dismiss(card)
        self._desk.due.postpone(card, until)
        return pb.PostponeUpdateResponse(due=self.due(card, found))

    async def ListMethods(self, request: pb.ListMethodsRequest, context: Context) -> pb.ListMethodsResponse:
        """How the person can prove who they are."""
        card = await self._desk.device(request.card)
        purpose = to.key_of(to.PURPOSES, request.purpose, "purpose")
        methods = await self._desk.proofs.methods(card, purpose, _account(request.account))
        return pb.ListMethodsResponse(methods=[to.method(one) for one in methods])

    async def Prove(self, request: pb.ProveRequest, context: Context) -> pb.ProveResponse:
        """Prove it."""
        card = await self._desk.device(request.card)
        purpose = to.key_of(to.PURPOSES, request.purpose, "purpose")
        method = to.key_of(to.METHODS, request.method, "method")
        prompter = prompter_of(self._desk, request.asking)
        if method is MethodKind.CARD:
            until = await self._desk.keys.prove(card, purpose, prompter)
        else:
            account = _account(request.account)
            until = await self._desk.proofs.prove(card, purpose, method, account, prompter)
        return pb.ProveResponse(until=to.time(until))

    async def Unlock(self, request: pb.UnlockRequest, context: Context) -> pb.UnlockResponse:
        """A new PIN on a card whose PIN is blocked."""
        operation = await self._through(request.card, Purpose.UNLOCK, request.request, request.asking)
        return pb.UnlockResponse(operation=to.operation(operation))

    async def ResetForgottenPin(
        self, request: pb.ResetForgottenPinRequest, context: Context
    ) -> pb.ResetForgottenPinResponse:
        """A new PIN on a card whose PIN is forgotten."""
        operation = await self._through(request.card, Purpose.FORGOTTEN_PIN, request.request, request.asking)
        return pb.ResetForgottenPinResponse(operation=to.operation(operation))

    async def _through(self, identifier: str, purpose: Purpose, request: str, asking: pb.Asking) -> Operation:
        card = await self._desk.device(identifier)
        prompter = prompter_of(self._desk, asking)
        wanted = to.uuid_of(request, "request")
        return await self._desk.sessions.through(card, purpose, prompter, request=wanted)


def due_message(desk: Desk, card: Device, found: Due) -> pb.Due:
    """What is due for ``card``, with what is known here of it."""
    postponed = desk.due.postponed_until(card)
    if postponed is not None and found.mandatory_from is not None:
        postponed = min(postponed, found.mandatory_from)
        if postponed <= datetime.now(UTC):
            postponed = None
    return to.due(
        found,
        postponed,
        desk.sessions.consent_for(card) is not None,
        desk.mandatory.begins_at(card, found),
    )


def _account(text: str) -> str:
    if len(text) > MAX_ACCOUNT or not text.isprintable():
        raise BadRequest("There is no such account name.")
    return text
