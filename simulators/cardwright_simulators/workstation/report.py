"""What came of it: counts, errors by their codes, and how long answers took."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Times:
    """Seconds of things that succeeded, and the codes of those that did not.

    In an open loop a thing begins when it is due, not when there was time for it: a server that is late cannot hide.
    """

    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def at(self, share: float) -> float:
        """The time within which ``share`` of what succeeded was done (nearest rank); NaN if nothing was."""
        if not self.seconds:
            return math.nan
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]

    def document(self) -> dict[str, object]:
        """For JSON, times in milliseconds."""

        def shown(value: float) -> float | None:
            return None if math.isnan(value) else round(value * 1e3, 3)

        return {
            "answered": len(self.seconds),
            "errors": dict(sorted(self.errors.items())),
            "p50_ms": shown(self.at(0.5)),
            "p99_ms": shown(self.at(0.99)),
            "longest_ms": shown(self.at(1)),
        }


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the work: what it was, how long all of it took, what this process needed of a processor."""

    name: str
    times: Times
    seconds: float
    cpu_seconds: float

    def document(self) -> dict[str, object]:
        """For JSON."""
        return {
            "part": self.name,
            **self.times.document(),
            "seconds": round(self.seconds, 3),
            "client_cpu_seconds": round(self.cpu_seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """All parts, in order."""

    parts: Sequence[Part]

    @property
    def failed(self) -> int:
        """How many things did not succeed."""
        return sum(sum(part.times.errors.values()) for part in self.parts)

    def part(self, name: str) -> Part:
        """Raises KeyError."""
        for one in self.parts:
            if one.name == name:
                return one
        raise KeyError(name)

    def document(self) -> dict[str, object]:
        """For JSON."""
        return {"parts": [part.document() for part in self.parts], "failed": self.failed}
