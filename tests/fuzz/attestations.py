"""Statements that a token signed: read or refused with AttestationInvalid."""

from __future__ import annotations

import atheris

from tests.support.fuzzing import fuzz

with atheris.instrument_imports(include=["cardwright_cardops"]):
    from tests.support import hostile


def one(raw: bytes) -> None:
    hostile.attestation(raw)


if __name__ == "__main__":
    fuzz(one, hostile.attestation_seeds())
