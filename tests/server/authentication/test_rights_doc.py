"""docs/rights.md is what the matrix says."""

from __future__ import annotations

from cardwright_server.authentication.matrix import RULES
from scripts.rights_doc import DOCUMENT, row, text


def test_document_is_what_the_matrix_says() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == text(), "run: make docs"


def test_a_row_says_all_of_a_rule() -> None:
    call = "DeviceService.Terminate"
    assert row(call, RULES[call]) == (f"`{call}`", "help-desk", "holder", "", "the server", "own", "")
    call = "RequestService.Approve"
    roles = "issuance, security-officer"
    assert row(call, RULES[call]) == (f"`{call}`", roles, "holder", "", "", "own, asked for", "approve")
    call = "SystemService.EnrolFirstOperator"
    assert row(call, RULES[call]) == (f"`{call}`", "", "", "", "anyone on its own socket", "", "")
    assert text().count("\n| `") == len(RULES)
