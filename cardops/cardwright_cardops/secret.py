"""A value that never shows itself: PINs, PUKs and keys on their way to a card."""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """Bytes with no ``str``, ``repr``, pickle or iteration that would show them.

    The buffer can be wiped; copies that Python made in between cannot, and nothing more is promised.
    """

    __slots__ = ("_buffer",)

    def __init__(self, value: bytes | bytearray) -> None:
        self._buffer = bytearray(value)

    @classmethod
    def of(cls, text: str) -> Secret:
        """A PIN or PUK as typed. Raises UnicodeEncodeError for anything but ASCII."""
        return cls(text.encode("ascii"))

    def reveal(self) -> bytes:
        """The value itself. Call it only where the bytes go to a card, a file or a key schedule."""
        return bytes(self._buffer)

    def wipe(self) -> None:
        """Overwrite the buffer with zeros and empty it."""
        self._buffer[:] = bytes(len(self._buffer))
        self._buffer.clear()

    def __len__(self) -> int:
        return len(self._buffer)

    def __bool__(self) -> bool:
        return bool(self._buffer)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._buffer, other._buffer)

    def __hash__(self) -> int:
        return id(type(self))

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self
