"""Errors of the daemon itself; those of cards, readers and PINs come from the library."""

from __future__ import annotations

from cardwright_cardops.errors import CardwrightError

UNTOUCHED = "Nothing was sent to the card."


class NoSuchCard(CardwrightError):
    """No card with this id is in: it was taken out, or never was there."""

    code = "NO_SUCH_CARD"
    default_effect = UNTOUCHED
    default_advice = "List the cards again: a card that was taken out and put back has another id."


class NoSuchOperation(CardwrightError):
    """No operation with this id is known; only the last ones are kept."""

    code = "NO_SUCH_OPERATION"
    default_effect = UNTOUCHED
    default_advice = "List the operations again."


class CardInOperation(CardwrightError):
    """Another operation works on this card."""

    code = "CARD_IN_OPERATION"
    default_effect = "The operation that is under way goes on; nothing else was sent to the card."
    default_advice = "Wait until it ends, or cancel it."


class OperationNotCancellable(CardwrightError):
    """The operation is writing to the card, or is over."""

    code = "OPERATION_NOT_CANCELLABLE"
    default_effect = "The operation goes on."
    default_advice = "Wait until it ends. Taking the card out is safe, too: what is left is done at the next insertion."


class OperationCancelled(CardwrightError):
    """Somebody cancelled the operation."""

    code = "OPERATION_CANCELLED"
    default_effect = "The card is as it was after the last finished step."
    default_advice = "Start again when you like."


class HeadlessPinRefused(CardwrightError):
    """A PIN came with a call, and the daemon is not configured to take PINs so."""

    code = "HEADLESS_PIN_REFUSED"
    default_effect = UNTOUCHED
    default_advice = "Leave the PIN out: the daemon asks for it. Or set headless = true in its [pins] section."


class BadRequest(CardwrightError):
    """A call with a value that is missing, too long or out of range."""

    code = "REQUEST_INVALID"
    default_effect = UNTOUCHED
    default_advice = "See the comments of the contract for what a field may hold."


class NotForTokens(CardwrightError):
    """What was asked for cannot be done with a device that only a PKCS#11 module reaches."""

    code = "NOT_FOR_TOKENS"
    default_effect = UNTOUCHED
    default_advice = "Use a card in a PC/SC reader for it."


class WrongPhase(CardwrightError):
    """The plan that was agreed to is not the one that waits: none was shown, or it has lapsed."""

    code = "NO_SUCH_PREVIEW"
    default_effect = UNTOUCHED
    default_advice = "Ask for the preview again; it stands for ten minutes, while the card stays in."


class ConfirmationMissing(CardwrightError):
    """The plan holds an act that a person has to confirm by name."""

    code = "CONFIRMATION_MISSING"
    default_effect = UNTOUCHED
    default_advice = "Start again and confirm each act that the preview names."


class StageEnded(CardwrightError):
    """A batch came for a stage whose transaction is over: no batch had come for seconds, or the card was lost."""

    code = "STAGE_ENDED"
    default_effect = "Nothing of this batch was sent to the card."
    default_advice = "Start again: the card is read first, and only what is missing is done."


class UpdateMandatory(CardwrightError):
    """What is due is mandatory by now, and cannot be put off any more."""

    code = "UPDATE_MANDATORY"
    default_effect = UNTOUCHED
    default_advice = "Start it: see what it does with 'cardwright update', or in the notification."


class KeyNotReleased(CardwrightError):
    """A key was named for recovery that the server does not give to this card."""

    code = "KEY_NOT_RELEASED"
    default_effect = UNTOUCHED
    default_advice = (
        "Ask the help desk for a recovery of this key to this card; a security officer approves it. Where the policy "
        "allows it, 'cardwright escrow pfx' downloads it."
    )
