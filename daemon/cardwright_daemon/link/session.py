"""A card session as a stream of gRPC: messages there and back, and nothing of what they mean."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final, cast
from uuid import UUID

import grpc

from cardwright_cardops import wire, wire_tokens
from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.plan.pin_rules import PinRules
from cardwright_cardops.program.items import Answers
from cardwright_cardops.wire_reading import WireMalformed, refuse_unknown
from cardwright_proto.cms.v1 import sessions_pb2, sessions_pb2_grpc

from .line import meaning_of, proved
from .ports import (
    EndStage,
    Execute,
    ExecuteSteps,
    Finished,
    Greeted,
    Message,
    Opening,
    Outcome,
    Preview,
    Progress,
    Purpose,
    ServerUnreachable,
    StepAnswers,
)

PROTOCOL: Final = 1
GOODBYE: Final = 2.0
"""Seconds for a last word to the server."""
MOST_CONTENTS: Final = 64
MOST_CARD_KEYS: Final = 4
MAX_CARD_KEY: Final = 1024

PURPOSES: Final = {
    Purpose.ISSUE: sessions_pb2.PURPOSE_ISSUE,
    Purpose.UPDATE: sessions_pb2.PURPOSE_UPDATE,
    Purpose.RECOVER: sessions_pb2.PURPOSE_UPDATE,
    Purpose.UNLOCK: sessions_pb2.PURPOSE_UNLOCK,
    Purpose.REISSUE: sessions_pb2.PURPOSE_REISSUE,
    Purpose.FORGOTTEN_PIN: sessions_pb2.PURPOSE_FORGOTTEN_PIN,
    Purpose.PROVE: sessions_pb2.PURPOSE_PROVE,
    Purpose.RECYCLE: sessions_pb2.PURPOSE_RECYCLE,
    Purpose.LOCK: sessions_pb2.PURPOSE_LOCK,
}
_OUTCOMES: Final = {
    sessions_pb2.OUTCOME_DONE: Outcome.DONE,
    sessions_pb2.OUTCOME_NOTHING_DUE: Outcome.NOTHING_DUE,
    sessions_pb2.OUTCOME_PENDING: Outcome.PENDING,
}


class StreamSession:
    """``CardSession`` over one stream of ``SessionService.Run``."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._over = False
        self._steps = False

    async def messages(self) -> AsyncIterator[Message]:
        """See ``CardSession``. Also raises WireMalformed and WireUnsupported for what breaks the contract."""
        try:
            async for message in self._call:
                refuse_unknown(message)
                if message.WhichOneof("kind") == "error":
                    self._over = True
                    raise wire.error_from_wire(message.error)
                found = self._meant(message)
                yield found
                if isinstance(found, Finished):
                    return
        except grpc.aio.AioRpcError as error:
            self._over = True
            raise meaning_of(error) from None
        except asyncio.InvalidStateError:
            raise ServerUnreachable("The line to the server is closed.") from None
        self._over = True
        raise ServerUnreachable("The server ended the session without a word.")

    async def consent(self, plan: bytes, *, unasked: bool = False) -> None:
        """See ``CardSession``."""
        await self._send(consent=sessions_pb2.Consent(plan=plan, unasked=unasked))

    async def refuse(self) -> None:
        """See ``CardSession``."""
        await self._send(consent=sessions_pb2.Consent(refused=True))

    async def answer(self, number: int, answers: Answers | StepAnswers | CardwrightError) -> None:
        """See ``CardSession``."""
        if self._steps:
            await self._answer_steps(number, cast("StepAnswers | CardwrightError", answers))
            return
        message = sessions_pb2.BatchAnswers(number=number)
        if isinstance(answers, CardwrightError):
            message.refused.CopyFrom(wire.error_to_wire(answers))
        else:
            message.answers.CopyFrom(wire.answers_to_wire(cast("Answers", answers)))
        await self._send(answers=message)

    async def _answer_steps(self, number: int, answers: StepAnswers | CardwrightError) -> None:
        message = sessions_pb2.StepAnswers(number=number)
        if isinstance(answers, CardwrightError):
            message.refused.CopyFrom(wire.error_to_wire(answers))
        else:
            message.answers.CopyFrom(wire_tokens.step_answers_to_wire(answers))
        await self._send(step_answers=message)

    async def close(self, *, silently: bool = False) -> None:
        """See ``CardSession``."""
        if not self._over and not silently:
            self._over = True
            with contextlib.suppress(CardwrightError, TimeoutError):
                async with asyncio.timeout(GOODBYE):
                    await self._send(cancel=sessions_pb2.Cancel())
        self._call.cancel()

    async def _send(self, **kind: Any) -> None:
        await say(self._call, sessions_pb2.RunRequest(**kind))

    def _meant(self, message: sessions_pb2.RunResponse) -> Message:
        match message.WhichOneof("kind"):
            case "hello":
                if message.hello.protocol != PROTOCOL:
                    raise WireMalformed("The server speaks another version than was agreed.")
                return Greeted(_uuid(message.hello.session))
            case "preview":
                if len(message.preview.contents) > MOST_CONTENTS:
                    raise WireMalformed("A preview names more objects than a card has.")
                shown = message.preview
                if len(shown.card_keys) > MOST_CARD_KEYS or any(len(one) > MAX_CARD_KEY for one in shown.card_keys):
                    raise WireMalformed("A preview names more keys of 9E than there can be, or too long ones.")
                plan, keys = wire.plan_from_wire(shown.plan), tuple(shown.card_keys)
                return Preview(plan, _contents(shown), _pin_rules(shown), keys, shown.card_key_unknown)
            case "batch":
                return Execute(message.batch.number, wire.batch_from_wire(message.batch.batch))
            case "steps":
                self._steps = True
                return ExecuteSteps(message.steps.number, wire_tokens.steps_from_wire(message.steps.batch))
            case "end_stage":
                return EndStage()
            case "progress":
                return Progress(message.progress.step[:64], min(message.progress.percentage, 100))
            case "finished":
                self._over = True
                outcome = _OUTCOMES.get(message.finished.outcome)
                if outcome is None:
                    raise WireMalformed("The server ended the session in a way that is not known here.")
                return Finished(outcome)
        raise WireMalformed("The server sent an empty message.")


