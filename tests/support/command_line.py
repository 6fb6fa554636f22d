"""The command line in this process, on virtual cards: what it printed, and its exit code."""

from __future__ import annotations

import contextlib
import io
import json
import os
from dataclasses import dataclass
from typing import Any

from cardwright_cardops.transport.connection import CardUnresponsive, Connection
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_clients.cli.cards import DirectCards, ReaderSummary
from cardwright_clients.cli.main import main
from cardwright_simulators.card import VirtualCard
from tests.support.virtual import POOL


@dataclass(frozen=True, slots=True)
class Ran:
    """One run."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What was printed, as JSON."""
        return json.loads(self.out)


class Desk:
    """Virtual cards in readers, and a command line in front of them."""

    def __init__(self, **cards: VirtualCard | str) -> None:
        self.cards = {
            name: card if isinstance(card, VirtualCard) else VirtualCard(card, key_pool=POOL)
            for name, card in cards.items()
        }
        self.mute: set[str] = set()
        self.direct = DirectCards(self._readers, self._connect)

    def _readers(self) -> tuple[ReaderSummary, ...]:
        return tuple(
            ReaderSummary(name, b"" if name in self.mute else card.atr, name in self.mute)
            for name, card in self.cards.items()
        )

    def _connect(self, reader: str) -> Connection:
        if reader in self.mute:
            raise CardUnresponsive("The card does not answer.", reader=reader, sent=False)
        return DirectConnection(self.cards[reader], reader=reader)

    def run(self, *arguments: str, secrets: str | None = None) -> Ran:
        """``secrets``: the lines for --secrets-fd, which is added."""
        given = list(arguments)
        with contextlib.ExitStack() as stack:
            if secrets is not None:
                reading, writing = os.pipe()
                stack.callback(os.close, reading)
                os.write(writing, secrets.encode())
                os.close(writing)
                given += ["--secrets-fd", str(reading)]
            out, err = _Captured(), _Captured()
            stack.enter_context(contextlib.redirect_stdout(out))
            stack.enter_context(contextlib.redirect_stderr(err))
            try:
                main(given, self.direct)
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1
        return Ran(code, out.text, err.text)


class _Captured(io.TextIOWrapper):
    """A standard stream that takes text and octets."""

    def __init__(self) -> None:
        self._octets = io.BytesIO()
        super().__init__(self._octets, encoding="utf-8", write_through=True)

    @property
    def text(self) -> str:
        return self._octets.getvalue().decode()
