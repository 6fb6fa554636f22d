"""The executing end of a session: the server's batches, under the guard, on the card of the preview.

What has to be asked of the person is asked before a transaction opens and forgotten when the stage ends. A stage is one
transaction; it is kept while batches come, for a few seconds without one, and ends whatever happens to the line.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.guard import (
    Act,
    GuardedExecutor,
    GuardRefused,
    Identity,
    Permit,
    Rule,
    State,
    begin,
    present_identity,
)
from cardwright_cardops.guard import operations as o
from cardwright_cardops.guard.present import require_same
from cardwright_cardops.guard.preview import identity_of, permit_for
from cardwright_cardops.guard.verdict import Deny
from cardwright_cardops.iso7816.status import VerificationFailed
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.pins import KEEP_ONE, TriesGuard
from cardwright_cardops.piv.references import PinReference
from cardwright_cardops.plan.inventory import Inventory
from cardwright_cardops.plan.pin_rules import PinRules
from cardwright_cardops.plan.steps import Plan
from cardwright_cardops.program.items import (
    INS_SELECT,
    Answers,
    AnyBatch,
    Apdu,
    Batch,
    Group,
    VerifyPin,
)
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.connection import CardReset, Connection

from .asking import while_in
from .cards import Card
from .errors import StageEnded
from .link.ports import (
    EndStage,
    Execute,
    Finished,
    Message,
    Outcome,
    Preview,
    Progress,
    Purpose,
    ServerUnreachable,
    StepAnswers,
)
from .operations import Operation, Phase
from .prompts import Prompter, StagePins, ask_current, ask_new
from .worker import ReaderWorker

_log = logging.getLogger(__name__)

STAGE_SECONDS: Final = 3.0
"""A stage is kept so long without a batch; Windows resets the card after five seconds."""
SILENCE_SECONDS: Final = 300.0
"""For the server to say the next thing: it may wait for a certification authority, but not for ever."""
_PIN_STAGE: Final = "pin"

Answer = Callable[[int, Answers | StepAnswers | CardwrightError], Awaitable[None]]
Show = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Approved:
    """A plan that the person agreed to, for the card of ``inventory``, which this workstation read itself.

    ``contents``: SHA-256 of what is written to each object. ``purpose``: what was asked for, as nothing else erases or
    locks the card. ``confirmed``: acts that were confirmed by name. ``identity``: the card as it proved itself at the
    preview, where what the inventory says of its key in 9E is not enough.
    """

    plan: Plan
    contents: Mapping[int, bytes]
    inventory: Inventory
    purpose: Purpose
    confirmed: frozenset[Act] = frozenset()
    identity: Identity | None = None

    @property
    def permit(self) -> Permit:
        """What it permits. Raises PreviewUnfit."""
        return permit_for(
            self.plan.document(),
            self.inventory.document(),
            contents=self.contents,
            confirmed=self.confirmed,
            wipes=self.purpose is Purpose.RECYCLE,
            locks=self.purpose is Purpose.LOCK,
        )


def reading(inventory: Inventory) -> State:
    """The guard's state before anything was agreed to: reading only."""
    return _begun(begin(Permit(b""), identity_of(inventory.document())))


def permitted(approved: Approved) -> State:
    """The guard's state for an approved plan. Raises PreviewUnfit, GuardRefused."""
    plan = bytes.fromhex(approved.plan.digest)
    identity = approved.identity or identity_of(approved.inventory.document())
    return _begun(begin(approved.permit, identity, plan=plan))


def _begun(state: State | Deny) -> State:
    if isinstance(state, Deny):
        raise GuardRefused(state)
    return state


@dataclass(frozen=True, slots=True)
class Wants:
    """What the person will be asked for."""

    current: bool
    new: bool

    @classmethod
    def of(cls, permit: Permit) -> Wants:
        """By the operations of a permit: a new PIN that is set by the PUK is also the one that is verified later."""
        kinds = {type(entry.operation) for entry in permit.entries}
        new = bool(kinds & {o.UnblockPin, o.ChangePin})
        return cls(o.ChangePin in kinds or (o.EnterPin in kinds and not new), new)


