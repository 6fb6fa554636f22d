"""What the phases of an execution share: the card's state as known by now, sending, journal, progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeVar

from ..piv.algorithms import ManagementAlgorithm, PrivateKey, PublicKey
from ..piv.references import Slot
from ..program.items import ONLY_OK, Answer, Batch, Group, Item
from ..secret import Secret
from .authority import AuthorityRefused, Refused, Reply, SignFirst
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
    """As few batches as the answers allow, for a line where each is a round trip."""


@dataclass(frozen=True, slots=True)
class Witness:
    """The card's answer to the first step of management-key authentication, asked for while it was observed."""

    algorithm: ManagementAlgorithm
    data: bytes


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What an execution knows beside the plan.

    The two flags say that the person gave the management key, or the PUK, that is set now. ``factory_puk``: the card
    was delivered with a PUK of its own, and says itself that it has the maker's.
    """

    records: Records = field(default_factory=Records)
    backend: Backend | None = None
    pace: Pace = Pace.STEP
    stage: str = STAGE
    management_key_given: bool = False
    puk_given: bool = False
    factory_puk: bool = False
    witness: Witness | None = None


@dataclass(frozen=True, slots=True)
class Act:
    """One step's items, and what the journal keeps once the card has confirmed them.

    ``judge`` sees each answer first and may raise an error that says more than its status word; ``take`` gets the
    answers whose status words are among ``accept``.
    """

    step: Step | None
    items: tuple[Item, ...]
    doing: str
    confirm: tuple[Entry, ...] = ()
    judge: Callable[[Answer], None] | None = None
    take: Callable[[tuple[Answer, ...]], None] | None = None
    accept: frozenset[int] = ONLY_OK


@dataclass(frozen=True, slots=True)
class Signature:
    """What a key signed for its certificate, and the card's statement about the key where one is wanted."""

    asked: SignFirst
    answer: bytes
    statement: bytes = b""


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
        self.signed: dict[Slot, Signature] = {}
        """What keys signed, and what the card stated of them."""
        self.signer = b""
        """DER certificate of the key that signs the card's statements, once it was read."""
        self._held: list[Act] = []
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

    def hold(self, *acts: Act) -> Execution[None]:
        """Send ``acts`` now, or with the next ones where round trips count. Raises as ``send``."""
        self._held += acts
        if self.how.pace is Pace.STEP:
            yield from self.send()

    def send(self, *acts: Act) -> Execution[None]:
        """Send what is held, then ``acts``. Raises the error of the first that failed."""
        due, self._held = [*self._held, *acts], []
        chunks = [[act] for act in due] if self.how.pace is Pace.STEP else [due] if due else []
        for chunk in chunks:
            for act in chunk:
                if act.step is not None:
                    yield Tell(act.step, False)
            answers = yield Batch(tuple(Group(act.items, essential=True) for act in chunk), self.how.stage)
            for act, group in zip(chunk, answers, strict=True):
                for answer in group:
                    if act.judge is not None:
                        act.judge(answer)
                    answer.require(act.doing, act.accept)
                yield from self._confirmed(act, group)

    def _confirmed(self, act: Act, answers: tuple[Answer, ...]) -> Execution[None]:
        yield from self.note(*act.confirm)
        if act.take is not None:
            act.take(answers)
        if act.step is not None:
            self.done.append(act.step)
            yield Tell(act.step, True)

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
