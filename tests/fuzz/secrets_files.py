"""Secrets files of ``card init``, and private key files: read or refused with a documented error."""

from __future__ import annotations

import atheris

from tests.support.fuzzing import fuzz

with atheris.instrument_imports(include=["cardwright_cardops", "cardwright_clients"]):
    from tests.support import hostile


def one(raw: bytes) -> None:
    hostile.secrets_file(raw)
    hostile.key_file(raw)


if __name__ == "__main__":
    fuzz(one, hostile.secrets_file_seeds() + hostile.key_file_seeds())
