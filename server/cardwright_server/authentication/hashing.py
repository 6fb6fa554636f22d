"""Argon2id hashes of what people remember: bounded memory, never on the event loop, equal work for nobody."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from cardwright_cardops.secret import Secret

SALT = 16
LENGTH = 32

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Cost:
    """Argon2id parameters (RFC 9106): ``memory`` in KiB, passes, lanes."""

    memory: int = 19456
    passes: int = 2
    lanes: int = 1


class Hasher:
    """Makes and checks hashes in at most ``workers`` threads, so that many attempts at once cannot take all memory."""

    def __init__(self, cost: Cost | None = None, *, workers: int = 2) -> None:
        self._cost = cost or Cost()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="argon2")
        # Of a value that nobody knows: checked where there is no hash, so that this takes as long.
        self._nobody = self._hash(secrets.token_bytes(32))

    async def hash(self, value: Secret) -> str:
        """The PHC string of a value, salted."""
        return await self._run(self._hash, value.reveal())

    async def matches(self, hashes: Sequence[str | None], values: Sequence[Secret]) -> bool:
        """Whether every value matches the hash at its place.

        Every place is worked through whatever the others say; None, for a hash that does not exist, never matches and
        costs the same. A missing or further value fails as well, at the cost of the longer list.
        """
        count = max(len(hashes), len(values))
        padded_hashes = [*hashes, *[None] * (count - len(hashes))]
        padded_values = [*(value.reveal() for value in values), *[b"\0"] * (count - len(values))]
        return await self._run(self._all_match, padded_hashes, padded_values)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[..., R], *arguments: object) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def _all_match(self, hashes: Sequence[str | None], values: Sequence[bytes]) -> bool:
        results = [self._matches(text, value) for text, value in zip(hashes, values, strict=True)]
        return bool(results) and all(results)

    def _hash(self, value: bytes) -> str:
        return Argon2id(
            salt=secrets.token_bytes(SALT),
            length=LENGTH,
            iterations=self._cost.passes,
            lanes=self._cost.lanes,
            memory_cost=self._cost.memory,
        ).derive_phc_encoded(value)

    def _matches(self, text: str | None, value: bytes) -> bool:
        try:
            Argon2id.verify_phc_encoded(value, text if text is not None else self._nobody)
        except InvalidKey:
            return False
        return text is not None
