"""What private keys have in common whose octets stay where they are: on a card, in a vault."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn, Self

from cryptography.exceptions import UnsupportedAlgorithm


class KeptKey:
    """Mixed into a private key of ``cryptography``: every way to export it refuses, and a copy is the key itself.

    What refuses raises ``cryptography.exceptions.UnsupportedAlgorithm``, or what ``_never_leaves`` is overridden with.
    """

    kept_by: ClassVar[str]
    """Where it stays: "the card"."""

    def private_numbers(self) -> NoReturn:
        """Refused."""
        self._never_leaves()

    def private_bytes(self, encoding: Any, format: Any, encryption_algorithm: Any) -> NoReturn:
        """Refused."""
        self._never_leaves()

    def private_bytes_raw(self) -> NoReturn:
        """Refused."""
        self._never_leaves()

    def _never_leaves(self) -> NoReturn:
        raise UnsupportedAlgorithm(f"the key never leaves {self.kept_by}")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self
