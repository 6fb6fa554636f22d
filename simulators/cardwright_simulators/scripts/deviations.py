"""Where kinds of virtual cards differ from the conformance suite, as data."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from .template import ScriptMalformed

_FILE: Final = Path(__file__).parent / "deviations.toml"


class Deviation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One script that ends otherwise on some kinds of cards: ``found`` is the outcome of its result."""

    script: str
    profiles: tuple[str, ...]
    found: str
    reason: str


class _Rows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    deviation: tuple[Deviation, ...]


def deviations() -> Mapping[str, Mapping[str, Deviation]]:
    """Profile name to script name to deviation. Raises ScriptMalformed for a row twice, OSError."""
    try:
        rows = msgspec.convert(tomllib.loads(_FILE.read_text(encoding="utf-8")), _Rows).deviation
    except (ValueError, msgspec.ValidationError) as error:
        raise ScriptMalformed(f"{_FILE.name}: {error}") from error
    found: dict[str, dict[str, Deviation]] = {}
    for row in rows:
        for profile in row.profiles:
            if found.setdefault(profile, {}).setdefault(row.script, row) is not row:
                raise ScriptMalformed(f"{_FILE.name}: {row.script} is there twice for {profile}")
    return found
