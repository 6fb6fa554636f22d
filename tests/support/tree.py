"""The source tree as the structure tests see it: which folders, which files, which imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

PARTS = ("proto", "cardops", "simulators", "daemon", "server", "clients")
"""Folders that hold one package each, ``cardwright_<folder>``."""

GENERATED = ("*_pb2.py", "*_pb2_grpc.py")

_NAMES_OUR_MODULE = re.compile(rf"(cardwright_(?:{'|'.join(PARTS)})(?:\.\w+)*)(?::\w+)?")
_IMPORTERS = {"import_module", "__import__", "importorskip"}


@dataclass(frozen=True, slots=True)
class Import:
    """One module that a file imports. ``lazy``: not when the file itself is imported."""

    module: str
    line: int
    lazy: bool


def python_files(*folders: str, generated: bool = False) -> Iterator[Path]:
    """Every Python file below the folders, which are relative to the repository."""
    for folder in folders:
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            if generated or not any(fnmatch(path.name, pattern) for pattern in GENERATED):
                yield path


def module_name(path: Path) -> str:
    """Dotted name of a file of one of the PARTS; a package's ``__init__`` gives the package."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str, is_package: bool = False) -> list[Import]:
    """Everything that ``source``, the text of ``module``, imports: anywhere in it, relative or absolute.

    ``from a import b`` counts as ``a.b``, since b may be a module; whoever checks compares prefixes. A string that
    spells a module of ours counts as a lazy import, for that is how click's lazy groups and entry points name them;
    so does the literal argument of ``import_module`` and its like.
    """
    package = module.split(".") if is_package else module.split(".")[:-1]
    found: list[Import] = []

    def visit(node: ast.AST, lazy: bool) -> None:
        match node:
            case ast.Import(names=names):
                found.extend(Import(name.name, node.lineno, lazy) for name in names)
            case ast.ImportFrom(module=base, names=names, level=level):
                above = package[: len(package) - level + 1] if level else []
                stem = ".".join([*above, *([base] if base else [])])
                found.extend(Import(f"{stem}.{name.name}", node.lineno, lazy) for name in names)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[ast.Constant(value=str(text)), *_]):
                if name in _IMPORTERS and text.replace(".", "_").isidentifier():
                    found.append(Import(text, node.lineno, True))
            case ast.Constant(value=str(text)) if ours := _NAMES_OUR_MODULE.fullmatch(text):
                found.append(Import(ours[1], node.lineno, True))
            case _:
                pass
        body_is_lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and _is_type_checking(node.test):
            for statement in node.body:
                visit(statement, True)
            for statement in node.orelse:
                visit(statement, lazy)
            return
        for child in ast.iter_child_nodes(node):
            visit(child, body_is_lazy)

    visit(ast.parse(source), False)
    return found


def _is_type_checking(test: ast.expr) -> bool:
    return isinstance(test, ast.Name | ast.Attribute) and ast.unparse(test).endswith("TYPE_CHECKING")


def imports_of(path: Path) -> list[Import]:
    """What a file of one of the PARTS imports."""
    return imports(path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py")


def within(module: str, package: str) -> bool:
    """Whether ``module`` is ``package`` or lies in it."""
    return module == package or module.startswith(package + ".")
