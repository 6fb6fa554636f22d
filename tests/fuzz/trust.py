"""Trust anchors, CRLs and OCSP responses from files, also such as an authority signed: a report, or refused."""

from __future__ import annotations

import atheris

from tests.support.fuzzing import fuzz

with atheris.instrument_imports(include=["cardwright_cardops"]):
    from tests.support import hostile


def one(raw: bytes) -> None:
    """The first octet chooses: a file as it is, or what an authority signed."""
    if raw[:1] >= b"\2":
        hostile.trust(raw[1:])
    else:
        hostile.believed(raw)


if __name__ == "__main__":
    fuzz(one, [b"\2" + seed for seed in hostile.trust_seeds()] + hostile.believed_seeds())
