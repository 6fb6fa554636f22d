"""``SessionService``: the stream of a card session, and nothing of what it means."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

import grpc
from google.protobuf.message import DecodeError, Message

from cardwright_cardops import wire, wire_tokens
from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.plan.token import TokenAnswer
from cardwright_cardops.program.items import Answers, AnyBatch
from cardwright_cardops.program.token_items import TokenBatch
from cardwright_cardops.wire_reading import MAX_CODE, MAX_MESSAGE, refuse_unknown
from cardwright_proto.cms.v1 import sessions_pb2, sessions_pb2_grpc

from ..authentication.errors import AccessDenied, AuthorizationError
from ..authentication.principal import Principal
from ..devices.due import What
from ..sessions.due import CardName, DueAnswer, DueChecks
from ..sessions.errors import LineLost, PeerTooOld, SessionCancelled, SessionProtocolBroken
from ..sessions.hints import Hints
from ..sessions.model import PROTOCOL, Greeting, Outcome, Purpose, Showing
from ..sessions.proving import CardProofs
from ..sessions.service import SessionService
from .calling import Calls, Context
from .errors import abort
from .reading import RequestMalformed, at_most, optional_identifier

ANSWER_WAIT = timedelta(minutes=5)
"""For a batch: an RSA-4096 key takes a slow card minutes, and the person may have to find their PIN."""
CONSENT_WAIT = timedelta(minutes=10)
HELLO_WAIT = timedelta(seconds=20)
MAX_KINDS = 64
MAX_LABEL = 200

_GONE = (grpc.RpcError, asyncio.InvalidStateError, grpc.aio.UsageError, grpc.aio.InternalError)
"""What reading and writing raise once the other end has hung up or was killed: which, depends on the moment."""
MAX_PROOF = 1024
MAX_SERIAL = 80
MOST_CARDS = 16

_PURPOSES = {
    sessions_pb2.PURPOSE_ISSUE: Purpose.ISSUE,
    sessions_pb2.PURPOSE_UPDATE: Purpose.UPDATE,
    sessions_pb2.PURPOSE_UNLOCK: Purpose.UNLOCK,
    sessions_pb2.PURPOSE_REISSUE: Purpose.REISSUE,
    sessions_pb2.PURPOSE_UNLOCK_ASSISTED: Purpose.UNLOCK_ASSISTED,
    sessions_pb2.PURPOSE_FORGOTTEN_PIN: Purpose.FORGOTTEN_PIN,
    sessions_pb2.PURPOSE_PROVE: Purpose.PROVE,
    sessions_pb2.PURPOSE_RECYCLE: Purpose.RECYCLE,
    sessions_pb2.PURPOSE_LOCK: Purpose.LOCK,
}
_NUMBERS = {purpose: number for number, purpose in _PURPOSES.items()}
_OUTCOMES = {
    Outcome.DONE: sessions_pb2.OUTCOME_DONE,
    Outcome.NOTHING_DUE: sessions_pb2.OUTCOME_NOTHING_DUE,
    Outcome.PENDING: sessions_pb2.OUTCOME_PENDING,
}
_DUE = {what: sessions_pb2.DueKind.Value(f"DUE_KIND_{what.name}") for what in What}


class Streams(Protocol):
    """Who ends the streams of workstations that are revoked: ``workstations.watch.RevocationWatch``."""

    def stream(self, workstation: UUID) -> AbstractContextManager[asyncio.Event]:
        """An event that is set when the workstation is revoked."""


class SessionServicer(sessions_pb2_grpc.SessionServiceServicer):
    """Sessions, and what tells a workstation that one is due. ``hints`` is run by whoever made it."""

    def __init__(
        self,
        calls: Calls,
        service: SessionService,
        proofs: CardProofs,
        checks: DueChecks,
        hints: Hints,
        streams: Streams,
    ) -> None:
        self._calls = calls
        self._service = service
        self._proofs = proofs
        self._checks = checks
        self._hints = hints
        self._streams = streams

    async def Run(self, request_iterator: object, context: Context) -> None:  # type: ignore[override]
        """One session on one card."""
        line = StreamLine(context)
        try:
            principal = await self._calls.caller(context)
            greeting = _greeting(await line.hello())
            proof: UUID | None = None
            try:
                if greeting.purpose is Purpose.PROVE:
                    outcome, proof = Outcome.DONE, await self._proofs.prove(principal, greeting, line)
                else:
                    outcome = await self._service.run(principal, greeting, line)
            except AuthorizationError as error:
                await self._calls.note_denial(principal, error)
                raise
        except CardwrightError as error:
            if not line.greeted:
                await abort(context, error)
            await line.fail(error)
        else:
            await line.finish(outcome, proof)

    async def Due(self, request: sessions_pb2.DueRequest, context: Context) -> sessions_pb2.DueResponse:
        """What is due for a card."""

        async def work(principal: Principal) -> sessions_pb2.DueResponse:
            refuse_unknown(request)
            _require_protocol(request.protocol)
            if len(request.proof) > MAX_PROOF:
                raise RequestMalformed(f"proof has more than {MAX_PROOF} octets.")
            answer = await self._checks.check(principal, _card(request.card), request.proof)
            return _due(answer, request.policy_number)

        return await self._calls.act(context, work)

    async def Watch(
        self, request: sessions_pb2.WatchRequest, context: Context
    ) -> AsyncIterator[sessions_pb2.WatchResponse]:
        """When something about one of the cards changed."""

        async def work(principal: Principal) -> tuple[UUID, dict[UUID, CardName]]:
            refuse_unknown(request)
            _require_protocol(request.protocol)
            at_most(request.cards, MOST_CARDS, "cards")
            return principal.id, await self._checks.devices(principal, [_card(one) for one in request.cards])

        workstation, devices = await self._calls.act(context, work)
        with self._streams.stream(workstation) as revoked, self._hints.watching(devices) as watcher:

            async def end() -> None:
                await revoked.wait()
                watcher.close()

            ending = asyncio.create_task(end())
            try:
                # So that the caller knows from when on nothing is missed.
                await context.send_initial_metadata(())
                async for device in watcher.changes():
                    named = devices[device]
                    guid = "" if named.guid is None else str(named.guid)
                    yield sessions_pb2.WatchResponse(card=sessions_pb2.CardName(guid=guid, serial=named.serial))
            finally:
                ending.cancel()
        await abort(context, AccessDenied("this workstation is revoked"))


class StreamLine:
    """``Line`` over one stream."""

    def __init__(self, context: Context) -> None:
        self.greeted = False
        self._context = context
        self._number = 0
        self._progress: sessions_pb2.Progress | None = None

    async def hello(self) -> sessions_pb2.ClientHello:
        """The first message. Raises LineLost, SessionProtocolBroken, SessionCancelled."""
        return (await self._next("hello", HELLO_WAIT)).hello

    async def greet(self, session: UUID) -> None:
        """See ``Line``."""
        await self._send(hello=sessions_pb2.ServerHello(protocol=PROTOCOL, session=str(session)))
        self.greeted = True

    async def show(self, showing: Showing, batch: AnyBatch, agreed: Callable[[bool], None]) -> Answers | None:
        """See ``Line``."""
        await self._preview(showing)
        await self._send_batch(batch)
        if not await self._consented(showing, agreed):
            return None
        return await self._answers(batch)

    async def _preview(self, showing: Showing) -> None:
        message = sessions_pb2.Preview(plan=wire.plan_to_wire(showing.plan))
        for tag, digest in showing.digests.items():
            message.contents.add(tag=f"{tag:X}", digest=digest)
        rules = showing.pin_rules
        message.pin_rules.CopyFrom(
            sessions_pb2.PinRules(
                min_length=rules.min_length,
                max_length=rules.max_length,
                digits_only=rules.digits_only,
                refuse_trivial=rules.refuse_trivial,
                refuse_common=rules.refuse_common,
                refuse_old=rules.differs,
            )
        )
        message.card_keys.extend(showing.card_keys)
        message.card_key_unknown = showing.card_key_unknown
        await self._send(preview=message)

    async def _consented(self, showing: Showing, agreed: Callable[[bool], None]) -> bool:
        consent = (await self._next("consent", CONSENT_WAIT)).consent
        if consent.refused or consent.plan != bytes.fromhex(showing.plan.digest):
            return False
        agreed(consent.unasked)
        return True

    async def execute(self, batch: AnyBatch) -> Answers:
        """See ``Line``."""
        await self._send_batch(batch)
        return await self._answers(batch)

    async def show_steps(
        self, showing: Showing, batch: TokenBatch, agreed: Callable[[bool], None]
    ) -> tuple[TokenAnswer, ...] | None:
        """See ``Line``."""
        await self._preview(showing)
        await self._send_steps(batch)
        if not await self._consented(showing, agreed):
            return None
        return await self._step_answers(batch)

    async def steps(self, batch: TokenBatch) -> tuple[TokenAnswer, ...]:
        """See ``Line``."""
        await self._send_steps(batch)
        return await self._step_answers(batch)

    async def _send_steps(self, batch: TokenBatch) -> None:
        self._number += 1
        await self._send(steps=sessions_pb2.Steps(number=self._number, batch=wire_tokens.steps_to_wire(batch)))

    async def _step_answers(self, batch: TokenBatch) -> tuple[TokenAnswer, ...]:
        message = (await self._next("step_answers", ANSWER_WAIT)).step_answers
        if message.number != self._number:
            raise SessionProtocolBroken("Answers came to other steps than the last ones.")
        if message.HasField("refused"):
            raise wire.error_from_wire(message.refused)
        return wire_tokens.step_answers_from_wire(message.answers, batch)

    async def _send_batch(self, batch: AnyBatch) -> None:
        self._number += 1
        await self._send(batch=sessions_pb2.Batch(number=self._number, batch=wire.batch_to_wire(batch)))

    async def _answers(self, batch: AnyBatch) -> Answers:
        message = (await self._next("answers", ANSWER_WAIT)).answers
        if message.number != self._number:
            raise SessionProtocolBroken("Answers came to another batch than the last one.")
        if message.HasField("refused"):
            raise wire.error_from_wire(message.refused)
        return wire.answers_from_wire(message.answers, batch)

    async def end_stage(self) -> None:
        """See ``Line``."""
        try:
            await self._send(end_stage=sessions_pb2.EndStage())
        except LineLost:
            return  # the workstation ends its stage by itself when the line is gone

    def progress(self, step: str, percentage: int) -> None:
        """See ``Line``."""
        self._progress = sessions_pb2.Progress(step=step, percentage=percentage)

    async def finish(self, outcome: Outcome, proof: UUID | None) -> None:
        """The last message of a session that ended well; ``proof``: what the card proved."""
        named = "" if proof is None else str(proof)
        try:
            await self._send(finished=sessions_pb2.Finished(outcome=_OUTCOMES[outcome], authentication=named))
        except LineLost:
            return  # it is recorded; the workstation sees it at the next contact

    async def fail(self, error: CardwrightError) -> None:
        """The last message of a session that failed."""
        try:
            await self._send(error=wire.error_to_wire(error))
        except LineLost:
            return  # it is recorded; the workstation sees it at the next contact

    async def _send(self, **kind: Any) -> None:
        progress, self._progress = self._progress, None
        try:
            if progress is not None:
                await self._context.write(sessions_pb2.RunResponse(progress=progress))
            await self._context.write(sessions_pb2.RunResponse(**kind))
        except _GONE as error:
            raise LineLost("The line to the workstation is gone.") from error

    async def _read(self) -> Any:
        return await self._context.read()

    async def _next(self, wanted: str, patience: timedelta) -> sessions_pb2.RunRequest:
        try:
            async with asyncio.timeout(patience.total_seconds()):
                message = await self._read()
        except TimeoutError as error:
            raise LineLost("The workstation did not answer in time.") from error
        except (DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise wire.WireMalformed("These octets are no message of a session.") from error
        except _GONE as error:
            raise LineLost("The line to the workstation is gone.") from error
        if message is grpc.aio.EOF:
            raise LineLost("The workstation ended the line.")
        _bounded(message)
        kind = message.WhichOneof("kind")
        if kind == "cancel":
            raise SessionCancelled("The workstation ended the session.")
        if kind != wanted:
            raise SessionProtocolBroken(f"The workstation sent {kind or 'nothing'} where {wanted} was due.")
        return message  # type: ignore[no-any-return]


def _bounded(message: Message) -> None:
    """Raises WireMalformed, WireUnsupported."""
    if message.ByteSize() > MAX_MESSAGE:
        raise wire.WireMalformed(f"A message is longer than {MAX_MESSAGE} octets.")
    refuse_unknown(message)


def _greeting(hello: sessions_pb2.ClientHello) -> Greeting:
    """Raises PeerTooOld, SessionProtocolBroken, WireMalformed, WireUnsupported."""
    if hello.protocol != PROTOCOL:
        raise PeerTooOld(f"The workstation speaks version {hello.protocol} of this contract, the server {PROTOCOL}.")
    if max(len(hello.steps), len(hello.items)) > MAX_KINDS:
        raise SessionProtocolBroken("The workstation names too many kinds of steps or items.")
    if any(len(kind) > MAX_CODE for kind in (*hello.steps, *hello.items)):
        raise SessionProtocolBroken("The workstation names a kind of step or item that is too long.")
    if len(hello.software) > MAX_LABEL or len(hello.reader) > MAX_LABEL:
        raise SessionProtocolBroken("The name of the program or of the reader is too long.")
    purpose = _PURPOSES.get(hello.purpose)
    if purpose is None:
        raise SessionProtocolBroken("The workstation does not say what the session is for.")
    try:
        request = UUID(hello.request) if hello.request else None
    except ValueError:
        raise SessionProtocolBroken("The request is not named by its id.") from None
    token, card = None, wire.inventory_from_wire(hello.card)
    if hello.HasField("token"):
        token = wire_tokens.token_from_wire(hello.token)
        if card.identity != token.name.identity(card.identity.card_key):
            raise SessionProtocolBroken("The token's identity is not that of what is on it.")
    return Greeting(
        frozenset(hello.steps),
        frozenset(hello.items),
        hello.max_batch,
        purpose,
        card,
        request,
        hello.software,
        hello.reader,
        token,
    )


def _require_protocol(number: int) -> None:
    if number != PROTOCOL:
        raise PeerTooOld(f"The workstation speaks version {number} of this contract, the server {PROTOCOL}.")


def _card(said: sessions_pb2.CardName) -> CardName:
    """Raises RequestMalformed."""
    if len(said.serial) > MAX_SERIAL:
        raise RequestMalformed(f"serial has more than {MAX_SERIAL} characters.")
    if not (said.guid or said.serial):
        raise RequestMalformed("card has neither guid nor serial.")
    return CardName(optional_identifier(said.guid, "guid"), said.serial)


def _due(answer: DueAnswer, known: int) -> sessions_pb2.DueResponse:
    made = sessions_pb2.DueResponse(due=answer.due, proven=answer.proven)
    if not answer.proven:
        return made
    for one in answer.things:
        row = made.items.add(kind=_DUE[one.what], seconds=one.seconds, since=one.since)
        row.purpose = _NUMBERS[one.purpose]
        row.request = "" if one.request is None else str(one.request)
        if one.mandatory_from is not None:
            row.mandatory_from.FromDatetime(one.mandatory_from)
        if one.ends_at is not None:
            row.ends_at.FromDatetime(one.ends_at)
    if answer.until is not None:
        made.until.FromDatetime(answer.until)
    made.policy_number = answer.policy_number
    made.policy_changed = answer.policy_number != known
    made.suspended = answer.suspended
    return made
