"""docs/threat-model.md: every claim is held by tests that exist, or belongs to a part that is not built yet."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.tree import PARTS, REPOSITORY, python_files

TEXT = (REPOSITORY / "docs" / "threat-model.md").read_text(encoding="utf-8")


def rows(head: str) -> list[list[str]]:
    """Cells of the rows of the table whose first column is called ``head``."""
    table = TEXT.partition(f"\n| {head} |")[2].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


BEING_BUILT: set[str] = set()
"""Claims that do not hold yet although their part has code. This set only shrinks."""

ADVERSARIES = {name for name, _ in rows("Name")}
CLAIMS = rows("Claim")


def functions_in(place: str) -> list[str]:
    """Names of the test functions in a test file, or in all files of a folder."""
    path = REPOSITORY / place
    files = [path] if path.is_file() else list(path.rglob("test_*.py"))
    return [
        node.name
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]


def test_claims_are_named_once() -> None:
    names = [row[0] for row in CLAIMS]
    assert len(names) > 25
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize(("name", "against", "what", "held_by"), CLAIMS, ids=[row[0] for row in CLAIMS])
def test_claim_is_held(name: str, against: str, what: str, held_by: str) -> None:
    assert set(against.split(", ")) <= ADVERSARIES
    assert what.endswith(".")
    if unbuilt := re.fullmatch(r"not built: (\w+)", held_by):
        assert unbuilt[1] in PARTS
        code = [path for path in python_files(unbuilt[1]) if path.name != "__init__.py"]
        assert code == [], f"{unbuilt[1]} holds code now: name the tests of {name}"
        return
    if building := re.fullmatch(r"being built: (\w+)", held_by):
        assert building[1] in PARTS and name in BEING_BUILT
        return
    assert name not in BEING_BUILT, f"{name} has its test now: take it out of BEING_BUILT"
    places = re.findall(r"`([^`]+)`", held_by)
    assert held_by == ", ".join(f"`{place}`" for place in places)
    for place in places:
        path, _, function = place.partition("::")
        found = functions_in(path)
        assert found, f"{path} holds no test"
        assert not function or function in found, f"{place} is no test"
