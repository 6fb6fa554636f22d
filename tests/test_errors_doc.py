"""docs/errors.md lists every error code there is, and each says what happened and what to do."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from cardwright_cardops.errors import CardwrightError
from scripts.errors_doc import DOCUMENT, error_classes, meaning, row, with_table


@pytest.fixture(scope="module")
def classes() -> list[type[CardwrightError]]:
    return error_classes()


def test_document_is_what_the_classes_say() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == with_table(text), "run: make docs"


def test_codes_are_unique_and_upper_snake(classes: list[type[CardwrightError]]) -> None:
    counts = Counter(cls.code for cls in classes)
    assert [code for code, times in counts.items() if times > 1] == []
    assert [code for code in counts if not re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*", code)] == []


def test_every_code_says_what_happened_and_what_to_do(classes: list[type[CardwrightError]]) -> None:
    lacking = [f"{cls.code} has no docstring" for cls in classes if not meaning(cls)]
    lacking += [f"{cls.code} has no default_advice" for cls in classes if not cls.default_advice]
    lacking += [
        f"{cls.code}: no sentence: {text}"
        for cls in classes
        for text in (meaning(cls), cls.default_effect, cls.default_advice)
        if text and not text.endswith((".", ")"))
    ]
    assert lacking == []


def test_table_is_replaced_whole(classes: list[type[CardwrightError]]) -> None:
    head = "| Code | What happened | What it means for the card | What to do |"
    text = f"before\n\n{head}\n| --- | --- | --- | --- |\n| `LONG_GONE` | x | y | z |\n\nafter\n"
    today = with_table(text)
    assert "LONG_GONE" not in today
    assert today.startswith(f"before\n\n{head}\n")
    assert today.endswith(f"{row(classes[-1])}\n\nafter\n")
    assert with_table(today) == today
    with pytest.raises(ValueError, match="no table"):
        with_table("nothing here")
