"""Sessions with the server: preview, consent, execution, and going on after a session that broke off."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import UUID

from cardwright_cardops.away import AWAY
from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.plan.inventory import Inventory
from cardwright_cardops.plan.observe import EVERYTHING, Look
from cardwright_cardops.plan.pin_rules import PinRules
from cardwright_cardops.plan.steps import STEP_KINDS, ImportKey, Plan
from cardwright_cardops.wire_reading import MAX_MESSAGE

from .cards import WHOLE, Card, Cards
from .errors import CardInOperation, ConfirmationMissing, KeyNotReleased, StageEnded, WrongPhase
from .link.ports import (
    CardSession,
    Message,
    Opening,
    Outcome,
    Preview,
    Progress,
    Proof,
    Purpose,
    ServerLink,
    ServerUnreachable,
)
from .operations import Operation, Operations
from .prompts import Prompter, act_of
from .proving import KIND_OF, Proofs
from .tokens import Device, TokenDevice, Tokens

if TYPE_CHECKING:  # the guard takes long to load: the daemon answers first (start.load_the_rest)
    from cardwright_cardops.guard import Act, Permit

    from .relay import Approved, RelayedCard
    from .token_relay import RelayedToken

_log = logging.getLogger(__name__)

SHOWN_AGAIN: Final = "shown-again"
"""Outcome of going on where more has to be done than was agreed to: nothing was done, and a new preview waits."""
CONSENT: Final = timedelta(minutes=10)
"""How long a preview waits, and how long consent covers what a broken session left."""
ITEMS: Final = ("apdu", "verify_pin", "set_pin", "unblock", "set_puk", "block", "prove", "sign_request")
_LOOK: Final = Look(objects=EVERYTHING.objects, counted=True, stage="look")
"""All that a server needs for its plan; else it looks for itself first, which takes one more round trip."""
AGAIN: Final[tuple[float, ...]] = (2.0, 5.0, 10.0, 20.0, 30.0)
"""Seconds after which what is left is tried again while the card stays in; the last ones repeat. Each is spread by half
of itself: workstations that lost one server do not come back all at once."""
_LATER: Final = frozenset({"CARD_IN_SESSION", "SERVER_STOPPING", "SERVER_BUSY", "LIMIT_EXCEEDED", "SESSION_LOST"})
"""What a server says that may be otherwise in a moment: it stops, or has not yet noticed that a line was lost."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A preview, for whoever shows it. ``plan`` is None where nothing is due."""

    plan: Plan | None
    until: datetime
    acts: frozenset[Act] = frozenset()
    asks_pin: bool = False
    asks_new_pin: bool = False


@dataclass(frozen=True, slots=True)
class Consent:
    """What was agreed to, for the rest of a session that broke off. Serial number or card UUID say for which card."""

    permit: Permit
    touched: frozenset[int]
    serial: str
    guid: UUID | None
    purpose: Purpose
    request: UUID | None
    keys: tuple[str, ...]
    prompter: Prompter = field(repr=False)
    until: datetime
    proof: Proof | None = field(default=None, repr=False)
    unasked: bool = False
    """Nobody was asked; it is mandatory."""

    def is_for(self, card: Device) -> bool:
        """Whether ``card`` says that it is the one."""
        identity = card.identity
        if self.serial or identity.serial:
            return self.serial == identity.serial
        return self.guid is not None and self.guid == identity.guid


@dataclass(eq=False)
class _Waiting:
    """A session at its preview."""

    session: CardSession
    messages: AsyncIterator[Message]
    relayed: RelayedCard | RelayedToken
    opening: Opening
    approved: Approved
    until: datetime
    timer: asyncio.TimerHandle | None = None
    rules: PinRules | None = None


