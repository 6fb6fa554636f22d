"""What the demo tells while it runs, and the sum at its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any


class DemoFailed(Exception):
    """Something was not as it should be."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One job on a card. ``card_seconds``: how long the card itself was at work."""

    operation: str
    card: str
    round_trips: int
    apdus: int
    seconds: float
    card_seconds: float


@dataclass
class Story:
    """Lines for people; none with ``quiet``."""

    quiet: bool = False
    operations: list[Operation] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def chapter(self, title: str) -> None:
        """A new part begins."""
        self._print(f"\n{title}")

    def say(self, text: str) -> None:
        """One thing that happened."""
        self._print(f"  {time.monotonic() - self.began:5.1f} s  {text}")

    def require(self, good: object, text: str) -> None:
        """Say it if it is so; raise DemoFailed if it is not."""
        if not good:
            raise DemoFailed(f"It is not so: {text}")
        self.say(f"{text} ✓")

    def sum_up(self) -> None:
        """A table of what was done."""
        self.chapter("What it took")
        self._print("  operation  card       round trips  APDUs  seconds  of the card")
        for row in self.operations:
            self._print(
                f"  {row.operation:<9}  {row.card:<9}  {row.round_trips:>11}  {row.apdus:>5}"
                f"  {row.seconds:>7.2f}  {row.card_seconds:>11.2f}"
            )

    def document(self) -> dict[str, Any]:
        """The sum for ``--json``."""
        rows = [asdict(one) for one in self.operations]
        for row in rows:
            row["seconds"], row["card_seconds"] = round(row["seconds"], 3), round(row["card_seconds"], 3)
        return {"seconds": round(time.monotonic() - self.began, 1), "operations": rows}

    def _print(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stdout, flush=True)


@contextmanager
def failing_clearly(what: str) -> Iterator[None]:
    """Errors of a call inside become DemoFailed that says during what."""
    import grpc

    try:
        yield
    except grpc.RpcError as error:
        told: Any = error
        raise DemoFailed(f"{what}: {told.details()}") from error
