"""Errors of calls: what the other end told with a code of its own, and why it told nothing."""

from __future__ import annotations

from typing import Any

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.rpc_status import DETAILS, RemoteError, error_of


class DaemonNotRunning(CardwrightError):
    """No workstation daemon of this user answers."""

    code = "DAEMON_NOT_RUNNING"
    default_effect = "If the line was lost in between, the daemon ended the act at its next safe point."
    default_advice = "Start it: 'cardwright daemon', or 'systemctl --user start cardwright-daemon'."


class DaemonSilent(CardwrightError):
    """The daemon took longer than the caller wanted to wait, or said something that is no answer."""

    code = "DAEMON_SILENT"
    default_effect = "Whether it was done is not known."
    default_advice = "Look at 'cardwright status'; the daemon's log says more."


class OperationLost(CardwrightError):
    """The daemon was restarted while an operation was followed, and the new one does not know it."""

    code = "OPERATION_LOST"
    default_effect = "What was written to the card stands; nothing that is in use was lost."
    default_advice = "Take the card out, put it in again and start again: only what is missing is done."


class CardSuspended(CardwrightError):
    """The card is held out of use, so its PIN is not set anew."""

    code = "CARD_SUSPENDED"
    default_effect = "Nothing was sent to the card."
    default_advice = "Ask your help desk to give the card back; then it can be unlocked."


class ServerUnreachable(CardwrightError):
    """No server of this name and root answers, or the line to it was lost."""

    code = "SERVER_NOT_REACHED"
    default_effect = "Whether it was done is not known, if the line was lost in between."
    default_advice = "See that the server runs ('cardwright server status'), and that --server is its address."


class ServerRefused(CardwrightError):
    """The server, or something on the way to it, refused a call and did not say why with a code."""

    code = "SERVER_CALL_REFUSED"
    default_effect = "Nothing was changed."
    default_advice = "See the server's log of this time."


def told(error: Any) -> RemoteError | None:
    """What the other end told in the details of a grpc.RpcError (also grpc.aio's); None where it told nothing."""
    for name, value in error.trailing_metadata() or ():
        if name == DETAILS and isinstance(value, bytes):
            return error_of(value)
    return None
