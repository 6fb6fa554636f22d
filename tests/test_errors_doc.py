"""docs/errors.md lists every error code there is, and each says what happened and what to do."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from cardwright_cardops.errors import CardwrightError
from scripts.errors_doc import DOCUMENT, error_classes, meaning, row, with_table

CLASSES = error_classes()


def test_document_is_what_the_classes_say() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == with_table(text), "run: make docs"


def test_codes_are_unique_and_upper_snake() -> None:
    counts = Counter(cls.code for cls in CLASSES)
    assert [code for code, times in counts.items() if times > 1] == []
    assert [code for code in counts if not re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*", code)] == []


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.code)
def test_every_code_says_what_happened_and_what_to_do(cls: type[CardwrightError]) -> None:
    assert meaning(cls), "give the class a docstring"
    assert cls.default_advice, "give the class a default_advice"
    for text in (meaning(cls), cls.default_effect, cls.default_advice):
        assert not text or text.endswith((".", "?", ")")), f"a sentence, please: {text}"


def test_table_is_replaced_whole() -> None:
    head = "| Code | What happened | What it means for the card | What to do |"
    text = f"before\n\n{head}\n| --- | --- | --- | --- |\n| `DEAD` | x | y | z |\n\nafter\n"
    today = with_table(text)
    assert "DEAD" not in today
    assert today.startswith(f"before\n\n{head}\n")
    assert today.endswith(f"{row(CLASSES[-1])}\n\nafter\n")
    assert with_table(today) == today
    with pytest.raises(ValueError, match="no table"):
        with_table("nothing here")
