"""Every relative link between the documents leads to something."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.tree import REPOSITORY

DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8"))
    assert [one for one in targets if "://" not in one and not (document.parent / one).exists()] == []
