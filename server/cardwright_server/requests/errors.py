"""What requests refuse."""

from __future__ import annotations

from cardwright_cardops.errors import CardwrightError


class RequestError(CardwrightError):
    """Base of the errors of requests."""

    default_effect = "Nothing was changed."


class NoSuchRequest(RequestError):
    """There is no such request here."""

    code = "NO_SUCH_REQUEST"
    default_advice = "Search for the request again."


class RequestNotPossible(RequestError):
    """A request of this kind makes no sense for the device as it is."""

    code = "REQUEST_NOT_POSSIBLE"
    default_advice = "Look at the device's state."


class IdempotencyConflict(RequestError):
    """The idempotency key was used before, for something else."""

    code = "IDEMPOTENCY_CONFLICT"
    default_advice = "Use a new key for each thing that is asked for."


class UnlockClosed(RequestError):
    """The policy does not open this way of unlocking."""

    code = "UNLOCK_CLOSED"
    default_advice = "Use another way that the policy opens, or go to an operator's station."
