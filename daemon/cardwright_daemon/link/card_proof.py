"""A proof by card over ``SessionService.Run``: the server asks for one signature, and that is the whole session.

The batch that the server sends is only read: what the card is told is made here, behind a PIN that is asked for here.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import grpc

from cardwright_cardops import wire
from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.program.items import Answer, Apdu, Batch, Outcome, SignIn, VerifyPin
from cardwright_cardops.secret import Secret
from cardwright_cardops.wire_reading import WireMalformed, refuse_unknown
from cardwright_proto.cms.v1 import sessions_pb2

from .line import meaning_of
from .ports import Proof, ServerUnreachable, SignInChallenge
from .session import GOODBYE, say

LIFE: Final = timedelta(minutes=5)
"""How long a proof is used here; the server may be more patient."""
MAX_TOKEN: Final = 200


class StreamProof:
    """``CardProving`` over one stream on which the hello was said."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._number = 0
        self._items = 0
        self._over = False
        self._challenge = SignInChallenge("", b"")

    @property
    def challenge(self) -> SignInChallenge:
        """See ``CardProving``."""
        return self._challenge

    async def begin(self) -> None:
        """Hear what is to be signed. Raises WireMalformed, ServerUnreachable, and what the server told."""
        await self._heard("hello")
        message = (await self._heard("batch")).batch
        batch = wire.batch_from_wire(message.batch)
        groups = batch.groups if isinstance(batch, Batch) else ()
        match [group.items for group in groups]:
            case [(Apdu(),), (VerifyPin(), SignIn(audience=audience, nonce=nonce))]:
                self._number, self._challenge = message.number, SignInChallenge(audience, nonce)
            case _:
                raise WireMalformed("The server asked for something else than a signature.")

    async def finish(self, token: bytes) -> Proof:
        """See ``CardProving``."""
        done = Answer(Outcome.ANSWERED, 0x9000)
        answers = ((done,), (done, Answer(Outcome.ANSWERED, 0x9000, token)))
        await self._send(answers=sessions_pb2.BatchAnswers(number=self._number, answers=wire.answers_to_wire(answers)))
        told = (await self._heard("finished")).finished.authentication
        self._over = True
        if not 0 < len(told) <= MAX_TOKEN or not told.isascii():
            raise WireMalformed("The server gave nothing for the proof.")
        return Proof(Secret(told.encode()), datetime.now(UTC) + LIFE)

    async def close(self) -> None:
        """See ``CardProving``."""
        if not self._over:
            self._over = True
            with contextlib.suppress(CardwrightError, TimeoutError):
                async with asyncio.timeout(GOODBYE):
                    await self._send(cancel=sessions_pb2.Cancel())
        self._call.cancel()

    async def _heard(self, wanted: str) -> sessions_pb2.RunResponse:
        while True:
            try:
                message = await self._call.read()
            except grpc.aio.AioRpcError as error:
                self._over = True
                raise meaning_of(error) from None
            except asyncio.InvalidStateError:
                raise ServerUnreachable("The line to the server is closed.") from None
            if message is grpc.aio.EOF:
                self._over = True
                raise await self._why()
            refuse_unknown(message)
            kind = message.WhichOneof("kind")
            if kind == "error":
                self._over = True
                raise wire.error_from_wire(message.error)
            if kind == wanted:
                return message  # type: ignore[no-any-return]
            if kind not in ("progress", "end_stage"):
                raise WireMalformed(f"The server sent {kind or 'nothing'} in place of {wanted}.")

    async def _why(self) -> CardwrightError:
        """Why the stream ended early: its status says."""
        code = await self._call.code()
        if code is grpc.StatusCode.OK:
            return ServerUnreachable("The server ended the session without a word.")
        return meaning_of(
            grpc.aio.AioRpcError(
                code, await self._call.initial_metadata(), await self._call.trailing_metadata(),
                details=await self._call.details(),
            )
        )  # fmt: skip

    async def _send(self, **kind: Any) -> None:
        await say(self._call, sessions_pb2.RunRequest(**kind))
