"""A Connection that follows a script: each expected command with its answer, or the error it ends in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from cardwright_cardops.transport.connection import Interface, Link, Transmission, TransportError

T = TypeVar("T")


class ScriptedCard:
    """``script`` holds (command hex, answer hex or TransportError); spaces in hex are for the reader's eye."""

    def __init__(
        self,
        script: Sequence[tuple[str, str | TransportError]],
        *,
        transmission: Transmission = Transmission.T1,
        interface: Interface = Interface.CONTACT,
    ) -> None:
        self._script = list(script)
        self.link = Link("scripted", b"\x3b\x00", transmission, interface)
        self.events: list[str] = []

    def transmit(self, command: bytes) -> bytes:
        assert self._script, f"nothing more was expected, got {command.hex()}"
        expected, answer = self._script.pop(0)
        assert command.hex() == expected.replace(" ", "").lower()
        self.events.append("transmit")
        if isinstance(answer, TransportError):
            raise answer
        return bytes.fromhex(answer)

    def perform(self, work: Callable[[], T]) -> T:
        return work()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.events.append("begin")
        try:
            yield
        finally:
            self.events.append("end")

    def reset(self) -> None:
        self.events.append("reset")

    def close(self) -> None:
        self.events.append("close")

    def done(self) -> None:
        """The whole script was used."""
        assert not self._script, f"{len(self._script)} commands were not sent"
