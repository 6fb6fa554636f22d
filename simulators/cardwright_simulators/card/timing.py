"""How long a chip takes. Off by default; a table of durations and an injected sleep when on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from .algorithms import Algorithm


@dataclass(frozen=True, slots=True)
class Durations:
    """Seconds of each kind of work. ``generate`` and ``use`` are by algorithm identifier."""

    apdu: float = 0.0
    octet: float = 0.0
    write: float = 0.0
    write_octet: float = 0.0
    generate: Mapping[int, float] = field(default_factory=dict)
    use: Mapping[int, float] = field(default_factory=dict)


DURATIONS: Final[dict[str, Durations]] = {
    "instant": Durations(),
    "usb-key": Durations(
        apdu=0.002,
        octet=0.000004,
        write=0.012,
        write_octet=0.00002,
        generate={
            Algorithm.RSA1024: 1.0,
            Algorithm.RSA2048: 4.0,
            Algorithm.RSA3072: 12.0,
            Algorithm.RSA4096: 35.0,
            Algorithm.P256: 0.05,
            Algorithm.P384: 0.08,
            Algorithm.ED25519: 0.05,
            Algorithm.X25519: 0.05,
        },
        use={
            Algorithm.RSA1024: 0.04,
            Algorithm.RSA2048: 0.12,
            Algorithm.RSA3072: 0.35,
            Algorithm.RSA4096: 0.8,
            Algorithm.P256: 0.03,
            Algorithm.P384: 0.05,
            Algorithm.ED25519: 0.03,
            Algorithm.X25519: 0.03,
        },
    ),
    "smart-card": Durations(
        apdu=0.015,
        octet=0.00006,
        write=0.008,
        write_octet=0.00003,
        generate={
            Algorithm.RSA1024: 3.0,
            Algorithm.RSA2048: 12.0,
            Algorithm.RSA3072: 45.0,
            Algorithm.RSA4096: 120.0,
            Algorithm.P256: 0.25,
            Algorithm.P384: 0.45,
            Algorithm.CS2: 0.25,
            Algorithm.CS7: 0.45,
        },
        use={
            Algorithm.RSA1024: 0.12,
            Algorithm.RSA2048: 0.55,
            Algorithm.RSA3072: 1.4,
            Algorithm.RSA4096: 2.8,
            Algorithm.P256: 0.09,
            Algorithm.P384: 0.16,
            Algorithm.CS2: 0.09,
            Algorithm.CS7: 0.16,
        },
    ),
}
"""Named tables: rounded figures of the order that such chips show, good for realistic waits, not for benchmarks."""


class Timing:
    """Adds up what the card was busy with and waits for it through ``sleep``."""

    def __init__(
        self, durations: Durations | str = "instant", sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.durations = DURATIONS[durations] if isinstance(durations, str) else durations
        self._sleep = sleep
        self._pending = 0.0
        self.busy_seconds = 0.0

    def generate(self, algorithm: int) -> None:
        """A key pair of ``algorithm`` was made."""
        self._pending += self.durations.generate.get(algorithm, 0.0)

    def use(self, algorithm: int) -> None:
        """A private key of ``algorithm`` worked."""
        self._pending += self.durations.use.get(algorithm, 0.0)

    def write(self, octets: int) -> None:
        """``octets`` were written to persistent memory."""
        self._pending += self.durations.write + octets * self.durations.write_octet

    def finish(self, octets: int) -> None:
        """One APDU with ``octets`` in both directions ends: wait for all that it cost."""
        spent = self._pending + self.durations.apdu + octets * self.durations.octet
        self._pending = 0.0
        self.busy_seconds += spent
        if spent > 0:
            self._sleep(spent)
