"""Good documents of JSON values, spoiled in ways that octets choose: what a fuzzer needs to get behind the syntax."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any, Final

_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 255, 256, 1 << 70, 0.5, 1e308, "", "0", "00", "FF", "zz", "9A", "\x00", "\ud800", "²",
    "9" * 5000, [], [None], {}, {"kind": "x"}, "default", "2026-01-01T00:00:00", "00000000-0000-0000-0000-000000000000",
)  # fmt: skip
_MOST: Final = 4


def mangled(document: Any, raw: bytes) -> Any:
    """A copy of ``document`` in which up to four nodes are replaced, dropped, doubled or swapped, as ``raw`` says."""
    made = {"": copy.deepcopy(document)}
    for at in range(0, min(len(raw) - 2, 3 * _MOST), 3):
        where, how, which = raw[at : at + 3]
        nodes = list(_nodes(made))
        place, name = nodes[where * 7 % len(nodes)]
        match how % 4:
            case 0:
                place[name] = _VALUES[which % len(_VALUES)]
            case 1 if isinstance(place, list) or name:
                del place[name]
            case 2:
                place[name] = [copy.deepcopy(place[name])] * (which % 3)
            case _:
                other, another = nodes[which * 5 % len(nodes)]
                place[name] = copy.deepcopy(other[another])
    return made.get("")


def as_octets(document: Any) -> bytes:
    """The document as JSON text, also where it holds what no UTF-8 can."""
    return json.dumps(document).encode()


def _nodes(place: Any) -> Iterator[tuple[Any, Any]]:
    """Every place where a value stands: its container, and its name or number there."""
    rows = place.items() if isinstance(place, dict) else enumerate(place) if isinstance(place, list) else ()
    for name, value in list(rows):
        yield place, name
        yield from _nodes(value)
