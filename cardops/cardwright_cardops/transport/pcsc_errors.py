"""What PC/SC can say went wrong, as errors that tell a person what to do."""

from __future__ import annotations

import os
import socket

from .connection import CardRemoved, CardReset, CardUnresponsive, ReaderGone, TransportError
from .holders import busy
from .pcsc_api import Result


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


def unavailable(result: int) -> TransportError:
    """Why no context could be established: the service is absent, or it refuses us."""
    if result in (Result.SECURITY_VIOLATION, Result.NO_ACCESS) or _socket_refuses():
        return PcscAccessDenied("The smart card service refuses this user.", sent=False)
    if result in (*_SERVICE, Result.COMM_ERROR):
        return PcscNotRunning("The smart card service (pcscd) is not running.", sent=False)
    return _other("connecting to the smart card service", result, "", sent=False)


def stopped(doing: str, reader: str, *, sent: bool) -> PcscNotRunning:
    """The service went away under a connection."""
    return PcscNotRunning(f"The smart card service stopped while {doing}.", reader=reader, sent=sent)


def error_for(result: int, doing: str, reader: str, *, sent: bool) -> TransportError:
    """The typed error of a failed call. ``doing`` names it for a person; ``sent``: it carried a command."""
    if result in _SERVICE:
        # pcsc-lite says these of a connection that was dead before, and COMM_ERROR of one that dies now.
        return stopped(doing, reader, sent=sent and result == Result.SERVICE_STOPPED)
    if result in (Result.SECURITY_VIOLATION, Result.NO_ACCESS):
        return PcscAccessDenied(f"The smart card service refuses this user {reader}.", reader=reader, sent=False)
    if result == Result.UNKNOWN_READER and not sent:
        return NoReader(f"There is no reader called {reader}.", reader=reader, sent=False)
    if result in (Result.UNKNOWN_READER, Result.READER_UNAVAILABLE):
        return ReaderGone(f"The reader {reader} is gone.", reader=reader, sent=sent)
    if result == Result.NO_SMARTCARD:
        return NoCard(f"There is no card in {reader}.", reader=reader, sent=sent)
    if result == Result.REMOVED_CARD:
        return CardRemoved(f"The card left {reader} while {doing}.", reader=reader, sent=sent)
    if result == Result.RESET_CARD:
        return CardReset(f"Another program reset the card in {reader}.", reader=reader, sent=False)
    if result == Result.SHARING_VIOLATION:
        return busy(f"Another program has the card in {reader}.", reader)
    if result in (Result.UNRESPONSIVE_CARD, Result.UNPOWERED_CARD):
        return CardUnresponsive(
            f"The card in {reader} does not answer to reset.",
            reader=reader, sent=sent,
            advice="Is it the right way round? Clean its contacts and try again; else the card is dead.",
        )  # fmt: skip
    if result == Result.PROTO_MISMATCH:
        return CardUnresponsive(f"The card in {reader} speaks neither T=0 nor T=1.", reader=reader, sent=False)
    if result in (Result.NOT_TRANSACTED, Result.COMM_ERROR):
        return CardUnresponsive(f"The card in {reader} broke off while {doing}.", reader=reader, sent=sent)
    return _other(doing, result, reader, sent=sent)


_HANGS_UP = 0.3
"""Seconds in which a service that refuses has hung up; one that does not waits for us to speak."""
_SERVICE = (Result.NO_SERVICE, Result.SERVICE_STOPPED, Result.INVALID_HANDLE)


def _other(doing: str, result: int, reader: str, *, sent: bool) -> PcscFailure:
    return PcscFailure(f"PC/SC failed {doing} ({result:08X}).", result, reader=reader, sent=sent)


def _socket_refuses() -> bool:
    """Whether pcscd's socket is there and keeps us out, by its permissions or by hanging up at once.

    libpcsclite says NO_SERVICE to the first, and to the second when it has not written yet. A service that
    ends hangs up, too, but only once.
    """
    return _hangs_up() and _hangs_up()


def _hangs_up() -> bool:
    family = getattr(socket, "AF_UNIX", None)
    if family is None:
        return False
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(_HANGS_UP)
        try:
            probe.connect(os.environ.get("PCSCLITE_CSOCK_NAME", "/run/pcscd/pcscd.comm"))
            return not probe.recv(1)
        except (PermissionError, ConnectionResetError):
            return True
        except OSError:
            return False
