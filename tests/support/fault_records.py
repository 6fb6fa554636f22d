"""Every record of sessions, issuance and escrow that is committed before something happens, and what holds it.

``HELD`` names for each record the mutants that leave it out. ``CARRIED`` are those without one: docs/testing.md says of
each why another record, or a test elsewhere, carries it. ``found`` lists what the code has; a test compares.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event

from cardwright_cardops.plan.records import Kind
from cardwright_server.store.unit import Database
from tests.support.tree import REPOSITORY

DOMAINS = ("sessions", "issuance", "escrow")
_SERVER = REPOSITORY / "server" / "cardwright_server"
_WRITTEN = re.compile(r"(?:INSERT INTO|UPDATE|DELETE FROM) (\w+)")
CONFIRMATIONS = frozenset(
    {
        *(Kind.MANAGEMENT_KEY_SET, Kind.MANAGEMENT_KEY_REFUSED, Kind.PUK_SET, Kind.PIN_SET),
        *(Kind.WRITTEN, Kind.RESET_DONE),
    }
)
"""What is kept after the card said so: lost ones are found out by the card."""

HELD: dict[str, tuple[str, ...]] = {
    "entry card": ("card UUID that the card gets",),
    "entry management_key": ("management key that is about to be set",),
    "entry puk": ("PUK that is about to be set", "PUK that unlocking is about to set"),
    "entry generating": ("key that goes by a GENERATE",),
    "entry key": ("key that is about to be imported",),
    "entry certificate": ("certificate that came late",),
    "ledger commit": ("journal before the batch",),
    "ledger key": ("where a key came from",),
    "ledger later": ("plan that was shown",),
    "ledger note": ("certificate that came late",),
    "ledger put": ("content of objects",),
    "medium sessions/ledger.py within record_event": ("secrets on the second medium",),
    "medium sessions/ledger.py within key_event": ("key of the card on the second medium",),
    "medium issuance/service.py keep issue_event": ("certificate on the second medium",),
    "medium issuance/service.py _keep_signed signed_event": ("signature on the second medium",),
    "medium issuance/service.py _adopt issue_event": ("late certificate on the second medium",),
    "medium issuance/status.py revoke revoke_event": ("revocation on the second medium",),
    "medium issuance/status.py _take_hold hold_event": ("release on the second medium",),
    "medium escrow/archive.py _archived archive_event": ("escrowed key on the second medium",),
    "medium escrow/archive.py bind archive_event": ("escrowed key's certificate on the second medium",),
    "table audit_entry": ("audit",),
    "table card_key": ("where a key came from",),
    "table card_object": ("content of objects",),
    "table card_record": ("journal before the batch",),
    "table card_session": ("plan that was shown",),
    "table certificate_order": ("serial number and content before the signature",),
    "table device": ("request that is carried out",),
    "table device_due": ("PUK that a workstation is about to see",),
    "table device_request": ("request that is carried out",),
    "table escrow_release": ("key that leaves the archive",),
    "table escrowed_key": ("escrowed key in the archive",),
    "table issued_certificate": ("serial number and content before the signature",),
}
CARRIED = (
    "entry pin",
    "entry reset",
    "entry retries",
    "medium escrow/rewrap.py _keep archive_event",
    "medium escrow/service.py _step offer_event",
    "medium issuance/service.py _give_up revoke_event",
    "medium issuance/status.py hold hold_event",
    "table audit_detail",
    "table card_session_transition",
    "table device_hold",
    "table device_number",
    "table device_request_transition",
    "table device_transition",
    "table escrowed_key_transition",
    "table lease",
    "table outbox",
)


def entries() -> set[str]:
    """Kinds of entries of a card's journal that come before what they say."""
    return {f"entry {kind.name.lower()}" for kind in Kind if kind not in CONFIRMATIONS}


def calls() -> set[str]:
    """What the code of the three domains hands to the ledger, and to the second medium, and where."""
    found = set()
    for domain in DOMAINS:
        for path in sorted((_SERVER / domain).glob("*.py")):
            for name, call in _calls(ast.parse(path.read_text("utf-8"))):
                function = call.func
                assert isinstance(function, ast.Attribute)
                if function.attr == "beforehand":
                    (said,) = call.args
                    assert isinstance(said, ast.Call) and isinstance(said.func, ast.Name), ast.dump(said)
                    found.add(f"medium {domain}/{path.name} {name} {said.func.id}")
                elif function.attr in ("note", "put", "key", "later", "commit") and _is_ledger(function.value):
                    found.add(f"ledger {function.attr}")
    return found


def _calls(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.Call]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield inside, node
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from _calls(node, node.name if is_function else inside)  # type: ignore[attr-defined]


def _is_ledger(value: ast.expr) -> bool:
    return (isinstance(value, ast.Name) and value.id == "ledger") or (
        isinstance(value, ast.Attribute) and value.attr in ("ledger", "_ledger")
    )


@contextmanager
def tables_written(database: Database) -> Iterator[set[str]]:
    """Tables that were written to while inside, as ``table NAME``."""
    seen: set[str] = set()

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if told := _WRITTEN.match(statement):
            seen.add(f"table {told[1]}")

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(database.engine.sync_engine, "before_cursor_execute", note)


def described() -> set[str]:
    """Records that docs/testing.md has a line about."""
    text = (Path(REPOSITORY) / "docs" / "testing.md").read_text("utf-8")
    rows = re.findall(r"^\| (`(?:entry|medium|table) [^|]+) \|", text, re.MULTILINE)
    return {name for row in rows for name in re.findall("`([^`]+)`", row)}
