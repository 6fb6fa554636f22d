"""Why a call is not carried out, whatever it is: caller, time, and the server itself."""

from __future__ import annotations

from cardwright_cardops.errors import CardwrightError


class CallTooLong(CardwrightError):
    """The call's own deadline, or the server's, was over before it was done."""

    code = "CALL_TOO_LONG"
    default_effect = "Whether it was done is not known."
    default_advice = "Look, or make the same call again with the same idempotency key."


class CallFailed(CardwrightError):
    """A mistake of ours. What it was is in the log, and not told."""

    code = "CALL_FAILED"
    default_effect = "Nothing was recorded."
    default_advice = "Report it, with the time."


class NotAdmitted(CardwrightError):
    """What the caller shows is nothing of this server's."""

    code = "NOT_ADMITTED"
    default_effect = "Nothing was changed."
    default_advice = "Connect with the certificate that this server gave for the purpose."


class ConnectionEnded(CardwrightError):
    """The workstation was revoked, or the certificate of the connection ended."""

    code = "CONNECTION_ENDED"
    default_effect = "The stream was ended; what it recorded stays."
    default_advice = "Connect again with a certificate that counts."


class ServerStopping(CardwrightError):
    """The server is being stopped."""

    code = "SERVER_STOPPING"
    default_effect = "Nothing was begun."
    default_advice = "Connect again; another process answers, or this one soon does."
