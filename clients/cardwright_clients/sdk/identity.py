"""Who a program is to the server: a private key with its certificates, in a file that only its owner may read."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cardwright_cardops.errors import CardwrightError

MAX_FILE: Final = 256 * 1024
_BEGIN: Final = b"-----BEGIN "
_END: Final = b"-----END "
_LINES: Final = b"-----"


class OperatorFileUnusable(CardwrightError):
    """The operator's file is not there, readable by others, or no key with its certificates."""

    code = "OPERATOR_FILE"
    default_effect = "Nothing was sent to the server."
    default_advice = "Give --as the file with the operator's key and certificates, readable by its owner only."


@dataclass(frozen=True, slots=True)
class OperatorFile:
    """PEM blocks: the key, the certificate with its chain, and the root, by which the server is known."""

    key: bytes = field(repr=False)
    chain: bytes
    root: bytes

    @classmethod
    def read(cls, path: Path) -> OperatorFile:
        """Raises OperatorFileUnusable."""
        try:
            mode = path.stat().st_mode
            with path.open("rb") as file:
                raw = file.read(MAX_FILE + 1)
        except OSError as error:
            raise OperatorFileUnusable(f"{path} cannot be read: {error.strerror}.") from error
        if stat.S_IMODE(mode) & 0o077:
            raise OperatorFileUnusable(f"{path} can be read by others than its owner.", advice="Run chmod 600 on it.")
        blocks = list(_blocks(raw)) if len(raw) <= MAX_FILE else []
        keys = [block for label, block in blocks if label.endswith(b"PRIVATE KEY")]
        certificates = [block for label, block in blocks if label == b"CERTIFICATE"]
        if len(keys) != 1 or len(certificates) < 2 or len(blocks) != 1 + len(certificates):
            raise OperatorFileUnusable(f"{path} does not hold one private key, its certificate and its authorities.")
        return cls(keys[0], b"".join(certificates[:-1]), certificates[-1])


def _blocks(raw: bytes) -> Iterable[tuple[bytes, bytes]]:
    """PEM blocks with their labels; what stands between them is skipped."""
    label, lines = b"", list[bytes]()
    for line in raw.splitlines():
        if not label and line.startswith(_BEGIN) and line.endswith(_LINES):
            label, lines = line[len(_BEGIN) : -len(_LINES)], []
        if label:
            lines.append(line)
            if line == _END + label + _LINES:
                yield label, b"\n".join(lines) + b"\n"
                label = b""
