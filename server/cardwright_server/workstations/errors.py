"""What enrolment refuses."""

from __future__ import annotations

from datetime import datetime

from cardwright_cardops.errors import CardwrightError


class WorkstationError(CardwrightError):
    """Base of the errors of workstations."""

    default_effect = "Nothing was changed."


class BadHost(WorkstationError):
    """A host name that cannot be one."""

    code = "BAD_HOST"
    default_advice = "Give the name under which the workstation is known, without an address or port."


class TokenRefused(WorkstationError):
    """The token is unknown, wrong, for another host, or belongs to another key by now. Which is not said."""

    code = "TOKEN_REFUSED"
    default_advice = "Check the token and the host name; ask an administrator for a new token."


class TokenExpired(WorkstationError):
    """The token is right, but its day is over."""

    code = "TOKEN_EXPIRED"
    default_advice = "Ask an administrator for a new token."


class TokenUsed(WorkstationError):
    """The token is right, but another key was enrolled by it."""

    code = "TOKEN_USED"
    default_advice = "If that was not you, tell an administrator at once; ask for a new token."


class BadRequest(WorkstationError):
    """The certificate request is no valid one, or its key is not accepted."""

    code = "BAD_CERTIFICATE_REQUEST"
    default_advice = "Make a request for a P-256 or P-384 key, signed with it."


class BadReason(WorkstationError):
    """A reason that is no short code: it stays in the record for ever, so it holds no sentences and no names."""

    code = "BAD_REASON"
    default_advice = "Give a code of lower case letters, digits and hyphens, at most 40."


class NoSuchWorkstation(WorkstationError):
    """There is no such workstation here."""

    code = "NO_SUCH_WORKSTATION"
    default_advice = "List the workstations again."


class RenewalTooEarly(WorkstationError):
    """The certificate still has more than a third of its life."""

    code = "RENEWAL_TOO_EARLY"
    default_advice = "Renew it when it is due."

    def __init__(self, message: str, due_at: datetime) -> None:
        super().__init__(message)
        self.due_at = due_at