@dataclass(eq=False)
class RelayedCard:
    """One card in one session, over one connection. For one event loop; card work happens on ``worker``.

    ``approve`` replaces the guard's state by that of an approved plan; before it, reading only is allowed.
    """

    card: Card
    connection: Connection
    operation: Operation
    prompter: Prompter
    act: str
    state: State
    rules: PinRules = field(default_factory=PinRules)
    stage_seconds: float = STAGE_SECONDS
    silence_seconds: float = SILENCE_SECONDS
    random: Callable[[int], bytes] = os.urandom

    def __post_init__(self) -> None:
        self._pins = StagePins()
        self._keys = KeyItems(self._pins, TriesGuard(KEEP_ONE))
        self._local = LocalExecutor(self.connection, self._keys)
        self._link = self.connection.link
        self._reset = False
        self._guarded = GuardedExecutor(self._local, self.state, unbroken=self._unbroken, random=self.random)
        self._wants = Wants(False, False)
        self._stage = ""
        self._ended = ""
        self.batches = 0
        """How many were executed."""

    @staticmethod
    def wants(permit: Permit) -> Wants:
        """What the person will be asked for."""
        return Wants.of(permit)

    @property
    def _worker(self) -> ReaderWorker:
        return self.card.worker

    def _unbroken(self) -> bool:
        """Whether nobody reset the card since the session began: a connection that is taken up again has a new link."""
        return not self._reset and self.connection.link is self._link

    @property
    def touched(self) -> frozenset[int]:
        """Slots whose key the session changed, or may have."""
        return self._guarded.state.touched

    async def approve(self, approved: Approved) -> None:
        """Allow ``approved``, and ask what it needs. Raises PreviewUnfit, NoPin, LastTry, GuardRefused, CardRemoved."""
        state = permitted(approved)
        self._guarded = GuardedExecutor(self._local, state, unbroken=self._unbroken, random=self.random)
        self._wants = Wants.of(state.permit)
        await self._ask()

    async def identified(self, shown: Preview) -> Identity | None:
        """The card with the key in 9E that it proves now, where the server says that it may be another one than that of
        its certificate. Raises CardRemoved and what else the card was lost by.
        """
        if not shown.card_keys and not shown.card_key_unknown:
            return None
        told, keys = self._guarded.state.identity, shown.card_keys
        return await self._worker.run(
            lambda: present_identity(self._local, told, keys, unknown=shown.card_key_unknown, random=self.random)
        )

    # ---------------------------------------------------------------------------------------------------- prompts

    async def _ask(self) -> None:
        """Ask for the PINs that the plan needs and that are not known; no transaction is open."""
        wants, pins = self._wants, self._pins
        if not ((wants.new and pins.new is None) or (wants.current and pins.current is None)):
            return
        with self.operation.prompting():
            if wants.current and pins.current is None:
                pins.current = await self._current()
            if wants.new and pins.new is None:
                asked = ask_new(self.prompter, PinReference.PIN, self.act, self.rules, pins.current)
                pins.new = await while_in(self.card, asked)

    async def _current(self) -> Secret:
        """The PIN, made sure of on the card itself, so that a slip costs a question and not the session."""
        error, tries = "", None
        while True:
            asked = ask_current(self.prompter, PinReference.PIN, self.act, tries, error=error)
            pin = await while_in(self.card, asked)
            try:
                await self._worker.run(lambda pin=pin: self._verify(pin))  # type: ignore[misc]
                return pin
            except VerificationFailed as wrong:
                pin.wipe()
                if wrong.tries_left is None or wrong.tries_left <= KEEP_ONE:
                    raise
                error, tries = "It was wrong.", wrong.tries_left
            except BaseException:
                pin.wipe()
                raise

    def _verify(self, pin: Secret) -> None:
        """VERIFY in a transaction of its own, after the card proved that it is the one of the preview."""
        state = self._guarded.state
        executor = LocalExecutor(self.connection, KeyItems(StagePins(pin), TriesGuard(KEEP_ONE)))
        try:
            executor.begin_stage(_PIN_STAGE)
            if state.card_key is None and not self._unbroken():
                raise GuardRefused(Deny(Rule.PLAN, "the card was reset and cannot prove that it is the same one"))
            require_same(executor, state, _PIN_STAGE, self.random)
            ((verified,),) = executor.execute(Batch((Group((VerifyPin(),), essential=True),), _PIN_STAGE))
            verified.require("verifying the PIN")
        finally:
            executor.end_stage()

    # ---------------------------------------------------------------------------------------------------- batches

    async def execute(self, batch: AnyBatch) -> Answers:
        """Execute one batch.

        Raises ItemRefused (the guard's GuardRefused too), StageEnded, NoPin, CardRemoved, and TransportError where
        the card could not be taken.
        """
        begins = bool(batch.stage) and batch.stage != self._stage
        if begins:
            if batch.stage == self._ended and not _selects(batch):
                raise StageEnded("The transaction of this stage is over.")
            await self._end()
            await self._ask()
            # Noted before it is open, so that whatever happens ends it.
            self._stage, self._ended = batch.stage, ""
        # Between the batches of a stage a key may be new and its certificate not yet written: no time to cancel.
        self.operation.show(phase=Phase.WORKING, cancellable=False)
        answers = await self._worker.run(lambda: self._execute(batch, begins))
        self.operation.show(cancellable=not self._stage)
        self.batches += 1
        if batch.stage and not _alive(answers):
            await self._end()
        return answers

    def _execute(self, batch: AnyBatch, begins: bool) -> Answers:
        if begins:
            # The transaction first: what the guard then finds out holds until it ends.
            self._local.begin_stage(batch.stage)
        answers = self._guarded.execute(batch)
        self._reset = self._reset or any(
            isinstance(answer.cause, CardReset) for group in answers for answer in group
        )
        return answers

    async def end_stage(self) -> None:
        """End the open stage, if any, and forget the PINs that were asked for. Never raises."""
        await asyncio.shield(self._end())
        self._ended = ""

    async def _end(self) -> None:
        stage, self._stage = self._stage, ""
        if stage:
            self._ended = stage
            await self._worker.run(self._guarded.end_stage)
            self._pins.wipe()
            if not self.operation.over:
                self.operation.show(cancellable=True)

    async def close(self) -> None:
        """End the stage, forget everything, let the card go. Never raises; not to be cancelled in the middle."""
        await asyncio.shield(self._close())

    async def _close(self) -> None:
        self._stage = ""
        try:
            await self._worker.run(self._let_go)
        finally:
            self._pins.wipe()

    def _let_go(self) -> None:
        try:
            self._guarded.end_stage()
        finally:
            self.connection.close()

    # ------------------------------------------------------------------------------------------------------- line

    async def follow(self, messages: AsyncIterator[Message], answer: Answer, show: Show) -> Preview | Outcome:
        """Do what the server says, until it shows a plan or ends. Raises what ``messages`` and ``answer`` raise.

        The open stage ends when no batch came for ``stage_seconds``, and in any case when this ends with an error.
        """
        coming = asyncio.ensure_future(anext(messages))
        try:
            while True:
                await self._wait(coming)
                message = coming.result()
                match message:
                    case Preview():
                        return message
                    case Finished(outcome=outcome):
                        await self._end()
                        return outcome
                    case EndStage():
                        await self.end_stage()
                    case Progress():
                        show(message)
                    case Execute(number=number, batch=batch):
                        await answer(number, await self._answered(batch))
                coming = asyncio.ensure_future(anext(messages))
        except StopAsyncIteration:
            raise StageEnded("The server ended the session without a word.") from None
        except BaseException:
            await self.end_stage()
            raise
        finally:
            if not coming.done():
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)

    async def _wait(self, coming: asyncio.Future[Message]) -> None:
        """Until the next message is there; a stage does not wait that long."""
        if self._stage:
            done, _ = await asyncio.wait({coming}, timeout=self.stage_seconds)
            if not done:
                _log.info("a stage ended: no batch came for %.0f s", self.stage_seconds)
                await self._end()
        if not coming.done():
            await asyncio.wait({coming}, timeout=self.silence_seconds)
        if not coming.done():
            raise ServerUnreachable(f"The server said nothing for {self.silence_seconds:.0f} s.")

    async def _answered(self, batch: AnyBatch) -> Answers | CardwrightError:
        try:
            return await self.execute(batch)
        except CardwrightError as error:
            _log.warning("a batch was not executed: %s", error.code)
            await self._end()
            return error


def _selects(batch: AnyBatch) -> bool:
    """Whether a batch begins with SELECT, as the first of a transaction does."""
    first = batch.groups[0].items[0] if isinstance(batch, Batch) and batch.groups and batch.groups[0].items else None
    return isinstance(first, Apdu) and first.command.ins == INS_SELECT


def _alive(answers: Answers) -> bool:
    """Whether the way to the card still stands after these answers: no item was lost on it."""
    return all(answer.sw is not None or answer.cause is None for group in answers for answer in group)

