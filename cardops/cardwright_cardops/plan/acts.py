"""What the phases of an execution share: the card's state as known by now, sending, journal, progress."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeVar

from ..piv.algorithms import PrivateKey, PublicKey
from ..piv.references import Slot
from ..program.items import Answer, Batch, Group, Item
from ..secret import Secret
from .authority import AuthorityRefused, Refused, Reply
from .capabilities import Backend, backend_of
from .conduct import Execution, Note, Tell
from .inventory import Inventory
from .records import Entry, Records
from .steps import Plan, Step

R = TypeVar("R")

STAGE: Final = "personalize"


class Pace(Enum):
    """How steps are put into batches."""

    STEP = "step"
    """One batch each: progress and journal are exact."""
    PHASE = "phase"
    """One batch a phase: few round trips."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What an execution knows beside the plan.

    The two flags say that the person gave the management key, or the PUK, that is set now.
    """

    records: Records = field(default_factory=Records)
    backend: Backend | None = None
    pace: Pace = Pace.STEP
    stage: str = STAGE
    management_key_given: bool = False
    puk_given: bool = False


@dataclass(frozen=True, slots=True)
class Act:
    """One step's items, and what the journal keeps once the card has confirmed them."""

    step: Step | None
    items: tuple[Item, ...]
    doing: str
    confirm: tuple[Entry, ...] = ()


class Session:
    """One execution on one card. ``public``, ``private``, ``contents`` are what its phases hand on."""

    def __init__(self, plan: Plan, inventory: Inventory, how: Circumstances) -> None:
        self.plan = plan
        self.inventory = inventory
        self.how = how
        self.records = how.records
        self.backend = how.backend or backend_of(inventory.features)
        self.done: list[Step] = []
        self.pending: list[Slot] = []
        self.public: dict[Slot, PublicKey] = {}
        self.private: dict[Slot, PrivateKey] = {}
        self.contents: dict[int, bytes] = {}
        self.puk: tuple[str, Secret] | None = None
        """Name and value of the PUK that the card is known to have now."""

    def steps(self, *kinds: type[R]) -> tuple[R, ...]:
        """The plan's steps of these kinds that are not done."""
        return tuple(step for step in self.plan.steps if isinstance(step, kinds) and step not in self.done)

    def note(self, *entries: Entry) -> Execution[None]:
        """Keep ``entries`` before anything else is done."""
        if entries:
            yield Note(entries)
            for entry in entries:
                self.records = self.records.with_entry(entry)

    def send(self, acts: Iterable[Act]) -> Execution[list[tuple[Answer, ...]]]:
        """Send ``acts`` at the chosen pace; the answers, by act. Raises the error of the first that failed."""
        acts = list(acts)
        chunks = [[act] for act in acts] if self.how.pace is Pace.STEP else [acts] if acts else []
        results: list[tuple[Answer, ...]] = []
        for chunk in chunks:
            for act in chunk:
                if act.step is not None:
                    yield Tell(act.step, False)
            answers = yield Batch(tuple(Group(act.items, essential=True) for act in chunk), self.how.stage)
            for act, group in zip(chunk, answers, strict=True):
                for answer in group:
                    answer.require(act.doing)
                yield from self.note(*act.confirm)
                if act.step is not None:
                    self.done.append(act.step)
                    yield Tell(act.step, True)
                results.append(group)
        return results

    def so_far(self, effect: str) -> str:
        """What an error means for the card, with the steps that are done."""
        if not self.done:
            return effect
        many = len(self.plan.steps)
        return f"{effect} {len(self.done)} of {many} steps are done; starting again does the rest.".strip()


def expect(kind: type[R], reply: Reply, what: str) -> R:
    """The reply, of the kind that gives ``what``. Raises AuthorityRefused."""
    if isinstance(reply, kind):
        return reply
    raise AuthorityRefused(what, reply.reason if isinstance(reply, Refused) else "it has no answer.")