def begin(stub: sessions_pb2_grpc.SessionServiceStub, opening: Opening) -> Any:
    """The stream, with nothing said on it yet."""
    run: Any = stub.Run
    return run(metadata=proved(opening.proof))


async def say(call: Any, message: sessions_pb2.RunRequest) -> None:
    """Send a message. Raises ServerUnreachable, ServerRefused, and what the server told."""
    try:
        await call.write(message)
    except grpc.aio.AioRpcError as error:
        raise meaning_of(error) from None
    except asyncio.InvalidStateError:
        raise ServerUnreachable("The line to the server is closed.") from None


def hello(opening: Opening, *, assisted: bool = False) -> sessions_pb2.RunRequest:
    """The first message. ``assisted``: the help desk asked for the unlock."""
    purpose = sessions_pb2.PURPOSE_UNLOCK_ASSISTED if assisted else PURPOSES[opening.purpose]
    greeting = sessions_pb2.ClientHello(
        protocol=PROTOCOL,
        steps=opening.steps,
        items=opening.items,
        max_batch=opening.max_batch,
        software=opening.software,
        reader=opening.reader,
        purpose=purpose,
        request="" if opening.request is None else str(opening.request),
        card=wire.inventory_to_wire(opening.card),
    )
    if opening.token is not None:
        greeting.token.CopyFrom(wire_tokens.token_to_wire(opening.token))
    return sessions_pb2.RunRequest(hello=greeting)


def _pin_rules(preview: sessions_pb2.Preview) -> PinRules | None:
    """Rules of known kinds only, so that nothing else of the server's comes near a prompt. Raises PinRulesMalformed."""
    if not preview.HasField("pin_rules"):
        return None
    told = preview.pin_rules
    return PinRules(
        min_length=told.min_length,
        max_length=told.max_length,
        digits_only=told.digits_only,
        refuse_trivial=told.refuse_trivial,
        refuse_common=told.refuse_common,
        differs=told.refuse_old,
    )


def _contents(preview: sessions_pb2.Preview) -> dict[int, bytes]:
    found = {}
    for row in preview.contents:
        try:
            tag = int(row.tag, 16) if len(row.tag) <= 6 else -1
        except ValueError:
            tag = -1
        if tag < 0 or len(row.digest) != 32:
            raise WireMalformed("A preview names an object or a digest that is none.")
        found[tag] = row.digest
    return found


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise WireMalformed("The server named no session.") from None
