"""The tree keeps its shape: one package per folder, no stray packages, no file that is two ideas, a clean wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.tree import PARTS, REPOSITORY, python_files

LONGEST_FILE = 600
ADDRESS_FREE = ("Makefile", ".ci", "scripts", "packages.txt", "constraints.txt", "pyproject.toml")
"""What tells machines where to get things. Where from is the machine's own configuration, never ours."""


@pytest.mark.parametrize("part", PARTS)
def test_folder_holds_exactly_its_package(part: str) -> None:
    folder = REPOSITORY / part
    packages = {path.name for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert packages == {f"cardwright_{part}"}
    assert not (folder / "__init__.py").exists(), "it would hide packages of that name in site-packages"
    assert (folder / f"cardwright_{part}" / "__init__.py").is_file()
    assert (folder / f"cardwright_{part}" / "py.typed").is_file()


def test_every_code_folder_in_a_package_is_a_package() -> None:
    folders = {path.parent for path in python_files(*PARTS, generated=True)}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_tests_are_no_packages() -> None:
    assert list((REPOSITORY / "tests").rglob("__init__.py")) == []
    assert not (REPOSITORY / "__init__.py").exists()


def test_no_file_is_too_long() -> None:
    long = {
        str(path.relative_to(REPOSITORY)): lines
        for path in python_files(*PARTS, "tests", "bench", "scripts")
        if (lines := path.read_bytes().count(b"\n")) > LONGEST_FILE
    }
    assert long == {}


def test_no_address_where_things_are_fetched_from() -> None:
    files = [
        path
        for name in ADDRESS_FREE
        for path in ((REPOSITORY / name).rglob("*") if (REPOSITORY / name).is_dir() else [REPOSITORY / name])
        if path.is_file() and path.suffix != ".pyc"
    ]
    assert len(files) >= 10
    bad = [str(path.relative_to(REPOSITORY)) for path in files if "://" in path.read_text(encoding="utf-8")]
    assert bad == []


def test_wheel_installs_only_our_packages(tmp_path: Path) -> None:
    # In a process of its own, as pip does it; without build isolation, so nothing is fetched.
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {f"cardwright_{part}" for part in PARTS}
    for part in PARTS:
        assert f"cardwright_{part}/py.typed" in names
