"""What every fuzz target needs: its seeds put into the corpus, then atheris."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import atheris


def fuzz(one: Callable[[bytes], None], seeds: Iterable[bytes] = ()) -> None:
    """Call ``one`` with ever new input until libFuzzer's own arguments say stop, or ``one`` raises.

    ``seeds`` are good inputs to start from; they go into the corpus, the first argument that is no option.
    """
    corpus = next((Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")), None)
    if corpus is not None:
        for seed in seeds:
            (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
