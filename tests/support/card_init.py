"""One ``card init`` on a virtual card, with what the tests around it want to know."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cardwright_cardops.iso7816.exchange import Limits
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.pins import FixedPins
from cardwright_cardops.plan.execute import Report
from cardwright_cardops.plan.init import Secrets, initialize
from cardwright_cardops.plan.policy import DevicePolicy, SecretsPolicy, parse_keys
from cardwright_cardops.plan.records import Journal, Kind, MemoryJournal
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.direct import DirectCard, DirectConnection
from cardwright_simulators.card import KeyPool, VirtualCard
from tests.oracle.card import Expected, judge

PIN, PUK = b"739146", b"Puk-4682"
NUMERIC_PUK = b"46824682"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
P256, RSA2048 = 0x11, 0x07
POOL = KeyPool(size=4)


def executor(card: DirectCard, *, short: bool = False, pin: bytes = PIN, drops: bool = True) -> LocalExecutor:
    """An executing end for ``card`` whose person knows ``pin``."""
    pins = FixedPins(Secret(pin), Secret(pin))
    limits = Limits(extended=False) if short else None
    made = LocalExecutor(DirectConnection(card), KeyItems(pins, local=True), limits)
    made.drops_status = drops
    return made


@dataclass
class Case:
    """What is wanted of one kind of card, and what is given for it. ``keys``: slot to (algorithm, made on card)."""

    profile: str
    keys: str
    expected: dict[int, tuple[int, bool]]
    secrets: SecretsPolicy = field(default_factory=SecretsPolicy)
    given_key: bytes | None = None
    short: bool = False
    puk: bytes = PUK

    @property
    def policy(self) -> DevicePolicy:
        return DevicePolicy(slots=parse_keys(self.keys), secrets=self.secrets)

    def card(self) -> VirtualCard:
        """A fresh card."""
        return VirtualCard(self.profile, serial=12345678, key_pool=POOL)

    def run(self, card: DirectCard, journal: Journal) -> Report:
        """One ``card init``."""
        key = None if self.given_key is None else Secret(self.given_key)
        secrets = Secrets(new_puk=Secret(self.puk), management_key=key)
        return initialize(executor(card, short=self.short), self.policy, secrets, journal, now=NOW)

    def faults_of(self, card: VirtualCard, journal: MemoryJournal) -> list[str]:
        """What the judge finds wrong with ``card``."""
        recorded = [entry.value for entry in journal.entries() if entry.kind is Kind.MANAGEMENT_KEY]
        keys = frozenset(value.reveal() for value in recorded if value is not None)
        expected = Expected(
            self.expected, PIN, self.puk, keys if self.secrets.management_key else frozenset(), now=NOW
        )
        return judge(card.snapshot(), expected)


TOKEN_KEYS = "9a=p256,9c=p256,9d=p256:import,9e=p256"
TOKEN = {0x9A: (P256, True), 0x9C: (P256, True), 0x9D: (P256, False), 0x9E: (P256, True)}
STANDARD_KEYS = "9a=p256,9c=p256,9d=rsa2048,9e=p256"
STANDARD = {0x9A: (P256, True), 0x9C: (P256, True), 0x9D: (RSA2048, True), 0x9E: (P256, True)}
LEFT_ALONE = SecretsPolicy(management_key=False)

CASES = {
    "yubikey-5.7": Case("yubikey-5.7", TOKEN_KEYS, TOKEN),
    "yubikey-5.4 short": Case("yubikey-5.4", TOKEN_KEYS, TOKEN, short=True),
    "pivapplet": Case("pivapplet", TOKEN_KEYS, TOKEN),
    "tdes-only": Case("tdes-only", TOKEN_KEYS, TOKEN),
    "t0-short": Case("t0-short", TOKEN_KEYS, TOKEN),
    "sp800-73-5": Case(
        "sp800-73-5", STANDARD_KEYS, STANDARD, LEFT_ALONE, given_key=bytes(range(1, 17)), puk=NUMERIC_PUK
    ),
    "globalplatform": Case(
        "globalplatform", STANDARD_KEYS, STANDARD, LEFT_ALONE, given_key=bytes(range(1, 17)), puk=NUMERIC_PUK
    ),
}
"""Every kind of card on which ``card init`` can reach its goal."""


def values_of(journal: MemoryJournal, *kinds: Kind) -> Iterable[bytes]:
    """The secret values that a journal holds."""
    return (entry.value.reveal() for entry in journal.entries() if entry.kind in kinds and entry.value is not None)
