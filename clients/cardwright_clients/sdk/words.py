"""What the daemon tells, in words for people: composed here, never taken from a server."""

from __future__ import annotations

from typing import Final

from .values import Due, MethodKind, Operation, OperationKind, Outcome, Phase, Purpose

DUE: Final = {
    "renewal": "certificates have to be renewed",
    "policy": "the card has to be brought to the current policy",
    "replacement": "this card replaces another one",
    "activation": "it waits until you activate it",
    "recovered-keys": "earlier keys can be put back",
    "unlock": "a new PIN can be set",
    "secrets": "the card's PUK or management key has to be changed",
    "request": "it was asked for",
    "lock": "the card is to be locked: its PIN will not work until your help desk gives the card back",
    "revoked": "the card was revoked: it is not good for anything any more, hand it in",
}
"""By the word of a DueItem."""

SUSPENDED: Final = "the card is suspended: it is good for nothing until your help desk gives it back"
"""Of a card for which nothing is due because of that."""
ACTIVATED: Final = "it is activated, and can be used now"
"""After a session that had nothing to write, and that its holder began because of that."""

METHODS: Final = {
    MethodKind.DIRECTORY_PASSWORD: "password of the directory",
    MethodKind.INITIAL_PASSWORD: "initial password",
    MethodKind.SECURITY_ANSWERS: "answers to your security questions",
    MethodKind.EMERGENCY_PASSWORD: "emergency password of the help desk",
    MethodKind.CARD: "another card",
}

_DOING: Final = {
    OperationKind.READ: "read",
    OperationKind.CHECK: "checked",
    OperationKind.CHANGE_PIN: "given another PIN",
    OperationKind.UNBLOCK_PIN: "unblocked",
    OperationKind.ISSUE: "issued",
    OperationKind.UPDATE: "updated",
    OperationKind.UNLOCK: "unlocked",
    OperationKind.FORGOTTEN_PIN: "given a new PIN",
    OperationKind.RECOVER: "given its earlier keys",
    OperationKind.SIGN_IN: "used to sign in",
    OperationKind.RECYCLE: "erased",
    OperationKind.LOCK: "locked",
}
_THEN: Final = {
    OperationKind.LOCK: " Its PIN does not work until your help desk gives the card back. Nothing on it is lost."
}
"""What its holder does after an operation that ended well."""


def due_words(due: Due) -> str:
    """One line: why something is due."""
    if due and due.purpose is Purpose.RECYCLE:
        return "everything on it is to be erased: it goes back to stock"
    if due and due.purpose is Purpose.LOCK:
        return DUE["lock"]
    if due.suspended and not due:
        return SUSPENDED
    known = [DUE.get(one.what, "an update is due") for one in due.items]
    return "; ".join(dict.fromkeys(known)) or "nothing is due"


def mandatory_words(due: Due) -> str:
    """A sentence of what cannot be put off for ever, "" of what can."""
    if due.mandatory_from is None or not due:
        return ""
    begins = "begins by itself" if due.begins_at is not None else "cannot be put off"
    if due.is_mandatory():
        return f"It is mandatory: it {begins}." if due.begins_at is not None else f"It is mandatory and {begins}."
    return f"From {due.mandatory_from:%Y-%m-%d} on it {begins}."


def estimate(seconds: float) -> str:
    """About how long: "10 s", "2 min"."""
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"


def ended(operation: Operation) -> str:
    """How an operation ended, without its error: a sentence about "the card"."""
    done = _DOING[operation.kind]
    if operation.phase is Phase.CANCELLED:
        return f"It was cancelled before the card was {done}."
    if operation.phase is not Phase.DONE:
        return f"The card could not be {done}."
    match operation.outcome:
        case Outcome.NOTHING_DUE:
            return "The card was as it should be."
        case Outcome.PENDING:
            return f"The card is {done}, except for certificates that are not issued yet; they come by themselves."
        case Outcome.SHOWN_AGAIN:
            return "More is due than was agreed to. Nothing was done; it is shown again."
    return f"The card is {done}.{_THEN.get(operation.kind, '')}"
