"""What the server wants done on the cards that are in: asked for at insertion, when the server says so, on request.

Checks after an insertion are spread over a while, an answer "nothing until then" is kept, also for the next daemon, and
a server that does not answer costs nobody anything: it is asked again at the next occasion. A word of the server's that
was lost is made good for: what was kept is asked anew now and then, spread wide, so that nobody notices.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.plan.pin_rules import PinRules
from cardwright_cardops.rpc_status import RemoteError

from .answers import Answers
from .cards import Cards
from .config import Updates
from .link.ports import Due, LinkState, Push, ServerLink, ServerUnreachable
from .tokens import Device, TokenDevice, Tokens
from .waiting import sleep_until

_log = logging.getLogger(__name__)

OLDEST: Final = 8 * 3600.0
"""Seconds after which an answer that still holds is asked for anew while its card is in."""
WIDE: Final = 3600.0
"""Seconds over which such questions are spread, and that about an answer which an earlier daemon was given."""
WRITTEN_WITHIN: Final = 5.0
"""Seconds within which what was answered is in the file."""


class DueChecks:
    """Asks and remembers. For one event loop. ``tell`` gets each card with what is due for it.

    ``prove`` makes a card prove that it is here, b"" where it cannot: without it the server says less. ``until_free``
    waits while somebody else uses the card, before what nobody asked for.
    """

    def __init__(
        self,
        cards: Cards,
        tokens: Tokens,
        link: ServerLink,
        config: Updates,
        tell: Callable[[Device, Due], None],
        prove: Callable[[Device], Awaitable[bytes]],
        *,
        until_free: Callable[[Device], Awaitable[None]],
        answers: Answers | None = None,
        spread: Callable[[float], float] = lambda seconds: random.uniform(0.0, seconds),
    ) -> None:
        self._cards = cards
        self._tokens = tokens
        self._link = link
        self._config = config
        self._tell = tell
        self._prove = prove
        self._until_free = until_free
        self._spread = spread
        self._answers = answers or Answers()
        self._saving: asyncio.Task[None] | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        cards.inserted.append(self._inserted)
        cards.removed.append(self._gone)
        tokens.inserted.append(self._inserted)
        tokens.removed.append(self._gone)

    async def stop(self) -> None:
        """Check no more."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._saving is not None:
            self._saving.cancel()
            await asyncio.wait([self._saving])
        await asyncio.to_thread(self._answers.write, self._answers.take())

    async def due(self, card: Device, *, refresh: bool = False) -> Due:
        """What is due; the last answer while it holds. Raises why the card is not known, and as the link."""
        if card.problem is not None:
            raise card.problem
        guid = card.identity.guid
        kept = self._answers.get(guid) if guid is not None and not refresh else None
        if kept is not None:
            return kept.due
        due = await self._link.due(card.identity, await self._prove(card))
        if isinstance(card, TokenDevice) and not due and due.until is None:
            # A token shows its UUID from the beginning; before its issuance the server knows its number only.
            due = await self._link.due(replace(card.identity, guid=None)) or due
        if guid is not None:
            self._answers.put(guid, due)
            self._save_soon()
        if not card.gone.is_set():
            self._tell(card, due)
        return due

    async def asked(self, card: Device) -> Due:
        """What the server says now, within the time that a check may take. Raises as ``due``."""
        return await self._timely(card, refresh=True)

    def spread(self) -> float:
        """Seconds to wait with what many workstations do at the same moment."""
        return self._spread(self._config.spread)

    def rules(self, card: Device) -> PinRules:
        """For a new PIN: those of the policy as the server told them last, else those of FIPS 201-3."""
        guid = card.identity.guid
        told = self._answers.rules(guid) if guid is not None else None
        return told or PinRules()

    def ruled(self, card: Device, rules: PinRules) -> None:
        """The server told the policy's rules for a new PIN."""
        if card.identity.guid is not None:
            self._answers.put_rules(card.identity.guid, rules)
            self._save_soon()

    def postpone(self, card: Device, until: datetime) -> None:
        """Do not offer it before then; a mandatory one is offered from its date on."""
        if (name := _name_of(card)) is not None:
            self._answers.put_later(name, until)
            self._save_soon()

    def postponed_until(self, card: Device) -> datetime | None:
        """When it is offered again, None where nobody said later."""
        name = _name_of(card)
        return self._answers.later(name) if name is not None else None

    def pushed(self, push: Push) -> None:
        """The server says that something changed."""
        self._answers.drop(push.guid)
        self._save_soon()
        for card in self._present():
            if push.guid in (None, card.identity.guid):
                self._check(card, 0.0 if push.guid is not None else self.spread())

    def changed(self, card: Device) -> None:
        """A session changed the card: what was due need not be any more."""
        if card.identity.guid is not None:
            self._answers.drop(card.identity.guid)
        self._watch()
        self._check(card, 0.0)

    def _present(self) -> list[Device]:
        cards: list[Device] = [card for card in self._cards.all if not card.gone.is_set()]
        return cards + list(self._tokens.present)

    def _inserted(self, card: Device) -> None:
        self._watch()
        if self._config.at_insertion:
            kept = self._wait_for(card)
            self._check(card, self.spread() if kept is None else kept, refresh=kept is not None)

    def _gone(self, card: Device) -> None:
        self._removed(card)
        self._watch()

    def _watch(self) -> None:
        self._link.watch([card.identity for card in self._present()])

    def _removed(self, card: Device) -> None:
        task = self._tasks.pop(card.id, None)
        if task is not None:
            task.cancel()

    def _check(self, card: Device, seconds: float, *, refresh: bool = False) -> None:
        if self._link.state is LinkState.NOT_CONFIGURED or card.gone.is_set():
            return
        self._removed(card)
        task = asyncio.create_task(self._later(card, seconds, refresh), name=f"due:{card.reader}")
        self._tasks[card.id] = task
        task.add_done_callback(lambda done: self._tasks.pop(card.id) if self._tasks.get(card.id) is done else None)

    async def _later(self, card: Device, seconds: float, refresh: bool) -> None:
        """Ask after so many seconds, and from then on as long as the card is in."""
        while True:
            await sleep_until(datetime.now(UTC) + timedelta(seconds=seconds))
            busy: float | None = None
            await self._until_free(card)
            try:
                await self._timely(card, refresh=refresh)
            except CardwrightError as error:
                _log.info("a check with the server failed: %s", error.code)
                busy = error.retry_after if isinstance(error, RemoteError) else None
            if busy is not None:
                # Many others were told the same; they are not to come back in the same moment.
                seconds = busy + self._spread(max(busy, self._config.spread))
                continue
            found = self._wait_for(card)
            seconds, refresh = (OLDEST + self._spread(WIDE) if found is None else found), True

    def _wait_for(self, card: Device) -> float | None:
        """Seconds until the answer for ``card`` is asked for anew; None where there is none that holds."""
        guid = card.identity.guid
        kept = self._answers.get(guid) if guid is not None else None
        if kept is None or kept.due.until is None:
            return None
        now, wide = datetime.now(UTC), self._spread(WIDE)
        if kept.at is None:
            return wide
        moment = min(kept.due.until, kept.at + timedelta(seconds=OLDEST))
        return max(0.0, (moment - now).total_seconds()) + wide

    def _save_soon(self) -> None:
        if self._answers.dirty and (self._saving is None or self._saving.done()):
            self._saving = asyncio.create_task(self._save(), name="due:save")

    async def _save(self) -> None:
        while self._answers.dirty:
            await asyncio.sleep(WRITTEN_WITHIN)
            await asyncio.shield(asyncio.to_thread(self._answers.write, self._answers.take()))

    async def _timely(self, card: Device, *, refresh: bool = False) -> Due:
        try:
            async with asyncio.timeout(self._config.check_seconds):
                return await self.due(card, refresh=refresh)
        except TimeoutError:
            raise ServerUnreachable("The server did not answer a check in time.") from None


def _name_of(card: Device) -> UUID | str | None:
    """What a card is known by when it comes back: its card UUID, before its issuance its serial number."""
    return card.identity.guid or card.identity.serial or None
