"""Thin out a cosmic-ray session before it runs; scripts/mutants calls this with the session, how many it wants, and
the number of a sample.

Mutants that no test can notice go first: annotations are text at run time (every file has ``from __future__ import
annotations``), whether a dataclass is frozen or slotted is for the reader, and tests/mutants/equivalent.toml lists the
other ones, with reasons. Those that Python itself refuses go too, as they say nothing about the tests. If more remain
than wanted, a sample stays that is the same each time for the same code and number.
"""

from __future__ import annotations

import ast
import hashlib
import sys
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, WorkItem

EQUIVALENT = Path(__file__).resolve().parents[1] / "tests" / "mutants" / "equivalent.toml"

Span = tuple[tuple[int, int], tuple[int, int]]


@cache
def unnoticeable(path: Path) -> tuple[Span, ...]:
    """Start and end (line, column) of annotations and dataclass decorators in a file."""
    nodes: list[ast.expr | None] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.arg(annotation=annotation) | ast.AnnAssign(annotation=annotation):
                nodes.append(annotation)
            case ast.FunctionDef(returns=returns) | ast.AsyncFunctionDef(returns=returns):
                nodes.append(returns)
            case ast.ClassDef(decorator_list=decorators):
                nodes.extend(one for one in decorators if ast.unparse(one).startswith("dataclass"))
            case _:
                pass
    return tuple(
        ((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)) for node in nodes if node
    )


@cache
def equivalent() -> tuple[dict[str, dict[str, str]], dict[tuple[str, str], list[str]]]:
    """Operators whose mutants are all equivalent; and by file and line (its text) the operators that are there."""
    listed = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))
    return listed["operators"], {(one["file"], one["line"]): one["operators"] for one in listed["lines"]}


@cache
def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def is_equivalent(mutation: MutationSpec) -> bool:
    """Whether tests/mutants/equivalent.toml says that this mutation changes nothing that could be seen."""
    operators, places = equivalent()
    operator = mutation.operator_name.removeprefix("core/")
    line = lines(mutation.module_path)[mutation.start_pos[0] - 1].strip()
    there = places.get((str(mutation.module_path), line), [])
    return operator in operators or any(operator.startswith(one) for one in there)


@cache
def operators_in(path: Path) -> tuple[Span, ...]:
    """Where the binary operators of a file are: a star in a call, or a bar in a pattern, is none."""
    pairs = [
        (node.left, node.right) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.BinOp)
    ]  # fmt: skip
    return tuple(
        ((left.end_lineno or 0, left.end_col_offset or 0), (right.lineno, right.col_offset)) for left, right in pairs
    )


def within(mutation: MutationSpec, spans: Iterable[Span]) -> bool:
    """Whether what is changed lies in one of ``spans``."""
    return any(start <= tuple(mutation.start_pos) and tuple(mutation.end_pos) <= end for start, end in spans)


def is_refused(mutation: MutationSpec) -> bool:
    """Whether the changed file is no Python any more."""
    binary = mutation.operator_name.startswith("core/ReplaceBinaryOperator")
    return binary and not within(mutation, operators_in(mutation.module_path))


def noticeable(mutation: MutationSpec) -> bool:
    """Whether a test could see this mutation. Decorators are left to be removed whole, which does show."""
    if is_equivalent(mutation) or is_refused(mutation):
        return False
    return not within(mutation, unnoticeable(mutation.module_path))


def rank(item: WorkItem, sample: str) -> bytes:
    """The item's place in an order that is random but always the same for one ``sample``."""
    names = [f"{one.module_path}:{one.start_pos}:{one.operator_name}:{one.occurrence}" for one in item.mutations]
    return hashlib.sha256("|".join([sample, *names]).encode()).digest()


def main(session: str, most: int, sample: str) -> None:
    """Thin out ``session``; ``most`` of 0 means no limit."""
    with use_db(session, WorkDB.Mode.open) as work:
        every = list(work.work_items)
        kept = [item for item in every if all(map(noticeable, item.mutations))]
        kept.sort(key=lambda item: rank(item, sample))
        chosen = kept[:most] if most else kept
        work.clear()
        work.add_work_items(chosen)
    print(f"{len(every)} mutants, {len(kept)} of them noticeable, {len(chosen)} tried")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
