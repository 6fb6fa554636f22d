"""What PC/SC can say went wrong, as errors that tell a person what to do."""

from __future__ import annotations

from .connection import TransportError


class PcscNotRunning(TransportError):
    """The smart card service is not there, or went away while it was used."""

    code = "PCSC_NOT_RUNNING"
    default_advice = (
        "Start it, for example with: sudo systemctl start pcscd.socket (package pcscd); on Windows, start"
        " the service SCardSvr."
    )


class PcscAccessDenied(TransportError):
    """The service is there and refuses this user: polkit, or the permissions of its socket."""

    code = "PCSC_ACCESS_DENIED"
    default_advice = (
        "Log in at the machine itself, or let a polkit rule allow org.debian.pcsc-lite.access_pcsc and"
        " org.debian.pcsc-lite.access_card to this user; in a container or sandbox, pass the socket"
        " /run/pcscd/pcscd.comm in."
    )


class NoReader(TransportError):
    """There is no reader, or none of that name."""

    code = "NO_READER"
    default_advice = "Plug in a reader or security key; if it is plugged in, its driver is missing (package libccid)."


class NoCard(TransportError):
    """The reader is empty."""

    code = "NO_CARD"
    default_advice = "Put a card into the reader."


class DeadlinePassed(TransportError):
    """A call did not come back in time and was abandoned; the connection is over.

    When the call returns after all, its transaction is ended and the card let go as it is.
    """

    code = "CARD_DEADLINE"
    default_advice = "Take the card out, put it back and start again: what was finished is not repeated."


class ConnectionOver(TransportError):
    """The connection was closed, or given up after a deadline."""

    code = "CONNECTION_OVER"
    default_effect = "The card was not changed by this command."
    default_advice = "Connect to the card again."


class PcscFailure(TransportError):
    """Any other answer of PC/SC. ``hresult`` is its 32-bit value."""

    code = "PCSC_FAILURE"

    def __init__(self, message: str, hresult: int, *, reader: str = "", sent: bool = True) -> None:
        super().__init__(message, reader=reader, sent=sent)
        self.hresult = hresult
