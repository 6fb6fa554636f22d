"""Files of bounded size."""

from __future__ import annotations

from pathlib import Path

from .errors import VaultDamaged


def read_bounded(path: Path, limit: int) -> bytes:
    """The content of a file of at most ``limit`` octets. Raises VaultDamaged."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as cause:
        raise VaultDamaged(f"{path} cannot be read: {cause.strerror}.") from cause
    if len(content) > limit:
        raise VaultDamaged(f"{path} is larger than any that this vault writes.")
    return content
