"""How long a card may take for each command, in seconds, before the call is given up.

Generous on purpose: a command that is given up is in doubt. Old chips need more than a minute for an
RSA-2048 key; a key with a touch policy waits for the finger; a card may ask for more time (ISO 7816-3) as
often as it likes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

INS_GENERATE: Final = 0x47

_BY_INSTRUCTION: Final = {
    0x2C: 20.0,  # RESET RETRY COUNTER
    0x24: 20.0,  # CHANGE REFERENCE DATA
    0x87: 60.0,  # GENERAL AUTHENTICATE: RSA-4096 on a slow chip, and up to 15 s for a touch
    0xDB: 30.0,  # PUT DATA
    0xF6: 30.0,  # move or delete a key
    0xF9: 60.0,  # attest
    0xFA: 20.0,  # set retries
    0xFB: 60.0,  # reset the application
    0xFE: 60.0,  # import a key
    0xFF: 30.0,  # set the management key, with touch
}

_BY_ALGORITHM: Final = {
    0x06: 120.0,  # RSA-1024
    0x07: 240.0,  # RSA-2048
    0x05: 400.0,  # RSA-3072
    0x16: 600.0,  # RSA-4096
    0x11: 30.0,  # P-256
    0x14: 30.0,  # P-384
    0xE0: 30.0,  # Ed25519
    0xE1: 30.0,  # X25519
}
"""Of GENERATE ASYMMETRIC KEY PAIR, by the algorithm identifier (SP 800-78-5 table 6; vendors' 05, 16, E0, E1)."""

@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds for each command; ``waiting`` for another program to let the card go; ``default`` for all else."""

    default: float = 10.0
    waiting: float = 10.0
    by_instruction: Mapping[int, float] = field(default_factory=lambda: MappingProxyType(_BY_INSTRUCTION))
    by_algorithm: Mapping[int, float] = field(default_factory=lambda: MappingProxyType(_BY_ALGORITHM))

    def of(self, command: bytes) -> float:
        """Seconds for this command APDU, which need not be well formed."""
        if len(command) < 2:
            return self.default
        ins = command[1]
        if ins != INS_GENERATE:
            return self.by_instruction.get(ins, self.default)
        known = self.by_algorithm.get(algorithm_of(command) or 0)
        return known or max(self.by_algorithm.values(), default=self.default)

    @property
    def shortest(self) -> float:
        """The least of all."""
        return min(self.default, self.waiting, *self.by_instruction.values(), *self.by_algorithm.values())


def algorithm_of(generate: bytes) -> int | None:
    """The algorithm identifier in a GENERATE command APDU (SP 800-73-5 part 2 section 3.3.2), in the clear.

    None where there is none, or where secure messaging hides it.
    """
    if generate[0] & 0x0C:
        return None
    data = generate[7:] if generate[4:5] == b"\x00" else generate[5:]
    if data[:1] != b"\xac" or data[2:4] != b"\x80\x01" or len(data) < 5:
        return None
    return data[4]
