"""Run the tests that can tell a mutant: ``mutants_run.py PACKAGE PYTEST-ARGUMENTS...``, in a copy of the tree.

The first run, on unchanged code, runs all tests, keeps a copy of the package and writes down which test enters which
function and how long it takes. Each later run finds the function that has changed since and runs the tests that enter
it, the quickest first, up to the first failure. A change outside of any function may show anywhere: all tests run,
those first that use the file. Tests that took more than ENOUGH seconds together are not waited for: what only the
later ones would find counts as not found.
"""

from __future__ import annotations

import ast
import json
import shutil
import sys
import threading
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from types import CodeType, FrameType

import pytest

KEPT = Path(".mutants")
ENOUGH = 30.0
"""Seconds, as the first run measured them."""
FULL = ["-q", "-x", "-p", "no:xdist", "-p", "no:anyio", "-p", "no:cacheprovider"]

Function = tuple[str, int]
"""File, and the line its definition begins at (that of the first decorator)."""


class Recorder:
    """Notes the functions of the package that each test enters. Those of a shared fixture count for the first test."""

    def __init__(self, package: Path) -> None:
        self.files = {str(path.resolve()): str(path) for path in package.rglob("*.py")}
        self.entered: dict[str, set[Function]] = defaultdict(set)
        self.seconds: dict[str, float] = defaultdict(float)
        self._now: set[Function] = set()
        self._foreign: set[CodeType] = set()

    def _trace(self, frame: FrameType, _event: str, _argument: object) -> None:
        code = frame.f_code
        if code in self._foreign:
            return
        path = self.files.get(code.co_filename)
        if path is None:
            self._foreign.add(code)
        else:
            self._now.add((path, code.co_firstlineno))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._now = self.entered[item.nodeid]
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration

    def write(self, path: Path) -> None:
        tests = {
            name: {"seconds": self.seconds[name], "enters": sorted(self.entered[name])} for name in self.entered
        }
        path.write_text(json.dumps(tests), encoding="utf-8")


class Chosen:
    """Leaves the tests of ``order`` only, in that order."""

    def __init__(self, order: list[str]) -> None:
        self.place = {name: index for index, name in enumerate(order)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((item for item in items if item.nodeid in self.place), key=lambda one: self.place[one.nodeid])


def changed(package: Path) -> Iterator[tuple[Path, set[int]]]:
    """Each file that is not as it was kept, with the lines (as they were) that are no longer the same."""
    for path in sorted(package.rglob("*.py")):
        before = (KEPT / path).read_text(encoding="utf-8").splitlines()
        after = path.read_text(encoding="utf-8").splitlines()
        if before == after:
            continue
        shortest = min(len(before), len(after))
        same = (index for index in range(shortest) if before[index] != after[index])
        first = next(same, shortest)
        tail = next((index for index in range(shortest - first) if before[-1 - index] != after[-1 - index]), None)
        last = len(before) - (shortest - first if tail is None else tail)
        yield path, set(range(first + 1, max(last, first + 1) + 1))


def function_around(path: Path, lines: set[int]) -> Function | None:
    """The innermost function that all ``lines`` of a kept file belong to."""
    found: Function | None = None
    for node in ast.walk(ast.parse((KEPT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            start = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            if start <= min(lines) and max(lines) <= (node.end_lineno or start) and (not found or found[1] < start):
                found = (str(path), start)
    return found


def order_for(package: Path) -> list[str]:
    """The tests to run, first to last."""
    tests = json.loads((KEPT / "tests.json").read_text(encoding="utf-8"))
    chosen: dict[str, int] = {}
    for path, lines in changed(package):
        function = function_around(path, lines)
        for name, test in tests.items():
            if function is None:
                rank = 0 if any(file == str(path) for file, _ in test["enters"]) else 1
                chosen[name] = min(rank, chosen.get(name, rank))
            elif list(function) in test["enters"]:
                chosen[name] = 0
    order = sorted(chosen, key=lambda name: (chosen[name], tests[name]["seconds"]))
    so_far = list(accumulate(tests[name]["seconds"] for name in order))
    return order[: max(1, bisect_right(so_far, ENOUGH))]


def main(package: Path, arguments: list[str]) -> int:
    """pytest's exit status; 0 where no test enters what changed."""
    if not KEPT.is_dir():
        # Bytecode makes later runs quicker. The package itself must have none: to Python, two changes within a second
        # look the same.
        sys.dont_write_bytecode = False
        recorder = Recorder(package)
        status = pytest.main([*FULL, *arguments], plugins=[recorder])
        for folder in list(package.rglob("__pycache__")):
            shutil.rmtree(folder)
        shutil.copytree(package, KEPT / package)
        recorder.write(KEPT / "tests.json")
        return status
    order = order_for(package)
    files = sorted({name.partition("::")[0] for name in order})
    return pytest.main([*FULL, *files], plugins=[Chosen(order)]) if files else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
