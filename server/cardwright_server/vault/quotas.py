"""How much the vault does in an hour and in a day, counted in buckets of five minutes.

A window always covers at least its length, so that never more than a limit falls into any hour or day. What was
counted is part of the vault's audit, and is there again after a restart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .errors import VaultQuota
from .messages import Limit

BUCKET_SECONDS = 300
_HOUR = 3600 // BUCKET_SECONDS
_DAY = 24 * _HOUR

REFUSED = "refused"
UNLOCK_FAILED = "unlock-failed"

DEFAULT_LIMITS: dict[str, Limit] = {
    "management-key.answer": Limit(20_000, 200_000),
    "management-key.answer.card": Limit(120, 600),
    "management-key.write": Limit(10_000, 50_000),
    "management-key.write.card": Limit(10, 30),
    "puk.set": Limit(10_000, 50_000),
    "puk.set.card": Limit(10, 30),
    "puk.unlock": Limit(300, 2_000),
    "puk.unlock.actor": Limit(20, 60),
    "puk.unlock.card": Limit(5, 10),
    "certificate": Limit(40_000, 200_000),
    "crl": Limit(2_000, 20_000),
    "ocsp": Limit(500_000, 5_000_000),
    "content": Limit(40_000, 200_000),
    "audit-block": Limit(8_000, 180_000),
    "escrow.generate": Limit(10_000, 50_000),
    "archive.wrap": Limit(20_000, 100_000),
    "archive.card": Limit(2_000, 10_000),
    "archive.card.actor": Limit(200, 1_000),
    "archive.card.owner": Limit(40, 100),
    "archive.pfx": Limit(200, 1_000),
    "archive.pfx.actor": Limit(20, 60),
    "archive.pfx.owner": Limit(10, 20),
    "data.seal": Limit(50_000, 500_000),
    "data.open": Limit(20_000, 200_000),
    "data.open.owner": Limit(60, 300),
    "commit": Limit(2_000_000, 20_000_000),
    REFUSED: Limit(600, 5_000),
    UNLOCK_FAILED: Limit(20, 60),
}
"""What a new vault allows. A name that ends in card, actor or owner counts for each of them apart."""


class Charge(NamedTuple):
    """``amount`` against the limit ``name``; ``scope`` is the id of the card, actor or owner, or empty."""

    name: str
    scope: str = ""
    amount: int = 1

    @property
    def key(self) -> str:
        """Under which it is counted."""
        return f"{self.name}|{self.scope}"


class Counters:
    """What was done in the last day, by limit and scope."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[int, int]] = {}
        self._pruned = 0

    def add(self, key: str, amount: int, milliseconds: int) -> None:
        """Count ``amount`` at a time since 1970."""
        bucket = milliseconds // 1000 // BUCKET_SECONDS
        buckets = self._counts.setdefault(key, {})
        buckets[bucket] = buckets.get(bucket, 0) + amount
        if bucket - self._pruned >= _HOUR:
            self._prune(bucket)

    def require(self, charges: Iterable[Charge], limits: Mapping[str, Limit], milliseconds: int) -> None:
        """Raises VaultQuota if any of ``charges`` would go over its limit. A charge without limit is a defect."""
        bucket = milliseconds // 1000 // BUCKET_SECONDS
        for charge in charges:
            limit = limits[charge.name]
            buckets = self._counts.get(charge.key, {})
            for size, most in ((_HOUR, limit.per_hour), (_DAY, limit.per_day)):
                if most is None:
                    continue
                inside = {at: count for at, count in buckets.items() if bucket - size <= at}
                if sum(inside.values()) + charge.amount > most:
                    oldest = min(inside, default=bucket)
                    seconds = (oldest + size + 1) * BUCKET_SECONDS - milliseconds // 1000
                    raise VaultQuota(charge.name, max(1, seconds))

    def snapshot(self, milliseconds: int) -> dict[str, dict[int, int]]:
        """What still counts, for a checkpoint."""
        self._prune(milliseconds // 1000 // BUCKET_SECONDS)
        return {key: dict(buckets) for key, buckets in self._counts.items()}

    def restore(self, counts: Mapping[str, Mapping[int, int]]) -> None:
        """Take over a snapshot."""
        self._counts = {key: dict(buckets) for key, buckets in counts.items()}

    def _prune(self, bucket: int) -> None:
        self._pruned = bucket
        kept = {
            key: {at: count for at, count in buckets.items() if at >= bucket - _DAY}
            for key, buckets in self._counts.items()
        }
        self._counts = {key: buckets for key, buckets in kept.items() if buckets}
