"""Why a call is refused, or a proof."""

from __future__ import annotations

from datetime import timedelta

from cardwright_cardops.errors import CardwrightError

from .model import Method


class AuthorizationError(CardwrightError):
    """Base: the caller may not do this."""

    default_effect = "Nothing was changed."


class AccessDenied(AuthorizationError):
    """No role, no such scope, another organization, or no such thing: the caller is not told which."""

    code = "ACCESS_DENIED"
    default_advice = "Ask an administrator which role and scope this needs."


class NotYourOwn(AuthorizationError):
    """Nobody approves their own request or acts as an operator on their own device; persons are compared."""

    code = "OWN_TARGET_REFUSED"
    default_advice = "Another operator has to do it."


class PartsSeparated(AuthorizationError):
    """The policy wants different persons for the parts of this, and the caller already had one."""

    code = "PARTS_SEPARATED"
    default_advice = "Another operator has to do it."


class ProofRequired(AuthorizationError):
    """The caller has not proved who they are, or not by a method that this needs."""

    code = "PROOF_REQUIRED"
    default_advice = "Prove who you are by one of the methods that are named."

    def __init__(self, message: str, methods: frozenset[Method] = frozenset()) -> None:
        super().__init__(message)
        self.methods = methods
        """Any one of these would do; empty if none can."""


class ProofExpired(AuthorizationError):
    """The proof is too old, or was ended."""

    code = "PROOF_EXPIRED"
    default_advice = "Prove who you are again."


class UnlistedCall(AuthorizationError):
    """A call that the matrix does not know. A mistake of ours; refused all the same."""

    code = "CALL_NOT_LISTED"
    default_advice = "Report it."


class ProofRefused(CardwrightError):
    """The proof was not accepted. What was wrong is not said: name, password, or which of the answers."""

    code = "PROOF_REFUSED"
    default_effect = "Nothing was changed."
    default_advice = "Try again with care, or use another method; after a few failures the method is locked."


class MethodLocked(CardwrightError):
    """Too many failures by this method. Other methods still work."""

    code = "METHOD_LOCKED"
    default_effect = "Nothing was changed."
    default_advice = "Use another method, or ask the help desk."

    def __init__(self, message: str, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """After this it can be tried again; None: not without help."""


class MethodNotOffered(CardwrightError):
    """This installation or this service does not know the method."""

    code = "METHOD_NOT_OFFERED"
    default_effect = "Nothing was changed."
    default_advice = "Use one of the methods that are offered."
