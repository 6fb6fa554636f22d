"""The judge itself: it sees every kind of fault, and imports nothing that it judges."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cardwright_cardops.plan.records import Kind, MemoryJournal
from tests.oracle.card import Expected, judge
from tests.support.card_init import CASES, NOW, PIN, PUK, TOKEN, values_of

Memory = dict[str, Any]
REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def good() -> tuple[bytes, Expected]:
    case, journal = CASES["yubikey-5.7"], MemoryJournal()
    card = case.card()
    case.run(card, journal)
    return card.snapshot(), Expected(TOKEN, PIN, PUK, frozenset(values_of(journal, Kind.MANAGEMENT_KEY)), now=NOW)


def put(*path: str, value: Any) -> Callable[[Memory], None]:
    def change(memory: Memory) -> None:
        for name in path[:-1]:
            memory = memory[name]
        memory[path[-1]] = value

    return change


def drop(*path: str) -> Callable[[Memory], None]:
    def change(memory: Memory) -> None:
        for name in path[:-1]:
            memory = memory[name]
        del memory[path[-1]]

    return change


def swap_certificates(memory: Memory) -> None:
    objects = memory["objects"]
    objects["5FC105"], objects["5FC10A"] = objects["5FC10A"], objects["5FC105"]


def flip(tag: str, at: int) -> Callable[[Memory], None]:
    def change(memory: Memory) -> None:
        raw = bytearray.fromhex(memory["objects"][tag])
        raw[at] ^= 1
        memory["objects"][tag] = raw.hex()

    return change


def end_in_2020(memory: Memory) -> None:
    raw = bytearray.fromhex(memory["objects"]["5FC102"])
    raw[49:53] = b"2020"
    memory["objects"]["5FC102"] = raw.hex()


FAULTS = {
    "factory PIN": put("references", "80", "value", value=b"123456\xff\xff".hex()),
    "another PIN": put("references", "80", "value", value=b"111111\xff\xff".hex()),
    "factory PUK": put("references", "81", "value", value=b"12345678".hex()),
    "a try spent": put("references", "81", "tries", value=2),
    "factory management key": put("management", "value", value="0102030405060708" * 3),
    "unrecorded management key": put("management", "value", value="AA" * 24),
    "no CHUID": drop("objects", "5FC102"),
    "no CCC": put("objects", "5FC107", value=""),
    "GUID": flip("5FC102", 2 + 2 + 25 + 2),
    "FASC-N": flip("5FC102", 6),
    "expired": end_in_2020,
    "no key": drop("keys", "9C"),
    "a key too many": lambda memory: memory["keys"].update({"82": memory["keys"]["9C"]}),
    "an object too many": put("objects", "5FC109", value="5300"),
    "imported instead of generated": put("keys", "9A", "generated", value=False),
    "no certificate": drop("objects", "5FC101"),
    "certificates swapped": swap_certificates,
    "signature": flip("5FC105", -8),
}


def test_a_good_card_has_no_faults(good: tuple[bytes, Expected]) -> None:
    assert judge(*good) == []


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_every_fault_is_seen(good: tuple[bytes, Expected], fault: Callable[[Memory], None]) -> None:
    memory = json.loads(good[0])
    fault(memory)
    assert judge(json.dumps(memory).encode(), good[1]) != []


def test_the_judge_imports_nothing_that_it_judges() -> None:
    tree = ast.parse((REPOSITORY / "tests" / "oracle" / "card.py").read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in names if name.startswith(("cardwright", ".", "tests"))]
