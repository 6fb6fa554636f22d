"""One card session as a workstation has it: the card is read, the plan agreed to, and the guard judges every batch."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc

from cardwright_cardops import wire
from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.guard import GuardedExecutor, State, begin
from cardwright_cardops.guard.preview import identity_of, permit_for
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.pins import FixedPins
from cardwright_cardops.plan.inventory import Inventory
from cardwright_cardops.plan.observe import EVERYTHING, Look, observe
from cardwright_cardops.plan.steps import STEP_KINDS
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.direct import DirectCard, DirectConnection
from cardwright_cardops.wire_reading import MAX_MESSAGE
from cardwright_proto.cms.v1 import authentication_pb2, authentication_pb2_grpc, sessions_pb2, sessions_pb2_grpc

from .tasks import PROTOCOL, Task

ITEMS: Final = ("apdu", "verify_pin", "set_pin", "unblock", "set_puk", "prove", "sign_request")
SECONDS: Final = 300.0
_LOOK: Final = Look(objects=EVERYTHING.objects)
_OUTCOMES: Final = {
    sessions_pb2.OUTCOME_DONE: "done",
    sessions_pb2.OUTCOME_NOTHING_DUE: "nothing-due",
    sessions_pb2.OUTCOME_PENDING: "pending",
}


class SessionFailed(CardwrightError):
    """The server ended a session otherwise than well."""

    code = "SIMULATED_SESSION_FAILED"
    default_effect = "The card is as the session left it."
    default_advice = "See the server's record of the session."


class Executor(Protocol):
    """What carries batches out."""

    def execute(self, batch: Any) -> Any:
        """Answers, in the order of the batch."""

    def end_stage(self) -> None:
        """Drop every status."""


@dataclass(frozen=True, slots=True)
class Course:
    """How a session went. ``batches`` were executed; ``card_seconds`` were spent on the card, guard included."""

    outcome: str
    batches: int
    card_seconds: float


class Session:
    """A workstation with one card and its holder, who agrees to everything and has one PIN.

    ``waits``: cards with a time of their own are worked on beside the loop; instant ones are not worth a thread.
    """

    def __init__(self, line: grpc.aio.Channel, card: DirectCard, pin: Secret, *, waits: bool = False) -> None:
        self._line = line
        self._waits = waits
        self._local = LocalExecutor(DirectConnection(card), KeyItems(FixedPins(pin, pin)))
        self._executor: Executor = self._local
        self._inventory: Inventory | None = None
        self._batches = 0
        self._card_seconds = 0.0

    async def issue(self, task: Task) -> Course:
        """Prove who the holder is, and issue the card. Raises grpc.aio.AioRpcError, CardwrightError."""
        evidence = authentication_pb2.Evidence(
            method=authentication_pb2.METHOD_INITIAL_PASSWORD, password=task.password
        )
        prove = authentication_pb2_grpc.AuthenticationServiceStub(self._line).Prove
        proved = await prove(authentication_pb2.ProveRequest(login=task.login, evidence=[evidence]), timeout=SECONDS)
        return await self.run(sessions_pb2.PURPOSE_ISSUE, request=task.request, proof=proved.session)

    async def run(self, purpose: sessions_pb2.Purpose.ValueType, *, request: str = "", proof: str = "") -> Course:
        """One session to its end. Raises grpc.aio.AioRpcError, and what card, guard and server told."""
        try:
            self._inventory = await self._on_card(lambda: run(observe(_LOOK), self._local))
            hello = sessions_pb2.ClientHello(
                protocol=PROTOCOL, steps=sorted(STEP_KINDS), items=ITEMS, max_batch=MAX_MESSAGE // 2,
                software="simulated", reader="simulated", purpose=purpose, request=request,
                card=wire.inventory_to_wire(self._inventory),
            )  # fmt: skip
            start: Any = sessions_pb2_grpc.SessionServiceStub(self._line).Run
            call = start(metadata=(("cardwright-session", proof),) if proof else (), timeout=SECONDS)
            try:
                await call.write(sessions_pb2.RunRequest(hello=hello))
                return Course(await self._follow(call), self._batches, self._card_seconds)
            finally:
                call.cancel()
        finally:
            self._local.end_stage()

    async def _follow(self, call: Any) -> str:
        while (message := await call.read()) is not grpc.aio.EOF:
            match message.WhichOneof("kind"):
                case "preview":
                    self._agree(message.preview)
                    digest = bytes.fromhex(wire.plan_from_wire(message.preview.plan).digest)
                    await call.write(sessions_pb2.RunRequest(consent=sessions_pb2.Consent(plan=digest)))
                case "batch":
                    await call.write(sessions_pb2.RunRequest(answers=await self._answers(message.batch)))
                case "end_stage":
                    self._executor.end_stage()
                case "finished":
                    return _OUTCOMES.get(message.finished.outcome, "unknown")
                case "error":
                    raise wire.error_from_wire(message.error)
                case _:
                    pass  # its name, and how far it is
        raise SessionFailed("The server ended the session without a word.")

    def _agree(self, preview: sessions_pb2.Preview) -> None:
        """From here on only what the plan says goes to the card."""
        assert self._inventory is not None
        plan, document = wire.plan_from_wire(preview.plan), self._inventory.document()
        contents = {int(row.tag, 16): row.digest for row in preview.contents}
        state = begin(
            permit_for(plan.document(), document, contents=contents),
            identity_of(document),
            plan=bytes.fromhex(plan.digest),
        )
        if not isinstance(state, State):
            raise SessionFailed("The guard does not let this plan begin.")
        self._executor = GuardedExecutor(self._local, state, unbroken=lambda: True)

    async def _answers(self, message: sessions_pb2.Batch) -> sessions_pb2.BatchAnswers:
        batch = wire.batch_from_wire(message.batch)
        self._batches += 1
        try:
            answers = await self._on_card(lambda: self._executor.execute(batch))
        except CardwrightError as error:
            return sessions_pb2.BatchAnswers(number=message.number, refused=wire.error_to_wire(error))
        return sessions_pb2.BatchAnswers(number=message.number, answers=wire.answers_to_wire(answers))

    async def _on_card(self, work: Any) -> Any:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            return await asyncio.to_thread(work) if self._waits else work()
        finally:
            self._card_seconds += loop.time() - began
