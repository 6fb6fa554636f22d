"""RSA keys made beforehand, so that tests never wait for prime numbers. Never for real users' keys."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

_EXPONENT = 65537


def default_path() -> Path:
    """The per-user cache file: ``$XDG_CACHE_HOME/cardwright/virtual-card-rsa.json``."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "cardwright" / "virtual-card-rsa.json"


class KeyPool:
    """Hands out RSA keys from a cache file, making one only while it holds fewer than ``size`` of that length.

    One pool gives each key once until all ``size`` are used, then begins again. ``path`` None keeps the
    keys in memory only. An unreadable cache counts as empty.
    """

    def __init__(self, path: Path | None = None, *, size: int = 12) -> None:
        self._path = path
        self._size = size
        self._given: dict[int, int] = {}
        self._keys: dict[int, list[tuple[bytes, bytes]]] = self._read()

    @classmethod
    def shared(cls, size: int = 12) -> KeyPool:
        """A pool on the per-user cache file."""
        return cls(default_path(), size=size)

    def take(self, bits: int) -> tuple[bytes, bytes, bytes]:
        """p, q, e of a key of ``bits``."""
        keys = self._keys.setdefault(bits, [])
        turn = self._given.get(bits, 0)
        self._given[bits] = turn + 1
        if turn >= len(keys) and len(keys) < self._size:
            numbers = rsa.generate_private_key(_EXPONENT, bits).private_numbers()
            keys.append((numbers.p.to_bytes(bits // 16, "big"), numbers.q.to_bytes(bits // 16, "big")))
            self._write()
        p, q = keys[turn % len(keys)]
        return p, q, _EXPONENT.to_bytes(3, "big")

    def _read(self) -> dict[int, list[tuple[bytes, bytes]]]:
        if self._path is None:
            return {}
        try:
            document = json.loads(self._path.read_bytes())
            return {
                int(bits): [(bytes.fromhex(p), bytes.fromhex(q)) for p, q in keys]
                for bits, keys in document.items()
            }
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _write(self) -> None:
        """Best effort: a cache that cannot be written costs only time."""
        if self._path is None:
            return
        for bits, keys in self._read().items():
            mine = self._keys.setdefault(bits, [])
            mine.extend(key for key in keys[: self._size - len(mine)] if key not in mine)
        document = {str(bits): [[p.hex(), q.hex()] for p, q in keys] for bits, keys in self._keys.items()}
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._path.parent)
            with os.fdopen(handle, "w") as out:
                json.dump(document, out)
            Path(temporary).replace(self._path)
