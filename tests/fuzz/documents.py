"""Inventories, plans and answers, as kept and as sent: the same value again, or a documented error."""

from __future__ import annotations

import atheris

from tests.support.fuzzing import fuzz

with atheris.instrument_imports(include=["cardwright_cardops"]):
    from tests.support import hostile


def one(raw: bytes) -> None:
    hostile.inventory_document(raw)
    hostile.documents_on_the_wire(raw)


if __name__ == "__main__":
    fuzz(one, hostile.documents_on_the_wire_seeds())
