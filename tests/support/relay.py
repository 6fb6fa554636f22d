"""Counting APDUs and octets from outside: between vpcd and a card, or around a card in this process.

Octets are those of the APDUs, headers and status words included, without the lengths that vpcd puts before them.
"""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass
from types import TracebackType

from cardwright_simulators.reader.around import Around
from cardwright_simulators.reader.slot import Card
from cardwright_simulators.reader.vpicc import Vpicc, receive

_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went to a card and came back; ``refused`` are the answers that say neither 9000 nor 61xx."""

    apdus: int = 0
    octets_out: int = 0
    octets_in: int = 0
    refused: int = 0

    def __sub__(self, before: Traffic) -> Traffic:
        return Traffic(
            self.apdus - before.apdus,
            self.octets_out - before.octets_out,
            self.octets_in - before.octets_in,
            self.refused - before.refused,
        )


class _Tally:
    def __init__(self) -> None:
        self.traffic = Traffic()

    def note(self, command: bytes, answer: bytes) -> None:
        now, refused = self.traffic, answer[-2:] != b"\x90\x00" and answer[-2:-1] != b"\x61"
        self.traffic = Traffic(
            now.apdus + 1, now.octets_out + len(command), now.octets_in + len(answer), now.refused + refused
        )


class CountedCard(Around[Card]):
    """A card with its ``traffic`` counted."""

    def __init__(self, card: Card) -> None:
        super().__init__(card)
        self._tally = _Tally()

    @property
    def traffic(self) -> Traffic:
        """All since the card was made."""
        return self._tally.traffic

    def transmit(self, command: bytes) -> bytes:
        """To the card and back."""
        answer = self.inside.transmit(command)
        self._tally.note(command, answer)
        return answer


class CountingRelay:
    """``card`` in the slot of vpcd that listens on ``port``, and a relay on the wire between the two.

    A context manager: inside, the card is in (pcscd takes up to 0.4 s to notice), afterwards it is out. The relay
    passes on whole messages as they are and knows nothing of cards but that a message of one octet is vpcd's own.
    """

    def __init__(self, card: Card, port: int) -> None:
        self._card = card
        self._port = port
        self._tally = _Tally()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._command = b""
        self._vpicc: Vpicc | None = None

    @property
    def traffic(self) -> Traffic:
        """All since the card was put in."""
        return self._tally.traffic

    def __enter__(self) -> CountingRelay:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self._vpicc = Vpicc(self._card, port=listening.getsockname()[1]).start()
            listening.settimeout(_PATIENCE)
            card, _ = listening.accept()
        vpcd = socket.create_connection(("127.0.0.1", self._port), timeout=_PATIENCE)
        self._sockets = [vpcd, card]
        for end in self._sockets:
            end.settimeout(None)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._threads = [
            threading.Thread(target=self._pass_on, args=(vpcd, card, True), name="relay to the card", daemon=True),
            threading.Thread(target=self._pass_on, args=(card, vpcd, False), name="relay from the card", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._vpicc is not None
        self._vpicc.stop()
        self._hang_up()
        for thread in self._threads:
            thread.join(_PATIENCE)
        for end in self._sockets:
            end.close()

    def _pass_on(self, source: socket.socket, target: socket.socket, outward: bool) -> None:
        try:
            while message := receive(source):
                if outward:
                    self._command = message
                elif len(self._command) > 1:
                    self._tally.note(self._command, message)
                target.sendall(len(message).to_bytes(2, "big") + message)
        except OSError:
            pass  # the other end hung up first
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        """When one end is gone the other must see it: a pulled card leaves the reader."""
        for end in self._sockets:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