class Sessions:
    """All sessions of the daemon. For one event loop.

    ``software`` gives the name and version of the program. ``changed`` listeners hear of cards that a session changed,
    or for which more is due than was agreed to; ``ruled`` listeners of the policy's rules for the PIN of a card.
    """

    def __init__(
        self,
        cards: Cards,
        tokens: Tokens,
        operations: Operations,
        link: ServerLink,
        proofs: Proofs,
        *,
        software: Callable[[], str],
    ) -> None:
        self._cards = cards
        self._operations = operations
        self._link = link
        self._proofs = proofs
        self._software = software
        self._waiting: dict[str, _Waiting] = {}
        self._consents: list[Consent] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False
        self.rules = PinRules()
        self.changed: list[Callable[[Device], None]] = []
        self.ruled: list[Callable[[Device, PinRules], None]] = []
        cards.inserted.append(self._inserted)
        cards.removed.append(self._removed)
        tokens.removed.append(self._removed)
        tokens.removed.append(proofs.forget)

    def leave(self) -> None:
        """The daemon is about to stop: what is under way is left to the next one, and not ended."""
        self._stopped = True

    async def stop(self) -> None:
        """Give every preview up."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        for waiting in tuple(self._waiting.values()):
            await self._give_up(waiting)
        if self._tasks:
            await asyncio.wait(self._tasks)

    def consent_for(self, card: Device) -> Consent | None:
        """The consent that covers what is left on ``card``."""
        now = datetime.now(UTC)
        self._consents = [one for one in self._consents if one.until > now]
        return next((one for one in self._consents if one.is_for(card)), None)

    def is_wanted(self, card: Device) -> bool:
        """Whether a person has ``card`` in hand: a preview waits for them, or they agreed to what is left."""
        return card.id in self._waiting or self.consent_for(card) is not None

    # ---------------------------------------------------------------------------------------------------- preview

    async def preview(
        self,
        card: Device,
        purpose: Purpose,
        prompter: Prompter,
        *,
        request: UUID | None = None,
        keys: tuple[str, ...] = (),
    ) -> Shown:
        """Begin a session and wait at its preview. Another preview of the card is given up.

        Raises CardInOperation, ServerNotConfigured, ServerUnreachable, what the server says, TransportError,
        PreviewUnfit.
        """
        kind = KIND_OF[purpose]
        await self.dismiss(card)

        async def work(operation: Operation) -> _Waiting | Outcome:
            return await self._open(card, purpose, request, keys, prompter, operation)

        waiting = await self._operations.run(kind, card, work)
        if isinstance(waiting, Outcome):
            return Shown(None, datetime.now(UTC))
        return self._wait(card, waiting)

    def _wait(self, card: Device, waiting: _Waiting) -> Shown:
        """Keep the preview for its time."""
        self._waiting[card.id] = waiting
        if card.gone.is_set():
            self._removed(card)
        seconds = (waiting.until - datetime.now(UTC)).total_seconds()
        waiting.timer = asyncio.get_running_loop().call_later(seconds, self._removed, card)
        permit = waiting.approved.permit
        wants = waiting.relayed.wants(permit)
        return Shown(waiting.approved.plan, waiting.until, permit.acts, wants.current, wants.new)

    async def _open(
        self,
        card: Device,
        purpose: Purpose,
        request: UUID | None,
        keys: tuple[str, ...],
        prompter: Prompter,
        operation: Operation,
        proof: Proof | None = None,
    ) -> _Waiting | Outcome:
        act = act_of(KIND_OF[purpose], card.name)
        relayed, opening = await self._reached(card, act, operation, prompter)
        opening = replace(
            opening, purpose=purpose, request=request, proof=proof or self._proofs.of(card, purpose), keys=keys
        )
        session: CardSession | None = None
        try:
            session = await self._link.open(opening)
            messages = session.messages()
            found = await relayed.follow(messages, session.answer, _teller(operation))
            await self._require_given(card, keys, found)
            if isinstance(found, Outcome):
                operation.show(outcome=found.value)
                await relayed.close()
                await session.close()
                return found
            if found.pin_rules is not None:
                relayed.rules = found.pin_rules
                self._rule(card, found.pin_rules)
            from .relay import Approved
            from .token_relay import RelayedToken

            identity = None if isinstance(relayed, RelayedToken) else await relayed.identified(found)
            approved = Approved(found.plan, found.contents, opening.card, purpose, identity=identity)
            assert approved.permit  # what cannot be permitted is not shown: raises PreviewUnfit
            until = datetime.now(UTC) + CONSENT
            return _Waiting(session, messages, relayed, opening, approved, until, rules=found.pin_rules)
        except BaseException as error:
            await relayed.close()
            if session is not None:
                await asyncio.shield(session.close())
            if isinstance(error, CardwrightError):
                self._proofs.wanted(card, purpose, error)
            raise

    async def _require_given(self, card: Device, keys: tuple[str, ...], found: Preview | Outcome) -> None:
        """Raise KeyNotReleased where a key that the person named neither comes with the plan nor is on the card."""
        steps = found.plan.steps if isinstance(found, Preview) else ()
        missing = set(keys) - {step.key for step in steps if isinstance(step, ImportKey)}
        if missing:
            missing -= {key.fingerprint for key in (await self._contents(card)).keys}
        if missing:
            names = ", ".join(sorted(key[:16] for key in missing))
            raise KeyNotReleased(f"The server does not give this card the keys {names}.")

    async def _contents(self, card: Device) -> Inventory:
        from .token_relay import look_at

        if isinstance(card, TokenDevice):
            return (await look_at(card))[1]
        return await card.worker.run(partial(self._cards.look, card, WHOLE))

    async def _reached(
        self, card: Device, act: str, operation: Operation, prompter: Prompter
    ) -> tuple[RelayedCard | RelayedToken, Opening]:
        """``card`` as it is now, in hands that only read, and what a session with it begins with."""
        from .relay import RelayedCard, reading
        from .token_relay import ITEMS as TOKEN_ITEMS
        from .token_relay import RelayedToken, look_at

        software, steps = self._software(), tuple(STEP_KINDS)
        if isinstance(card, TokenDevice):
            features, inventory = await look_at(card)
            opening = Opening(
                Purpose.UPDATE, inventory, card.reader, software, steps, TOKEN_ITEMS, MAX_MESSAGE, token=features
            )
            relayed_token = RelayedToken(card, operation, prompter, act, self.rules)
            await relayed_token.meet(inventory)
            return relayed_token, opening
        connection = await card.worker.run(lambda: self._cards.connect(card))
        try:
            inventory = await card.worker.run(lambda: self._cards.look(card, _LOOK, connection))
            relayed = RelayedCard(card, connection, operation, prompter, act, reading(inventory), self.rules)
        except BaseException:
            await asyncio.shield(card.worker.run(connection.close))
            raise
        return relayed, Opening(Purpose.UPDATE, inventory, card.reader, software, steps, ITEMS, MAX_MESSAGE)

    async def dismiss(self, card: Device) -> None:
        """Give the preview of ``card`` up, if there is one. Never raises."""
        waiting = self._waiting.pop(card.id, None)
        if waiting is not None:
            await self._give_up(waiting)

    async def _give_up(self, waiting: _Waiting) -> None:
        if waiting.timer is not None:
            waiting.timer.cancel()
        try:
            await waiting.session.refuse()
        except CardwrightError as error:
            _log.info("a session could not be refused: %s", error.code)
        await waiting.session.close()
        await waiting.relayed.close()

    # ------------------------------------------------------------------------------------------------------ start

    def start(self, card: Device, digest: bytes, confirmed: frozenset[Act], prompter: Prompter) -> Operation:
        """Do what was previewed. Raises WrongPhase, ConfirmationMissing, CardInOperation."""
        waiting = self._waiting.get(card.id)
        if waiting is None or bytes.fromhex(waiting.approved.plan.digest) != digest:
            raise WrongPhase("No such plan waits for this card.")
        missing = waiting.approved.permit.acts - confirmed
        if missing:
            names = ", ".join(sorted(act.value for act in missing))
            raise ConfirmationMissing(f"These acts were not confirmed: {names}.")
        waiting.approved = replace(waiting.approved, confirmed=confirmed)
        waiting.relayed.prompter = prompter
        return self._begin(card, waiting)

    def _begin(self, card: Device, waiting: _Waiting) -> Operation:
        kind = KIND_OF[waiting.opening.purpose]
        operation = self._operations.start(kind, card, lambda operation: self._carry_out(card, waiting, operation))
        self._waiting.pop(card.id, None)
        if waiting.timer is not None:
            waiting.timer.cancel()
        return operation

    async def through(
        self,
        card: Device,
        purpose: Purpose,
        prompter: Prompter,
        *,
        request: UUID | None = None,
        keys: tuple[str, ...] = (),
        confirmed: frozenset[Act] = frozenset(),
        unasked: bool = False,
    ) -> Operation:
        """Preview and start in one, for acts that the caller named in full: unlocking, a forgotten PIN, recovery; and
        ``unasked`` for what is mandatory. ``confirmed`` are the acts that were confirmed by name for it.

        Raises CardInOperation at once; everything else is in the operation.
        """
        await self.dismiss(card)

        async def work(operation: Operation) -> None:
            found = await self._open(card, purpose, request, keys, prompter, operation)
            if isinstance(found, _Waiting):
                if found.approved.permit.acts - confirmed:
                    await self._give_up(found)
                    raise ConfirmationMissing("The server's plan holds acts that have to be confirmed by name.")
                found.approved = replace(found.approved, confirmed=confirmed)
                await self._carry_out(card, found, operation)

        return self._operations.start(KIND_OF[purpose], card, work, unasked=unasked)

    async def _carry_out(self, card: Device, waiting: _Waiting, operation: Operation) -> None:
        relayed, session, approved = waiting.relayed, waiting.session, waiting.approved
        relayed.operation = operation
        agreed = left = False
        try:
            await relayed.approve(approved)
            agreed = True
            await session.consent(bytes.fromhex(approved.plan.digest), unasked=operation.unasked)
            outcome = await relayed.follow(waiting.messages, session.answer, _teller(operation))
            if isinstance(outcome, Preview):
                raise StageEnded("The server showed another plan after consent.")
            operation.show(outcome=outcome.value)
            self._consents = [one for one in self._consents if not one.is_for(card)]
        except BaseException as error:
            if not agreed:
                await asyncio.shield(_refuse(session))
            if _broke_off(error):
                # The person has pressed Start, whether the server heard of it or not.
                self._remember(card, waiting, unasked=operation.unasked)
                operation.continues = True
            left = agreed and (self._stopped or _broke_off(error))
            raise
        finally:
            await relayed.close()
            await asyncio.shield(session.close(silently=left))
            if isinstance(card, Card):
                self._cards.forget(card)
            if relayed.batches and not card.gone.is_set():
                await self._meet_again(card)
            if waiting.rules is not None:
                self._rule(card, waiting.rules)

    def _rule(self, card: Device, rules: PinRules) -> None:
        """The server told the policy's rules for the PIN of ``card``; a fresh one has a card UUID only afterwards."""
        for listener in self.ruled:
            listener(card, rules)

    async def _meet_again(self, card: Device) -> None:
        """The card may have a card UUID now that it had not, also after a session that broke off: know it again."""
        try:
            if isinstance(card, Card):
                await self._cards.renew(card)
        except CardwrightError as error:
            _log.info("a card could not be read after its session: %s", error.code)
        for listener in self.changed:
            listener(card)

    # --------------------------------------------------------------------------------------------------- going on

    def _remember(self, card: Device, waiting: _Waiting, *, unasked: bool) -> None:
        identity, opening = waiting.opening.card.identity, waiting.opening
        until = waiting.until
        consent = Consent(
            waiting.approved.permit, waiting.relayed.touched, identity.serial, identity.guid,
            opening.purpose, opening.request, opening.keys, waiting.relayed.prompter, until, opening.proof, unasked,
        )  # fmt: skip
        self._consents = [*(one for one in self._consents if not one.is_for(card)), consent]
        self._go_on_later(card, consent, AGAIN)

    def _inserted(self, card: Device) -> None:
        consent = self.consent_for(card)
        if consent is not None:
            self._go_on_later(card, consent, (0.0, *AGAIN))

    def _go_on_later(self, card: Device, consent: Consent, pauses: tuple[float, ...]) -> None:
        if not self._stopped:
            task = asyncio.create_task(self._go_on(card, consent, pauses), name=f"go-on:{card.reader}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _go_on(self, card: Device, consent: Consent, pauses: tuple[float, ...]) -> None:
        """Do the rest as soon as that can be, while the card is in and nobody agreed to something else."""
        for seconds in itertools.chain(pauses, itertools.repeat(pauses[-1])):
            if await _left_within(card, seconds * random.uniform(0.5, 1.0)):
                return
            if self.consent_for(card) is not consent:
                return
            if card.id in self._waiting:
                self._over(card, consent)
                return
            try:
                work = partial(self._rest, card, consent)
                await self._operations.run(KIND_OF[consent.purpose], card, work, unasked=consent.unasked)
                return
            except CardwrightError as error:
                _log.info("what was left could not be done now: %s", error.code)
                if not (_may_pass(error) or isinstance(error, CardInOperation)):
                    # It does not go on by itself any more, and says so: somebody has to begin it anew.
                    self._over(card, consent)
                    return

    async def _rest(self, card: Device, consent: Consent, operation: Operation) -> None:
        """A session for the rest; what the consent does not cover waits as a preview for another one, and is told."""
        try:
            await self._ended_or_shown(card, consent, operation)
        except CardwrightError as error:
            operation.continues |= _may_pass(error)
            raise

    async def _ended_or_shown(self, card: Device, consent: Consent, operation: Operation) -> None:
        found = await self._open(
            card, consent.purpose, consent.request, consent.keys, consent.prompter, operation, consent.proof
        )
        if isinstance(found, Outcome):
            self._consents = [one for one in self._consents if one is not consent]
            return
        found.approved = replace(found.approved, confirmed=consent.permit.confirmed)
        found.until = consent.until
        from cardwright_cardops.guard import covers

        if covers(consent.permit, found.approved.permit, consent.touched):
            await self._carry_out(card, found, operation)
            return
        self._wait(card, found)
        operation.show(outcome=SHOWN_AGAIN)
        self._over(card, consent)

    def _over(self, card: Device, consent: Consent) -> None:
        """What was agreed to covers nothing more."""
        self._consents = [one for one in self._consents if one is not consent]
        for listener in self.changed:
            listener(card)

    def _removed(self, card: Device) -> None:
        """The card is out, or its preview has lapsed."""
        if card.id in self._waiting:
            task = asyncio.create_task(self.dismiss(card))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if card.gone.is_set():
            self._proofs.forget(card)


def _teller(operation: Operation) -> Callable[[Progress], None]:
    def show(progress: Progress) -> None:
        step = progress.step if progress.step in STEP_KINDS else ""
        operation.show(step=step, percentage=min(100, max(0, progress.percentage)))

    return show


def _broke_off(error: BaseException) -> bool:
    """Whether a session ended because card, line or server were away, and not because something was refused."""
    return isinstance(error, ServerUnreachable) or (isinstance(error, CardwrightError) and error.code in AWAY)


def _may_pass(error: CardwrightError) -> bool:
    """Whether going on is tried again after ``error``."""
    return _broke_off(error) or error.code in _LATER


async def _left_within(card: Device, seconds: float) -> bool:
    """Whether the card leaves within that time; waits for it."""
    try:
        async with asyncio.timeout(seconds):
            await card.gone.wait()
    except TimeoutError:
        return False
    return True


async def _refuse(session: CardSession) -> None:
    try:
        await session.refuse()
    except CardwrightError as error:
        _log.info("a session could not be refused: %s", error.code)
