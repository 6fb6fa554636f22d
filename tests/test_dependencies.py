"""Each dependency has a reason and a use, and nothing is used that is not declared."""

from __future__ import annotations

import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from tests.support.tree import PARTS, REPOSITORY, imports, python_files

OWN_TOPS = {f"cardwright_{part}" for part in PARTS} | {"tests", "scripts", "bench"}
EXTRAS = ("test", "fuzz")
USES = {"import", "command", "plugin", "types"}
VISIBLE = {"run": PARTS, "test": ("tests", "scripts", "bench"), "fuzz": ("tests/fuzz",)}
"""Where what is declared for something has to be imported."""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> dict[str, str]:
    """Canonical name of each declared dependency, and what it is for: run, test or fuzz."""
    project: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements: list[str]) -> list[str]:
        return [canonical(re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]) for requirement in requirements]

    assert set(project["optional-dependencies"]) == set(EXTRAS)
    found = dict.fromkeys(names(project["dependencies"]), "run")
    for extra in EXTRAS:
        found |= dict.fromkeys(names(project["optional-dependencies"][extra]), extra)
    return found


def documented() -> dict[str, tuple[str, str, str]]:
    """Rows of docs/dependencies.md: name to (for, used as, why)."""
    text = (REPOSITORY / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {name: (purpose, use, why) for name, purpose, use, why in rows[2:]}


def imported(*folders: str) -> dict[str, set[Path]]:
    """Distributions that the files below the folders import from, and the files."""
    providers = packages_distributions()
    found: dict[str, set[Path]] = defaultdict(set)
    for path in python_files(*folders, generated=True):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        module = ".".join(parts[1:] if parts[0] in PARTS else parts)
        for top in {item.module.split(".")[0] for item in imports(path.read_text(encoding="utf-8"), module)}:
            if top and top not in sys.stdlib_module_names and top not in OWN_TOPS:
                found[_distribution(top, providers)].add(path)
    return found


def _distribution(top: str, providers: Mapping[str, list[str]]) -> str:
    if top == "google":  # a namespace of several distributions; the contract modules use protobuf's part of it
        return "protobuf"
    # Packages of an extra that is not installed here are called like what they provide.
    return canonical(providers.get(top, [top])[0])


def test_each_dependency_has_a_reason_and_each_reason_a_dependency() -> None:
    rows = documented()
    assert {name: purpose for name, (purpose, _, _) in rows.items()} == declared()
    assert {use for _, use, _ in rows.values()} <= USES
    assert [name for name, (_, _, why) in rows.items() if len(why) < 10 or not why.endswith(".")] == []


def test_what_is_for_import_is_imported() -> None:
    used = {purpose: imported(*folders) for purpose, folders in VISIBLE.items()}
    unused = [name for name, (purpose, use, _) in documented().items() if use == "import" and name not in used[purpose]]
    assert unused == []


def test_nothing_undeclared_is_imported() -> None:
    names = declared()
    allowed = {name for name, purpose in names.items() if purpose == "run"}
    undeclared = {name: files for name, files in imported(*PARTS).items() if name not in allowed}
    undeclared |= {name: files for name, files in imported("tests", "scripts", "bench").items() if name not in names}
    assert undeclared == {}


def test_everything_declared_is_pinned_and_pins_are_exact() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.+!]*", line)] == []
    assert declared().keys() - {canonical(line.split("==")[0]) for line in pins} == set()


def test_each_system_package_has_a_reason() -> None:
    lines = (REPOSITORY / "packages.txt").read_text(encoding="utf-8").splitlines()
    packages = [line for line in lines if line and not line.startswith("#")]
    assert len(packages) >= 10
    shape = r"(distribution-python: )?[a-z0-9][a-z0-9.+-]+ +# .{10,}"
    assert [line for line in packages if not re.fullmatch(shape, line)] == []
