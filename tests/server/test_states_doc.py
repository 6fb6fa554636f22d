"""docs/states.md is what the machines say."""

from __future__ import annotations

from scripts.states_doc import DOCUMENT, text


def test_document_is_what_the_machines_say() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == text(), "run: make docs"
