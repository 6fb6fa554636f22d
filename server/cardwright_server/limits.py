"""Limits: token buckets per workstation, operator, person and address, admission, and jitter for what is repeated.

Buckets live in the memory of one process, which is what protects that process. Several processes together let
through at most as many times more; what must hold exactly (lock-outs, quotas of the vault) is in the database.
"""

from __future__ import annotations

import math
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from cardwright_cardops.errors import CardwrightError

Monotonic = Callable[[], float]


class LimitExceeded(CardwrightError):
    """Too much of this came from the same source. ``retry_after``: seconds until it is worth another try."""

    code = "LIMIT_EXCEEDED"
    default_effect = "Nothing was done."
    default_advice = "Wait as long as is said, then try again."

    def __init__(self, what: str, retry_after: float) -> None:
        super().__init__(f"too many requests of this {what}; try again in {math.ceil(retry_after)} s")
        self.what, self.retry_after = what, retry_after


class ServerBusy(CardwrightError):
    """The server does as much of this as it takes on at once. ``retry_after``: seconds, spread at random."""

    code = "SERVER_BUSY"
    default_effect = "Nothing was done."
    default_advice = "Wait as long as is said, then try again."

    def __init__(self, what: str, retry_after: float) -> None:
        super().__init__(f"the server is busy with {what}; try again in {math.ceil(retry_after)} s")
        self.what, self.retry_after = what, retry_after


class Scope(StrEnum):
    """What a bucket belongs to."""

    WORKSTATION = "workstation"
    OPERATOR = "operator"
    PERSON = "person"
    ADDRESS = "address"


@dataclass(frozen=True, slots=True)
class Rate:
    """``burst`` at once, refilled by ``per_second``. Raises ValueError for what can never let anything through."""

    burst: float
    per_second: float

    def __post_init__(self) -> None:
        if not (self.burst >= 1 and self.per_second > 0):
            raise ValueError("a rate needs a burst of at least 1 and a refill above 0")


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Buckets:
    """Token buckets of one scope, at most ``size`` of them.

    When there are too many, the one that was used longest ago goes if it has refilled; if none of the oldest has, a
    newcomer is turned away: whoever invents sources to flush the memory gets no fresh bucket for it.
    """

    _LOOKED_AT: ClassVar[int] = 8

    def __init__(self, scope: Scope, rate: Rate, *, size: int = 100_000, clock: Monotonic = time.monotonic) -> None:
        self.scope = scope
        self.rate = rate
        self._size = size
        self._clock = clock
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait(self, key: Hashable, cost: float = 1) -> float:
        """Seconds until ``cost`` could be taken; 0: now. Takes nothing. Raises ValueError for more than a burst."""
        if cost > self.rate.burst:
            raise ValueError(f"{cost} is more than a burst of {self.rate.burst}")
        now = self._clock()
        bucket = self._buckets.get(key)
        if bucket is None:
            return 0.0 if self._has_room(now) else self._full_after(self._oldest(), now)
        # A rounding error must not send anyone away for a nanosecond.
        lacking = cost - self._tokens(bucket, now)
        return lacking / self.rate.per_second if lacking > 1e-9 else 0.0

    def take(self, key: Hashable, cost: float = 1) -> None:
        """Take ``cost`` from the key's bucket. Raises LimitExceeded, and ValueError for more than a burst."""
        if (seconds := self.wait(key, cost)) > 0:
            raise LimitExceeded(self.scope, seconds)
        now = self._clock()
        bucket = self._buckets.pop(key, None)
        tokens = self.rate.burst if bucket is None else self._tokens(bucket, now)
        self._buckets[key] = _Bucket(max(0.0, tokens - cost), now)

    def _tokens(self, bucket: _Bucket, now: float) -> float:
        return min(self.rate.burst, bucket.tokens + max(0.0, now - bucket.at) * self.rate.per_second)

    def _full_after(self, bucket: _Bucket, now: float) -> float:
        return (self.rate.burst - self._tokens(bucket, now)) / self.rate.per_second

    def _oldest(self) -> _Bucket:
        return next(iter(self._buckets.values()))

    def _has_room(self, now: float) -> bool:
        for key in [key for key, _ in zip(self._buckets, range(self._LOOKED_AT), strict=False)]:
            if self._full_after(self._buckets[key], now) > 0:
                break
            del self._buckets[key]
        return len(self._buckets) < self._size


class Limits:
    """The buckets of a process: one set per scope. ``take`` asks all that are named, and takes from all or none."""

    def __init__(self, rates: Mapping[Scope, Rate], *, size: int = 100_000, clock: Monotonic = time.monotonic) -> None:
        self._sets = {scope: Buckets(scope, rate, size=size, clock=clock) for scope, rate in rates.items()}

    def take(self, keys: Mapping[Scope, Hashable], cost: float = 1) -> None:
        """Take from each bucket that is named; scopes without a rate are free.

        Raises LimitExceeded with the longest wait; nothing was taken then, so one scope's limit costs no other scope's
        tokens.
        """
        named = [(self._sets[scope], key) for scope, key in keys.items() if scope in self._sets]
        waits = [(buckets.wait(key, cost), buckets.scope) for buckets, key in named]
        seconds, scope = max(waits, default=(0.0, Scope.ADDRESS))
        if seconds > 0:
            raise LimitExceeded(scope, seconds)
        for buckets, key in named:
            buckets.take(key, cost)


class Admission:
    """At most ``places`` of something at once; whoever finds none is told when to come again. Used by ``with``."""

    def __init__(self, what: str, places: int, *, retry_after: float = 2.0) -> None:
        self.what = what
        self.places = places
        self.taken = 0
        self._retry_after = retry_after

    def __enter__(self) -> Admission:
        """Raises ServerBusy."""
        if self.taken >= self.places:
            raise ServerBusy(self.what, jittered(self._retry_after))
        self.taken += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.taken -= 1


def jittered(seconds: float, spread: float = 0.5) -> float:
    """About so many seconds: between ``1 - spread`` and ``1 + spread`` times, so that crowds come apart."""
    return seconds * random.uniform(1 - spread, 1 + spread)


def backoff(attempt: int, *, first: float, longest: float) -> float:
    """Seconds to wait after the attempt of that number (from 1): doubling, at most ``longest``, jittered."""
    return jittered(min(longest, first * 2.0 ** min(attempt - 1, 60)), 0.25)
