"""The journal of a session: kept in memory until the next batch, committed before it is sent.

Everything that a batch makes true is so in one transaction before it, with the lease renewed and the rights of the
caller asked again. What a card confirmed goes with the next one; lost confirmations are found out by the card.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Set
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.inventory import Identity
from cardwright_cardops.plan.records import Entry, Kind, require_same_card

from ..audit.model import AuditEntry
from ..machine import Actor
from ..store.lease import Lease, acquire, release
from ..store.unit import Database, Unit
from . import store
from .errors import SessionLost
from .journal import key_event, record_event
from .model import LIVE, CardSession, SessionEvent, SessionState
from .ports import Write

LEASE = timedelta(seconds=30)
"""How long a session that is cut off keeps others from its card."""

Ended = Callable[[Unit, UUID, UUID | None, UUID], Awaitable[None]]
"""Told of a session that ended before its goal: organization, request, session."""
Shows = Callable[[Unit, Entry], Awaitable[None]]
"""Told, before it is so, of a new value of a secret that the workstation sees."""
SECRETS = frozenset({Kind.PUK, Kind.MANAGEMENT_KEY})
WRITING = frozenset({SessionState.EXECUTING, SessionState.VERIFYING})


@dataclass(frozen=True, slots=True)
class Knows:
    """The workstation at the other end of an open channel, which sees each new secret of the card."""

    workstation: UUID | None
    trusted: bool
    shows: Shows


class Ledger:
    """``RemoteJournal`` of one session. ``again`` asks once more for the caller's rights; it raises if they ended.

    ``proof``: of the person whose session it is; None for an operator's.
    """

    def __init__(
        self,
        database: Database,
        session: CardSession,
        lease: Lease,
        journal: store.Journal,
        objects: Mapping[int, bytes],
        again: Callable[[Unit], Awaitable[object]],
        made: Set[str] = frozenset(),
        knows: Knows | None = None,
        proof: UUID | None = None,
        alone: Callable[[Unit, str], Awaitable[None]] | None = None,
    ) -> None:
        self.session = session
        self.done = 0
        self._database = database
        self._lease = lease
        self._entries = list(journal.entries)
        self._kept = len(journal.entries)
        self._last = journal.last
        self._objects = dict(objects)
        self._written: dict[int, bytes] = {}
        self._keys: list[tuple[Slot, str, bytes, str]] = []
        self._made = set(made)
        self._due: list[tuple[SessionEvent, Mapping[str, object]]] = []
        self._again = again
        self._also: list[Write] = []
        self._sent: list[Write] = []
        self._knows = knows
        self._proof = proof
        self._alone = alone
        self._begun = len(journal.entries)
        self._lost = False

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Everything known of the card, oldest first."""
        return tuple(self._entries)

    @property
    def wrote(self) -> bool:
        """Whether a batch that changes the card may have been sent."""
        return self.session.state in WRITING

    @property
    def rotated(self) -> bool:
        """Whether the card took a new PUK in this session."""
        return any(entry.kind is Kind.PUK_SET for entry in self._entries[self._begun :])

    @property
    def objects(self) -> Mapping[int, bytes]:
        """Contents of data objects that were written to the card, or are about to be, by tag."""
        return {**self._objects, **self._written}

    async def recall(self, identity: Identity) -> tuple[Entry, ...]:
        """The card's journal. Raises JournalOfAnotherCard."""
        require_same_card(self._entries, identity)
        return self.entries

    async def note(self, entries: tuple[Entry, ...]) -> None:
        """Keep ``entries`` for the next commit, without the values of secrets."""
        self._entries += (
            entry if entry.kind is Kind.CERTIFICATE or entry.value is None else _without_value(entry)
            for entry in entries
        )

    def key(self, slot: Slot, fingerprint: str, public: bytes, origin: str) -> None:
        """Keep where a key came from for the next commit."""
        self._keys.append((slot, fingerprint, public, origin))
        self._made.add(fingerprint)

    @property
    def made(self) -> frozenset[str]:
        """Fingerprints of keys for which a certificate was asked in this session, or before for the same request."""
        return frozenset(self._made)

    def put(self, tag: int, content: bytes) -> None:
        """Keep what is about to be written to a data object for the next commit."""
        self._written[tag] = content

    def later(self, event: SessionEvent, values: Mapping[str, object] | None = None) -> None:
        """A step of the machine that makes nothing true on the card: it goes with the next commit."""
        self._due.append((event, values or {}))

    def agreed(self, plan: str, unasked: bool) -> None:
        """The person agreed to the plan of this digest: what is left of it may be gone on with by the same proof.

        ``unasked``: the workstation agreed by itself, which ``alone`` records before anything is written.
        """
        self.later(SessionEvent.CONSENT, {"proof": self._proof})
        alone = self._alone
        if unasked and alone is not None:
            self.also(lambda unit: alone(unit, plan))

    def also(self, write: Write) -> None:
        """What another domain has to write before the next batch leaves: it goes with the next commit."""
        self._also.append(write)

    def once_sent(self, write: Write) -> None:
        """What is true of the card once the next batch left: it goes with the commit before that, and with no end of a
        session that sends nothing more.
        """
        self._sent.append(write)

    async def commit(self) -> None:
        """Commit what was noted, if anything was. Raises SessionLost, AuthorizationError, StoreError."""
        if self._lost:
            raise SessionLost("The session's hold on the card ran out.")
        if len(self._entries) > self._kept or self._keys or self._written or self._also or self._sent:
            await self.write()

    async def write(self, *events: SessionEvent, values: Mapping[str, object] | None = None) -> None:
        """Commit what was noted, with steps of the machine; ``values`` are columns that go with the last.

        Raises as ``commit``, and IllegalTransition.
        """

        async def work(unit: Unit) -> CardSession:
            await self._again(unit)
            for write in self._sent:
                await write(unit)
            return await self.within(unit, *events, values=values)

        self.written(await self._database.transact(work))

    async def within(
        self, unit: Unit, *events: SessionEvent, values: Mapping[str, object] | None = None
    ) -> CardSession:
        """As ``write``, in the caller's transaction; call ``written`` with its result after the commit."""
        if await acquire(unit, self._lease.name, self.session.id, LEASE) is None:
            raise SessionLost("Another session took the card over.")
        session = await store.get(unit, self.session.org, self.session.id)
        if session.state not in LIVE:
            raise SessionLost("The session was ended from outside.")
        for write in self._also:
            await write(unit)
        new = self._entries[self._kept :]
        for row in await store.add_records(unit, session, self._last, new):
            unit.beforehand(record_event(row, trusted=self._knows is None or self._knows.trusted))
        if self._knows is not None:
            for entry in new:
                # Those that the card came with have another name.
                if entry.kind in SECRETS and "." in entry.reference:
                    await self._knows.shows(unit, entry)
        await store.put_objects(unit, session, self._written)
        for key in self._keys:
            if (made := await store.add_key(unit, session, *key)) is not None:
                unit.beforehand(key_event(made))
        steps = [*self._due, *((event, {}) for event in events)]
        if events:
            steps[-1] = (events[-1], values or {})
        for event, columns in steps:
            session = await store.move(unit, session, event, Actor.SERVER, columns)
        if self.done > session.done:
            session = await store.count(unit, session, self.done)
        return session

    def written(self, session: CardSession) -> None:
        """What ``within`` wrote is committed."""
        self.session = session
        self._last += len(self._entries) - self._kept
        self._kept = len(self._entries)
        self._keys.clear()
        self._objects |= self._written
        self._written.clear()
        self._due.clear()
        self._also.clear()
        self._sent.clear()

    async def renew(self) -> None:
        """Hold the card for longer; after a failure ``commit`` raises SessionLost."""
        held = await self._database.transact(lambda unit: acquire(unit, self._lease.name, self.session.id, LEASE))
        self._lost = held is None

    async def let_go(self, unit: Unit) -> None:
        """Leave the card to others."""
        await release(unit, self._lease)

    async def end(self, event: SessionEvent, outcome: str, entry: AuditEntry, tell: Ended) -> None:
        """Record a bad end with what the card has confirmed, and let go of the card. Nothing if it ended already."""

        async def work(unit: Unit) -> None:
            session = await store.get(unit, self.session.org, self.session.id)
            if session.state in LIVE:
                await self.within(unit, event, values={"outcome": outcome})
                await tell(unit, session.org, session.request, session.id)
                unit.audit(entry)
            await self.let_go(unit)

        await self._database.transact(work)


def lease_name(device: object) -> str:
    """The name of the lease on a card."""
    return f"card:{device}"


def _without_value(entry: Entry) -> Entry:
    return Entry(
        entry.kind,
        entry.reference,
        entry.slot,
        entry.fingerprint,
        entry.algorithm,
        None,
        entry.serial,
        entry.guid,
    )
