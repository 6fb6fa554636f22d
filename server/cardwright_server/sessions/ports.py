"""What card sessions ask of other domains, and of the line to the workstation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import date
from typing import Protocol, TypeAlias
from uuid import UUID

from cardwright_cardops.piv.algorithms import Algorithm, PrivateKey, PublicKey
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.authority import Issued, Pending, Refused
from cardwright_cardops.plan.inventory import Inventory
from cardwright_cardops.plan.policy import RecoveredKey
from cardwright_cardops.plan.token import TokenAnswer
from cardwright_cardops.program.items import Answers, AnyBatch
from cardwright_cardops.program.token_items import TokenBatch

from ..authentication.authorize import CallTarget, Permission
from ..authentication.principal import Principal
from ..devices.model import SecretName
from ..devices.numbering import NINES
from ..issuance.names import HolderNames
from ..policies.model import Origin, Policy
from ..store.unit import Unit
from ..vault.model import DataContext, VendorCard, Wrapped
from .failures import Failure
from .model import Greeting, Outcome, Purpose, Showing

Write: TypeAlias = Callable[[Unit], Awaitable[object]]
Also: TypeAlias = Callable[[Write], None]
"""Takes what is to be written with the next commit of a session."""


@dataclass(frozen=True, slots=True)
class Task:
    """One device and what is to become of it.

    ``guid`` is the card UUID that it has or is to get; ``guid_is_new``: unless a session recorded one already.
    ``fascn`` has 25 octets. ``life``: how often the device began anew as stock; each has a journal of its own.
    ``revoked``: fingerprints of keys whose certificates ended with an issuance that failed: the card gets others.
    ``initial``: what the vault sealed of the secrets that the card came with, ``vendor``: of whose master key it makes
    the management key; all else is the vendor's published value.
    ``token``: it is a PKCS#11 token, of whose keys nobody's word proves where they were made. ``trusted``: the
    workstation is a trusted station. ``unlockable``: issued, without hold or incident; ``in_use``: or being updated.
    ``expires``: last day of the card. ``asked_as``: the request as authorization sees it. ``adrift``: the device is
    being updated, and nobody asks for it any more: the request was taken back. ``was_issued``: somebody had it in use.
    ``rotate_puk``: a workstation that may not keep it saw the card's PUK, and this one may see the next.
    ``temporary``: it stands in for another device. ``number``: of the version of the policy. ``is_due``: the books say
    that the card has to be brought to it. ``waits``: written by another than its holder, who has to activate it before
    its certificates are good; ``activates``: the holder does so now.
    """

    org: UUID
    device: UUID
    purpose: Purpose
    policy: Policy
    guid: UUID
    expires: date
    person: UUID | None = None
    request: UUID | None = None
    serial: str = ""
    trusted: bool = False
    token: bool = False
    unlockable: bool = False
    in_use: bool = False
    adrift: bool = False
    rotate_puk: bool = False
    temporary: bool = False
    number: int = 0
    is_due: bool = False
    waits: bool = False
    activates: bool = False
    asked_as: CallTarget | None = None
    was_issued: bool = False
    guid_is_new: bool = False
    fascn: bytes = NINES.encode()
    life: int = 1
    revoked: frozenset[str] = frozenset()
    initial: Mapping[SecretName, tuple[Wrapped, DataContext]] = field(default_factory=dict, repr=False)
    vendor: VendorCard | None = None

    @property
    def delivered(self) -> frozenset[SecretName]:
        """Secrets that stand where factory values would, because the card came with them."""
        made = frozenset({SecretName.MANAGEMENT_KEY}) if self.vendor is not None else frozenset[SecretName]()
        return made | self.initial.keys()

    @property
    def target(self) -> CallTarget:
        """What authorization looks at."""
        if self.asked_as is not None:
            return self.asked_as
        return CallTarget(self.org, person=self.person, request=self.request, strict=self.policy.strict)


class Devices(Protocol):
    """Devices, their requests and policies."""

    async def task(self, unit: Unit, principal: Principal, greeting: Greeting) -> Task:
        """The task of the card that a workstation shows, or of the request that it names.

        Raises the domain's error when there is no such device or request, or none that is open.
        """

    async def begin(self, unit: Unit, permission: Permission, task: Task, session: UUID) -> None:
        """The session works on the task from now on. Raises the domain's error when another one does."""

    async def exposed(self, unit: Unit, task: Task, workstation: UUID | None, puk: str) -> None:
        """A workstation is about to see the card's next PUK, whose generation this is, over an open channel."""

    async def still_wanted(self, unit: Unit, task: Task) -> None:
        """Asked before anything is written. Raises the domain's error where a lock was taken back meanwhile, or a card
        that was in use went out of it.
        """

    async def locking(self, unit: Unit, task: Task) -> None:
        """A session is about to block the card's PIN."""

    async def finished(
        self, unit: Unit, principal: Principal, task: Task, session: UUID, outcome: Outcome, card: Inventory
    ) -> None:
        """The session reached its goal: the device is ISSUED (or goes on as it was), the request is done."""

    async def ended(
        self, unit: Unit, org: UUID, request: UUID | None, session: UUID, failure: Failure | None
    ) -> None:
        """The session ended before its goal; without a failure the next one goes on with the same request."""


