"""Card images and the files of virtual cards: read or refused, and an image that is read can be checked and used."""

from __future__ import annotations

import atheris

from tests.support.fuzzing import fuzz

with atheris.instrument_imports(include=["cardwright_cardops", "cardwright_simulators"]):
    from tests.support import hostile


def one(raw: bytes) -> None:
    hostile.image(raw)
    hostile.state(raw)


if __name__ == "__main__":
    fuzz(one, hostile.image_seeds())
