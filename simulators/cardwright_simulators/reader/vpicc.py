"""The card side of vpcd, the virtual reader of vsmartcard that runs inside pcscd.

vpcd listens on one TCP port for each slot; whoever connects is the card in that slot. Each message is a
length of two octets, then the body; a body of one octet is 00 power off, 01 power on, 02 reset, or 04,
which asks for the ATR. Everything longer is a command APDU. Only 04 and APDUs are answered.
"""

from __future__ import annotations

import logging
import socket
import threading
from enum import IntEnum
from types import TracebackType
from typing import Final

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.transport.connection import CardRemoved, CardReset, TransportError

from .slot import Card

DEFAULT_PORT: Final = 0x8C7B
"""35963, of the first slot; the second slot listens on the port after it."""

_log = logging.getLogger(__name__)
_PATIENCE: Final = 1.0
READER_PATIENCE: Final = 5.0
"""Seconds in which a vpcd that has room asks for the ATR."""
_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)


class Control(IntEnum):
    """Bodies of one octet."""

    POWER_OFF = 0x00
    POWER_ON = 0x01
    RESET = 0x02
    ATR = 0x04


class VpcdUnreachable(CardwrightError):
    """Nothing listens where vpcd should."""

    code = "VPCD_UNREACHABLE"
    default_effect = "The virtual card is in no reader."
    default_advice = "Start pcscd with the vpcd driver (package vsmartcard-vpcd), or name its host and port."


class VpcdSilent(CardwrightError):
    """Something took the connection and asks nothing: vpcd serves one card a slot, and leaves others waiting."""

    code = "VPCD_SILENT"
    default_effect = "The virtual card is in no reader."
    default_advice = "Take out the card that is in this slot, or name another slot: they are one port apart."


class Vpicc:
    """A card in a slot of vpcd, served by a thread of its own from ``start`` until ``stop``.

    A context manager. When the card raises CardRemoved the slot stays empty (``removed`` is set); when it
    raises CardReset it gets the command again, because vpcd has no word for that; with any other
    TransportError, or an empty answer, the contact and the power break and come back, as with a dirty card.
    """

    def __init__(self, card: Card, host: str = "127.0.0.1", port: int = DEFAULT_PORT) -> None:
        self._card = card
        self._address = (host, port)
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        self.removed = threading.Event()
        """Set when the card is out, by ``stop``, by itself or because vpcd is gone."""
        self._settled = threading.Event()

    def start(self) -> Vpicc:
        """Put the card into the slot. Raises VpcdUnreachable. pcscd notices within 0.4 s."""
        if self._thread is not None and self._thread.is_alive():
            raise ValueError("the card is in its slot, or still busy with a command")
        self._stopping = False
        self.removed.clear()
        self._settled.clear()
        self._socket = self._connect()
        self._thread = threading.Thread(target=self._serve, name=f"vpicc:{self._address[1]}", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Pull the card, also in the middle of a command; does nothing when it is out.

        Waits a second for a card that is busy; it ends on its own, later.
        """
        self._stopping = True
        self._hang_up()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the card is out; False when ``timeout`` seconds passed first."""
        return self.removed.wait(timeout)

    def wait_for_reader(self, timeout: float = READER_PATIENCE) -> None:
        """Wait until vpcd asks something, and so has the card in its slot; pcscd looks there every 0.4 s.

        Returns also when the card is out again. Raises VpcdSilent after ``timeout`` seconds.
        """
        if not self._settled.wait(timeout):
            host, port = self._address
            raise VpcdSilent(f"vpcd at {host}:{port} asks nothing of this card: another card is in that slot.")

    def __enter__(self) -> Vpicc:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _connect(self) -> socket.socket:
        host, port = self._address
        try:
            connected = socket.create_connection(self._address, timeout=5)
        except OSError as error:
            raise VpcdUnreachable(f"No vpcd answers at {host}:{port} ({error.strerror or error}).") from error
        connected.settimeout(None)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def _hang_up(self) -> None:
        connected = self._socket
        if connected is not None:
            try:
                connected.shutdown(socket.SHUT_RDWR)
            except OSError:
                _log.debug("vpcd had hung up before")

    def _serve(self) -> None:
        try:
            while self._socket is not None and not self._stopping:
                with self._socket as connected:
                    again = self._converse(connected)
                self._card.power_off()
                self._socket = self._connect() if again and not self._stopping else None
                if self._socket is not None:
                    self._card.power_on()  # pcscd sees nothing of so short a break, and would not
        except (OSError, VpcdUnreachable) as error:
            _log.debug("vpcd at %s:%s is gone: %s", *self._address, error)
        finally:
            if self._socket is not None:
                self._socket.close()
                self._socket = None
            self.removed.set()
            self._settled.set()

    def _converse(self, connected: socket.socket) -> bool:
        """Answer vpcd until the contact ends; True when it was the card that broke it for a moment."""
        card = self._card
        while body := receive(connected):
            self._settled.set()
            if len(body) > 1:
                try:
                    answer = self._answer(body)
                except CardRemoved:
                    return False
                except TransportError:
                    return True
                if not answer:
                    return True  # vpcd would wait for ever for the nothing that follows
            elif body[0] == Control.ATR:
                answer = card.atr
            else:
                _power(card, body[0])
                continue
            connected.sendall(len(answer).to_bytes(2, "big") + answer)
        return False

    def _answer(self, command: bytes) -> bytes:
        try:
            return self._card.transmit(command)
        except CardReset:
            return self._card.transmit(command)


def _power(card: Card, control: int) -> None:
    match control:
        case Control.POWER_OFF:
            card.power_off()
        case Control.POWER_ON:
            card.power_on()
        case Control.RESET:
            card.reset()
        case _:
            _log.warning("vpcd asks for something unknown: %02X", control)


def receive(connected: socket.socket) -> bytes:
    """One message of vpcd, empty when it hung up."""
    head = _receive_exactly(connected, 2)
    return _receive_exactly(connected, int.from_bytes(head, "big")) if head else b""


def _receive_exactly(connected: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        # vpcd 3.3 sends length and body apart and without TCP_NODELAY: its second segment waits for our
        # acknowledgement, which the kernel delays by 40 ms unless told otherwise before every recv.
        if _QUICKACK is not None:
            connected.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        part = connected.recv(size - len(received))
        if not part:
            return b""
        received += part
    return received
