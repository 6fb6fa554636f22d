"""One request being carried out: what it may use, and what the audit will say of it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime

from ..audit_log import AuditLog, Draft
from ..backend import Backend
from ..der import utc
from ..derivation import Cmac
from ..document import Document, SigningKey
from ..errors import VaultRefused
from ..model import Authorization, KeyRole, MasterPurpose, VaultCard, VendorCard
from ..quotas import Charge

_MAX_CHALLENGES = 10_000


class Challenges:
    """Challenges that the vault gave and nobody answered yet; the oldest make room."""

    def __init__(self) -> None:
        self._open: OrderedDict[tuple[VaultCard | VendorCard, int, bytes], None] = OrderedDict()

    def add(self, card: VaultCard | VendorCard, algorithm: int, challenge: bytes) -> None:
        """Remember one."""
        self._open[card, algorithm, challenge] = None
        if len(self._open) > _MAX_CHALLENGES:
            self._open.popitem(last=False)

    def take(self, card: VaultCard | VendorCard, algorithm: int, challenge: bytes) -> None:
        """Use one up. Raises VaultRefused."""
        try:
            del self._open[card, algorithm, challenge]
        except KeyError:
            raise VaultRefused("challenge", "The vault did not give this challenge, or it was used.") from None


@dataclass(slots=True)
class Act:
    """What an operation sees. ``draft`` becomes the audit's entry, also when the operation refuses."""

    document: Document
    backend: Backend
    log: AuditLog
    challenges: Challenges
    draft: Draft
    _charges: list[Charge] = field(default_factory=list)

    @property
    def now(self) -> datetime:
        """The vault's time."""
        return utc(self.log.milliseconds / 1000)

    def about(self, **facts: str | int) -> None:
        """Say something in the audit."""
        self.draft.about.update(facts)

    def about_card(self, card: VaultCard, authorization: Authorization | None = None) -> None:
        """Whose card, and for whom."""
        self.about(card=self.card_scope(card), generation=card.generation, master=card.master)
        if authorization is not None:
            self.about_authorization(authorization)

    def about_authorization(self, authorization: Authorization) -> None:
        """For whom."""
        self.about(actor=authorization.actor, request=authorization.request)
        if authorization.session:
            self.about(session=authorization.session)

    @staticmethod
    def card_scope(card: VaultCard) -> str:
        """The card as quotas count it."""
        return f"{card.organization}/{card.card}"

    def charge(self, *charges: Charge) -> None:
        """Count against quotas, all or none. Raises VaultQuota."""
        self.log.counters.require(charges, self.document.limits, self.log.milliseconds)
        for charge in charges:
            self.draft.charges[charge.key] = self.draft.charges.get(charge.key, 0) + charge.amount

    def mark(self, key: str, value: str) -> None:
        """Remember a value for good, with this entry."""
        self.draft.marks[key] = value

    def cmac(self, purpose: MasterPurpose, version: int) -> Cmac:
        """AES-CMAC under one version of a master key. Raises VaultRefused."""
        master = self.document.master(purpose, version)
        if master is None:
            raise VaultRefused("master", f"There is no version {version} of the master key for {purpose.value}.")
        return lambda data: self.backend.cmac(master.material, data)

    def require_current(self, purpose: MasterPurpose, version: int) -> None:
        """Raises VaultRefused for any version but the newest."""
        if version != self.document.current(purpose).version:
            raise VaultRefused("master", "New secrets are written only under the newest version of the master key.")

    def signing_key(self, name: str, *roles: KeyRole) -> SigningKey:
        """A signing key that has one of ``roles``. Raises VaultRefused."""
        key = self.document.key(name)
        if key is None or key.info.role not in roles:
            raise VaultRefused("key", "There is no key of this name for this use.")
        return key

    def sign(self, key: SigningKey, data: bytes) -> bytes:
        """A signature; only over what an operation has judged."""
        return self.backend.sign(key.material, key.info.algorithm, data)
