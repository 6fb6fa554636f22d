"""What the escrow refuses."""

from __future__ import annotations

from cardwright_cardops.errors import CardwrightError


class EscrowError(CardwrightError):
    """Base of the errors of the escrow."""

    default_effect = "No key left the archive."


class NoSuchEscrowedKey(EscrowError):
    """There is no such key in the archive."""

    code = "NO_SUCH_ESCROWED_KEY"
    default_advice = "List the keys of the person again."


class EscrowedKeyRefused(EscrowError):
    """The archived key may not go to where it was asked for: another holder, another slot, without approval."""

    code = "ESCROWED_KEY_REFUSED"
    default_advice = "Ask for the recovery of the holder's keys, and have a security officer approve it."


class NotEscrowable(EscrowError):
    """The archive keeps no keys of this algorithm."""

    code = "NOT_ESCROWABLE"
    default_effect = "No key was made."
    default_advice = "Let the policy name RSA-2048, RSA-3072, P-256 or P-384 for escrowed slots."


class NotCertified(EscrowError):
    """The archived key has no certificate yet, so nothing is encrypted to it."""

    code = "ESCROWED_KEY_NOT_CERTIFIED"
    default_advice = "Finish the issuance of the card that the key was made for."


class RecoveryNotPossible(EscrowError):
    """The request is not one under which keys are recovered now."""

    code = "RECOVERY_NOT_POSSIBLE"
    default_advice = "Make a request for recovery for the device, and have it approved first."


class FileNotAllowed(EscrowError):
    """The policy of the card does not allow that its keys leave as files."""

    code = "PFX_NOT_ALLOWED"
    default_advice = "Have the key recovered to a card, or ask the administrator about the policy."


class RecoveryNotAllowed(EscrowError):
    """The policy does not allow that a temporary card gets its holder's old keys."""

    code = "RECOVERY_NOT_ALLOWED"
    default_advice = "Recover the keys to the permanent card, once it is issued or found."


class EscrowQuota(EscrowError):
    """As many keys were released by this operator, or for this person, as is allowed.

    ``retry_after``: seconds until it is worth another try.
    """

    code = "ESCROW_QUOTA"
    default_advice = "Wait; if this is not an attack, another operator may be needed."

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OfferRefused(EscrowError):
    """There is no such offer for this caller, or the password is not the one that was shown."""

    code = "PFX_OFFER_REFUSED"
    default_advice = "Ask for a new offer; after three wrong passwords an offer is void."


class OfferExpired(EscrowError):
    """The offer's five minutes are over."""

    code = "PFX_OFFER_EXPIRED"
    default_advice = "Ask for a new offer."


class OfferClaimed(EscrowError):
    """The file of this offer was claimed before, or the offer was given up for a newer one."""

    code = "PFX_OFFER_CLAIMED"
    default_advice = "If it was not you who claimed it, report it at once; else ask for a new offer."
