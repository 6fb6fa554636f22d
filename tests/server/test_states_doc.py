"""docs/states.md is what the machines say, and every machine in it is walked over by several clients at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from scripts.states_doc import DOCUMENT, machines, text

SERVER = Path(__file__).parent
WALKS: Mapping[str, str] = {
    "PFX offer": "escrow/test_walk.py::test_a_walk",
    "authentication method": "authentication/test_walk.py::test_walks_of_many_at_once",
    "card session": "sessions/test_walk.py::test_walks_over_sessions",
    "certificate": "issuance/test_walks.py::test_walks_over_certificates",
    "certificate order": "issuance/test_walks.py::test_walks_over_orders",
    "device": "devices/test_walks.py::test_walks_over_devices",
    "enrolment token": "workstations/test_enrolment.py::test_walks_over_tokens_and_workstations",
    "escrowed key": "escrow/test_walk.py::test_a_walk",
    "key recovery": "escrow/test_recover.py::test_walks_over_recoveries",
    "policy version": "policies/test_policies.py::test_walks_over_versions",
    "request": "requests/test_requests.py::test_walks_over_requests",
    "workstation": "workstations/test_enrolment.py::test_walks_over_tokens_and_workstations",
}
"""Which test walks over which machine."""


def test_document_is_what_the_machines_say() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == text(), "run: make docs"


def test_every_machine_is_walked_over() -> None:
    assert machines().keys() == WALKS.keys()
    for name, place in WALKS.items():
        file, _, function = place.partition("::")
        assert f"def {function}(" in (SERVER / file).read_text(encoding="utf-8"), f"{name} is walked by no {place}"
