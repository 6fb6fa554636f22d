"""Thin out a cosmic-ray session before it runs; scripts/mutants calls this with the session and how many it wants.

Mutants that no test can notice go first: annotations are text at run time (every file has ``from __future__ import
annotations``), and whether a dataclass is frozen or slotted is for the reader. If more remain than wanted, a sample
stays that is the same each time for the same code.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from functools import cache
from pathlib import Path

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, WorkItem

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


def noticeable(mutation: MutationSpec) -> bool:
    """Whether a test could see this mutation. Decorators are left to be removed whole, which does show."""
    return not any(
        start <= tuple(mutation.start_pos) and tuple(mutation.end_pos) <= end
        for start, end in unnoticeable(mutation.module_path)
    )


def rank(item: WorkItem) -> bytes:
    """The item's place in an order that is random but always the same."""
    names = [f"{one.module_path}:{one.start_pos}:{one.operator_name}:{one.occurrence}" for one in item.mutations]
    return hashlib.sha256("|".join(names).encode()).digest()


def main(session: str, most: int) -> None:
    """Thin out ``session``; ``most`` of 0 means no limit."""
    with use_db(session, WorkDB.Mode.open) as work:
        every = list(work.work_items)
        kept = sorted((item for item in every if all(map(noticeable, item.mutations))), key=rank)
        chosen = kept[:most] if most else kept
        work.clear()
        work.add_work_items(chosen)
    print(f"{len(every)} mutants, {len(kept)} of them noticeable, {len(chosen)} tried")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
