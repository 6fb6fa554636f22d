"""What the agent does: hears what is due, offers it, starts it or puts it off, and tells how it goes.

It never decides: it shows the daemon's preview and starts the plan that was shown, and what is begun because it is
mandatory the daemon begins. No session with the server is held
while the person thinks; the plan is asked for again on *Start*, and only started if it is the same.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from cardwright_cardops.errors import CardwrightError

from ..sdk.daemon import DaemonClient
from ..sdk.errors import DaemonNotRunning
from ..sdk.values import (
    PROVED_BY_CARD,
    Asking,
    Card,
    CardChanged,
    CardState,
    Due,
    DueChanged,
    Event,
    Method,
    MethodKind,
    Missed,
    Operation,
    OperationChanged,
    OperationKind,
    Outcome,
    Synced,
    UpdatePreview,
)
from . import words
from .notices import Notice, Notices

_log = logging.getLogger(__name__)

_PAUSE: Final = 2.0
"""Seconds between looks for a daemon that does not run."""
_SHOWN: Final = frozenset(
    {
        OperationKind.ISSUE,
        OperationKind.UPDATE,
        OperationKind.UNLOCK,
        OperationKind.FORGOTTEN_PIN,
        OperationKind.RECOVER,
        OperationKind.LOCK,
    }
)
_NEVER: Final = datetime.min.replace(tzinfo=UTC)
_PROOF: Final = frozenset({"PROOF_REQUIRED", "PROOF_EXPIRED"})


@dataclass(frozen=True, slots=True)
class Manner:
    """``account``: the person's account name, for servers that ask. ``later``: how long *Later* puts off. ``spread``:
    seconds over which questions what is due are spread when the agent or the daemon starts. ``pause``: see _PAUSE."""

    account: str = ""
    later: timedelta = timedelta(hours=1)
    spread: float = 60.0
    pause: float = _PAUSE


@dataclass(frozen=True, slots=True)
class Offer:
    """What was shown of a card; ``preview`` is None where a proof is needed first."""

    due: Due
    preview: UpdatePreview | None


class Agent:
    """The agent of one user's desktop."""

    def __init__(
        self,
        notices: Notices,
        manner: Manner = Manner(),
        *,
        folder: Path | None = None,
        spread: Callable[[float], float] = lambda seconds: random.uniform(0.0, seconds),
    ) -> None:
        self._notices = notices
        self._manner = manner
        self._folder = folder
        self._spread = spread
        self._cards: dict[str, Card] = {}
        self._offers: dict[str, Offer] = {}
        self._put_off: dict[str, datetime] = {}
        self._mine: set[str] = set()
        self._steps: dict[str, str] = {}
        self._marks: dict[str, tuple[tuple[str, ...], bool]] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until cancelled. Waits for a daemon where none runs. Raises FolderUnsafe."""
        try:
            while True:
                try:
                    async with DaemonClient(self._folder) as daemon, aclosing(daemon.events()) as events:
                        self._daemon = daemon
                        async for event in events:
                            await self._heard(daemon, event)
                except DaemonNotRunning:
                    await asyncio.sleep(self._manner.pause)
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # ------------------------------------------------------------------------------------------------------ events

    async def _heard(self, daemon: DaemonClient, event: Event) -> None:
        match event:
            case Synced() | Missed(int()):
                await self._look_around(daemon)
            case CardChanged(card, present):
                if present:
                    self._cards[card.id] = card
                else:
                    await self._gone(card.id)
            case DueChanged(card_id, due):
                self._is_due(daemon, card_id, due)
            case OperationChanged(operation):
                await self._operated(operation)

    async def _look_around(self, daemon: DaemonClient) -> None:
        """All cards anew, as the daemon may have been restarted; what is due is asked for over a while."""
        cards = {card.id: card for card in await daemon.cards(tokens=True)}
        for gone in set(self._cards) - set(cards):
            await self._gone(gone)
        self._cards = cards
        for card in cards.values():
            if card.state is CardState.READY and card.id not in self._offers:
                self._begin("ask", card.id, partial(self._ask, daemon, card.id, self._spread(self._manner.spread)))

    async def _gone(self, card: str) -> None:
        self._cards.pop(card, None)
        self._offers.pop(card, None)
        self._put_off.pop(card, None)
        self._marks.pop(card, None)
        for key in [key for key in self._tasks if key[1] == card]:
            self._tasks.pop(key).cancel()
        await self._notices.clear(f"offer:{card}")

    async def _operated(self, operation: Operation) -> None:
        """Progress and result of what was started here or by itself; previews have no steps and are not told."""
        if operation.kind not in _SHOWN:
            return
        card = self._cards.get(operation.card)
        name = card.name if card is not None else f"the card in {operation.reader}"
        subject = f"operation:{operation.id}"
        if operation.over:
            told = self._steps.pop(operation.id, None) is not None or operation.outcome is Outcome.SHOWN_AGAIN
            if told or operation.unasked or operation.id in self._mine:
                self._mine.discard(operation.id)
                if operation.error is None:
                    self._offers.pop(operation.card, None)
                notice = words.result(name, operation)
                await self._notices.clear(subject)
                if operation.unasked:
                    await self._notices.clear(f"offer:{operation.card}")
                await self._notices.show(
                    f"result:{operation.card}", notice, None if card is None else self._again(operation.card)
                )
        elif operation.unasked and operation.id not in self._mine:
            self._mine.add(operation.id)
            self._offers.pop(operation.card, None)
            await self._notices.show(f"offer:{operation.card}", words.begun(name, operation.kind))
        elif operation.words and self._steps.get(operation.id) != operation.words:
            self._steps[operation.id] = operation.words
            await self._notices.clear(f"offer:{operation.card}")
            await self._notices.show(subject, words.progress(name, operation))

    # ------------------------------------------------------------------------------------------------------- offers

    async def _ask(self, daemon: DaemonClient, card: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        # The daemon tells what the server said as an event; what it knew already comes only as the answer.
        self._is_due(daemon, card, await daemon.due(card))

    def _is_due(self, daemon: DaemonClient, card: str, due: Due) -> None:
        """Offer it, once for the same."""
        mark = (tuple(one.what for one in due.items), due.is_mandatory())
        busy = card in self._offers or ("due", card) in self._tasks
        if card in self._cards and not (busy and self._marks.get(card) == mark):
            self._marks[card] = mark
            self._begin("due", card, partial(self._offer, daemon, card, due))

    async def _offer(self, daemon: DaemonClient, card_id: str, due: Due) -> None:
        """Show what would be done. What is mandatory has no *Later*, or is left to the daemon if that begins it."""
        if not due or due.continues or (due.is_mandatory() and due.begins_at is not None):
            self._offers.pop(card_id, None)
            await self._notices.clear(f"offer:{card_id}")
            return
        until = max(self._put_off.get(card_id, _NEVER), due.postponed_until or _NEVER)
        if until > datetime.now(UTC) and not due.is_mandatory():
            wait = (until - datetime.now(UTC)).total_seconds()
            self._begin("again", card_id, partial(self._ask, daemon, card_id, wait))
            return
        card = self._cards[card_id]
        if due.is_over:
            await self._notices.show(f"offer:{card_id}", words.revoked(card, due))
            return
        try:
            preview: UpdatePreview | None = await daemon.preview_when_free(card_id, due.purpose, request=due.request)
        except CardwrightError as error:
            if error.code not in _PROOF:
                raise
            preview = None
        if preview is not None and preview.nothing_due:
            return
        self._offers[card_id] = Offer(due, preview)
        if preview is not None:
            await daemon.dismiss(card_id)
        await self._show_offer(card_id, words.alert(card, due, preview))

    async def _show_offer(self, card: str, notice: Notice) -> None:
        await self._notices.show(f"offer:{card}", notice, self._again(card))

    def _again(self, card: str) -> Callable[[str], None]:
        """What the buttons of a notice do."""

        def pressed(word: str) -> None:
            if card not in self._cards:
                return
            if word == words.MORE:
                self._begin("act", card, partial(self._details, card))
                return
            self._begin("act", card, partial(self._start if word == words.START else self._later, card))

        return pressed

    async def _details(self, card: str) -> None:
        """Every step of what is offered."""
        offer = self._offers.get(card)
        if offer is not None and offer.preview is not None:
            await self._show_offer(card, words.details(self._cards[card], offer.due, offer.preview))

    async def _later(self, card: str) -> None:
        until = datetime.now(UTC) + self._manner.later
        self._offers.pop(card, None)
        self._put_off[card] = until
        due = await self._daemon.postpone(card, until)
        until = due.postponed_until or until
        self._put_off[card] = until
        wait = (until - datetime.now(UTC)).total_seconds()
        self._begin("again", card, partial(self._ask, self._daemon, card, max(0.0, wait)))

    async def _start(self, card_id: str) -> None:
        """Do what was offered, if it is still that."""
        daemon, card = self._daemon, self._cards[card_id]
        offer = self._offers.get(card_id)
        if offer is None:
            offer = Offer(await daemon.due(card_id), None)
        due = offer.due
        if offer.preview is None:
            now = await self._preview(daemon, card, due)
            if not now.nothing_due:
                self._offers[card_id] = Offer(due, now)
                await daemon.dismiss(card_id)
                await self._show_offer(card_id, words.alert(card, due, now))
            elif due.activates:
                await self._notices.show(f"offer:{card_id}", words.activated(card))
            return
        begun = await daemon.start_shown(
            card_id, offer.preview, due.purpose, request=due.request, asking=Asking.here()
        )
        if isinstance(begun, Operation):
            self._mine.add(begun.id)
            await self._notices.clear(f"offer:{card_id}")
        elif not begun.nothing_due:
            self._offers[card_id] = Offer(due, begun)
            await daemon.dismiss(card_id)
            await self._show_offer(card_id, words.changed(card, due, begun))

    async def _preview(self, daemon: DaemonClient, card: Card, due: Due) -> UpdatePreview:
        """A preview; the person is asked who they are where the server wants to know."""
        try:
            return await daemon.preview_when_free(card.id, due.purpose, request=due.request)
        except CardwrightError as error:
            if error.code not in _PROOF:
                raise
            method = await self._method(daemon, card, due)
            if method is None:
                raise
        await daemon.prove(card.id, due.purpose, method, self._manner.account, asking=Asking.here())
        await self._notices.clear(f"offer:{card.id}")
        return await daemon.preview_when_free(card.id, due.purpose, request=due.request)

    async def _method(self, daemon: DaemonClient, card: Card, due: Due) -> MethodKind | None:
        """The way that the person chooses; its questions are shown beside the prompts. None where there is none."""
        if due.purpose in PROVED_BY_CARD:
            return MethodKind.CARD
        offered: dict[MethodKind, Method] = {
            one.kind: one
            for one in await daemon.methods(card.id, due.purpose, self._manner.account)
            if one.kind is not MethodKind.CARD
        }
        if not offered:
            return None
        kind: MethodKind = next(iter(offered))
        if len(offered) > 1:
            chosen: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            buttons = tuple(word for word, one in words.BY_METHOD.items() if one in offered)
            notice = Notice(words.who(card), "Choose how you prove it.", buttons)
            await self._notices.show(
                f"offer:{card.id}", notice, lambda word: None if chosen.done() else chosen.set_result(word)
            )
            kind = words.BY_METHOD[await chosen]
        if offered[kind].questions:
            asked = " ".join(f"{number}. {text}" for number, text in enumerate(offered[kind].questions, 1))
            await self._notices.show(f"offer:{card.id}", Notice(words.who(card), asked))
        return kind

    # -------------------------------------------------------------------------------------------------------- tasks

    def _begin(self, what: str, card: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something about a card beside the events, in the place of the same that is not done yet."""
        before = self._tasks.pop((what, card), None)
        if before is not None and before is not asyncio.current_task():
            before.cancel()
        task = asyncio.create_task(self._guarded(what, card, work), name=f"{what}:{card}")
        self._tasks[what, card] = task
        task.add_done_callback(partial(self._ended, (what, card)))

    def _ended(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]

    async def _guarded(self, what: str, card: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Errors of what the person asked for are shown; of what the agent did by itself they are only noted."""
        try:
            await work()
        except CardwrightError as error:
            _log.info("%s: %s", what, error.code)
            known = self._cards.get(card)
            if what == "act" and known is not None:
                notice = words.failure(known.name, "", error.message, error.advice)
                await self._notices.show(f"offer:{card}", notice, self._again(card))
