"""What ``cardwright`` sets up over a real pcscd, other people's tools read, check and use; and the reverse."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cardwright_cardops.piv.references import ACTIVE_SLOTS, Slot
from cardwright_cardops.plan.records import Kind
from cardwright_simulators.card.attestation import root_pem
from tests.support.strangers import (
    FACTORY_KEY,
    NEW_PIN,
    NEW_PUK,
    PIN,
    PUK,
    Seat,
    Seats,
    ToolFailed,
    Tools,
    Ykman,
    initialized,
    ours,
)

pytestmark = [pytest.mark.pcscd, pytest.mark.xdist_group("pcscd")]


class Cardwright:
    """Our command line as a process of its own."""

    def __init__(self, tools: Tools, reader: str) -> None:
        self._tools = tools
        self._reader = reader

    def __call__(self, *arguments: str | Path, secrets: str = "") -> str:
        """Run a command on the card in the reader; ``secrets`` are the lines of --secrets-fd."""
        return self._tools.run("cardwright", *arguments, "--reader", self._reader, *self._more(secrets),
                               given=secrets.encode())  # fmt: skip

    def _more(self, secrets: str) -> tuple[str, ...]:
        return ("--secrets-fd", "0") if secrets else ()