@dataclass(frozen=True, slots=True)
class CertificateOrder:
    """A certificate that a slot needs.

    ``request`` is its PKCS #10, b"" for a key that the server made and for an order that is only repeated. ``origin``
    is what the rest must prove; ``statement`` and ``signer`` are the card's word for it, where it gave one.
    """

    task: Task
    session: UUID
    slot: Slot
    algorithm: Algorithm
    profile: str
    public_key: PublicKey
    origin: Origin
    request: bytes = field(default=b"", repr=False)
    statement: bytes = field(default=b"", repr=False)
    signer: bytes = field(default=b"", repr=False)


class Certificates(Protocol):
    """Issuance."""

    async def subject(self, task: Task, slot: Slot, profile: str) -> bytes:
        """DER Name that the request for a slot's certificate shall have."""

    async def require_names(self, task: Task, profiles: Set[str]) -> None:
        """Refuse what certificates of these profiles could not say of holder and card. Raises the domain's errors."""

    async def certify(
        self, orders: Sequence[CertificateOrder], also: Also | None = None
    ) -> tuple[Issued | Pending | Refused, ...]:
        """One answer for each; what is issued is on hold. The same order again gives the same certificate.

        What is signed was committed before. That it is signed commits before this returns, or with ``also``, which is
        given what to write: then the caller commits it before a certificate leaves.
        """

    async def revoked(self, unit: Unit, task: Task) -> frozenset[str]:
        """Fingerprints of keys of the device that have revoked certificates only: those are written to no card."""

    async def settle(
        self, unit: Unit, principal: Principal, task: Task, session: UUID, keys: Mapping[Slot, str], bare: Set[str]
    ) -> None:
        """``keys`` (fingerprints by slot) are on the card with their certificates: release those.

        Certificates of ``bare`` keys, which are on the card without one, stay as they are; the device's others are
        revoked.
        """


class Names(Protocol):
    """What may be said of a device's holder: from people and numbering."""

    async def names(self, task: Task) -> HolderNames:
        """Names of the card and of the person whose it is."""

    def made_of(self, kinds: Sequence[str]) -> tuple[str, ...]:
        """Attributes of a person that these kinds of names are made of; a card's own are made of none."""


class Contents(Protocol):
    """Contents of data objects."""

    async def content(
        self, task: Task, tag: int, card: Inventory, written: Mapping[int, bytes], kept: Mapping[int, bytes]
    ) -> Issued | Refused:
        """The content of one object.

        ``written``: those that the plan writes before it, certificates as b"". ``kept``: those that earlier sessions
        wrote and that are on the card as they were written.
        """


class Recoverable(Protocol):
    """An archived key that belongs in a retired slot."""

    @property
    def recovered(self) -> RecoveredKey:
        """It, as a device policy wants it."""


class Escrow(Protocol):
    """Keys that the server makes and keeps."""

    async def recoverable(self, unit: Unit, task: Task, replaced: Set[str]) -> Sequence[Recoverable]:
        """Keys that the card should carry in retired slots, newest first. ``replaced``: fingerprints of keys of other
        slots in whose place the plan puts new ones.
        """

    async def key(
        self,
        task: Task,
        session: UUID,
        slot: Slot,
        algorithm: Algorithm,
        fingerprint: str,
        sent: Set[str] | None = None,
    ) -> PrivateKey:
        """The archived key with this fingerprint; for "" a new one, archived and committed before this returns.

        ``sent``: fingerprints of keys that may have reached the slot. The newest other one that was made for it takes
        the place of a new one: its session ended before it left.
        """


class Line(Protocol):
    """A workstation at the other end. Every wait raises LineLost, SessionCancelled, SessionProtocolBroken."""

    async def greet(self, session: UUID) -> None:
        """Answer the workstation's hello."""

    async def show(self, showing: Showing, batch: AnyBatch, agreed: Callable[[bool], None]) -> Answers | None:
        """Show a plan, and send with it the first batch, which only reads, to be carried out once the person agreed.

        Its answers; None if the person did not agree to exactly this plan. ``agreed`` is called as soon as they did,
        with True where the workstation says that it agreed by itself. Raises as ``execute``.
        """

    async def execute(self, batch: AnyBatch) -> Answers:
        """Send a batch and wait for its answers. Also raises what the workstation says was wrong with the batch."""

    async def show_steps(
        self, showing: Showing, batch: TokenBatch, agreed: Callable[[bool], None]
    ) -> tuple[TokenAnswer, ...] | None:
        """As ``show``, for a PKCS#11 token."""

    async def steps(self, batch: TokenBatch) -> tuple[TokenAnswer, ...]:
        """As ``execute``, for a PKCS#11 token."""

    async def end_stage(self) -> None:
        """The stage is over. Never raises."""

    def progress(self, step: str, percentage: int) -> None:
        """Say how far it is, with the next message."""
