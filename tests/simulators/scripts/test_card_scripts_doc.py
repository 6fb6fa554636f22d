"""docs/card-scripts.md: its example runs and prints what it says, and it names every verb, field and value."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from cardwright_simulators.card import PROFILES
from cardwright_simulators.scripts.model import VERBS, Script
from tests.support.conformance import SCRIPTS, features, secrets

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "card-scripts.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def test_example_prints_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wrong-pin.toml").write_text(block("toml"))
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block("python"), "card-scripts.md", "exec"), {})
    assert f"This prints `{printed.getvalue().strip()}`" in TEXT


def test_every_verb_and_field_is_described() -> None:
    for verb, kind in VERBS.items():
        (row,) = (line for line in TEXT.splitlines() if line.startswith(f"| `{verb}` |"))
        fields = set(kind.__struct_fields__) - {"each", "needs", verb}
        assert {field for field in fields if f"`{field}`" not in row} == set()
    assert {field for field in Script.__struct_fields__ if f"`{field}`" not in TEXT} == {"macros"}


def test_every_value_and_feature_is_named() -> None:
    named = {name for profile in PROFILES.values() for name in secrets(profile)}
    assert {name for name in named if f"`{name}`" not in TEXT} == set()
    needed = {name for script in SCRIPTS.values() for name in script.needs}
    needed |= {name for profile in PROFILES.values() for name in features(profile)}
    assert {name for name in needed if f"`{name}`" not in TEXT} == set()
