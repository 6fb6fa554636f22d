"""Device policies in TOML, JSON and the short form: read or refused, and what is read is written back."""

from __future__ import annotations

import atheris

from tests.support.fuzzing import fuzz

with atheris.instrument_imports(include=["cardwright_cardops", "cardwright_clients"]):
    from tests.support import hostile


def one(raw: bytes) -> None:
    hostile.policy(raw)


if __name__ == "__main__":
    fuzz(one, hostile.policy_seeds())
