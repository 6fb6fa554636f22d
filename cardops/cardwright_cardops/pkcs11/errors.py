"""Errors of tokens behind a PKCS#11 module. Each return value of a module has one class here, or PKCS11_FAILED."""

from __future__ import annotations

from typing import Final

from ..errors import CardwrightError

UNCHANGED = "The token was not changed."
UNKNOWN_EFFECT = "Whether the token carried out the operation is not known."


class Pkcs11Error(CardwrightError):
    """Base. ``ckr`` is the module's return value by name, empty where no module answered."""

    code = "PKCS11_FAILED"
    default_effect = UNKNOWN_EFFECT
    default_advice = "Read the token again before the next step."

    def __init__(self, message: str, *, ckr: str = "", effect: str | None = None, advice: str | None = None) -> None:
        super().__init__(message, effect=effect, advice=advice)
        self.ckr = ckr


class ModuleUnusable(Pkcs11Error):
    """The file is no PKCS#11 module, or its initialization failed."""

    code = "PKCS11_MODULE_UNUSABLE"
    default_effect = UNCHANGED
    default_advice = (
        "Check the path of the module, and that what it needs is there: its configuration, its folder of tokens,"
        " or pcscd."
    )


class ModuleCrashed(Pkcs11Error):
    """The process that held the module ended. The next operation starts a new one, with nobody logged in."""

    code = "PKCS11_MODULE_CRASHED"
    default_advice = "Log in again and read the token before the next step."


class ModuleTimeout(Pkcs11Error):
    """The module did not answer in time and was stopped. The next operation starts a new one."""

    code = "PKCS11_TIMEOUT"
    default_advice = "Log in again and read the token before the next step."


class AnswerInvalid(Pkcs11Error):
    """The module answered with something no module may answer."""

    code = "PKCS11_ANSWER_INVALID"


class TokenNotFound(Pkcs11Error):
    """No token, or more than one, fits what was asked for."""

    code = "PKCS11_TOKEN_NOT_FOUND"
    default_effect = UNCHANGED
    default_advice = "Insert the token, or name it by its serial number."


class TokenRemoved(Pkcs11Error):
    """The token is gone."""

    code = "PKCS11_TOKEN_REMOVED"
    default_advice = "Put the token back and start again."


class PinIncorrect(Pkcs11Error):
    """The PIN was wrong and was counted."""

    code = "PKCS11_PIN_INCORRECT"
    default_effect = "The try was counted by the token; nothing else changed."
    default_advice = "Ask for the PIN again; do not repeat the same one."


class PinLastTry(Pkcs11Error):
    """One try is left and the caller did not say that it may be spent."""

    code = "PKCS11_PIN_LAST_TRY"
    default_effect = "No PIN was sent to the token."
    default_advice = "Unlock the PIN, or say expressly that the last try may be spent."


class PinLocked(Pkcs11Error):
    """The PIN is locked."""

    code = "PKCS11_PIN_LOCKED"
    default_effect = "The PIN cannot be used until it is unlocked."
    default_advice = "Unlock the PIN."


class PinLength(Pkcs11Error):
    """A PIN is too short or too long for the token."""

    code = "PKCS11_PIN_LENGTH"
    default_effect = "The PIN was not changed."
    default_advice = "Choose a PIN of a length the token allows."


class PinInvalid(Pkcs11Error):
    """A new PIN holds characters the token does not take, or is too weak for it."""

    code = "PKCS11_PIN_INVALID"
    default_effect = "The PIN was not changed."
    default_advice = "Choose another PIN."


class PinNotSet(Pkcs11Error):
    """The token has no user PIN yet."""

    code = "PKCS11_PIN_NOT_SET"
    default_effect = UNCHANGED
    default_advice = "Set the PIN with the security officer's PIN first."


class PinExpired(Pkcs11Error):
    """The token wants the PIN changed first."""

    code = "PKCS11_PIN_EXPIRED"
    default_effect = UNCHANGED
    default_advice = "Change the PIN."


class PinNeeded(Pkcs11Error):
    """The key wants the PIN for every use."""

    code = "PKCS11_PIN_NEEDED"
    default_effect = "The key was not used."
    default_advice = "Give a way to ask for the PIN."


class NotLoggedIn(Pkcs11Error):
    """The operation needs a login, or another one. A restart of the module ends every login."""

    code = "PKCS11_NOT_LOGGED_IN"
    default_effect = UNCHANGED
    default_advice = "Log in and try again."


class AlreadyLoggedIn(Pkcs11Error):
    """Somebody is logged in where nobody, or somebody else, must be."""

    code = "PKCS11_ALREADY_LOGGED_IN"
    default_effect = UNCHANGED
    default_advice = "Log out first."


class UnsupportedByToken(Pkcs11Error):
    """The token or its module cannot do this. ``operation`` names the capability that is missing."""

    code = "UNSUPPORTED_BY_TOKEN"
    default_effect = UNCHANGED
    default_advice = "Use a token, or another module for it, that can do this."

    def __init__(
        self,
        message: str,
        *,
        operation: str = "",
        ckr: str = "",
        effect: str | None = None,
        advice: str | None = None,
    ) -> None:
        super().__init__(message, ckr=ckr, effect=effect, advice=advice)
        self.operation = operation


class ObjectNotFound(Pkcs11Error):
    """No object, or more than one, has that class and CKA_ID."""

    code = "PKCS11_OBJECT_NOT_FOUND"
    default_effect = UNCHANGED
    default_advice = "Read the token's inventory."


class ObjectExists(Pkcs11Error):
    """A write would lie over, or beside, an object with the same CKA_ID."""

    code = "PKCS11_OBJECT_EXISTS"
    default_effect = UNCHANGED
    default_advice = "Delete the old object first, choose another id, or allow the overwriting."


class ObjectRejected(Pkcs11Error):
    """The module refuses the key, certificate or attributes offered."""

    code = "PKCS11_OBJECT_REJECTED"
    default_advice = "Read the token again: some modules refuse only after the first part is written."


class DataRejected(Pkcs11Error):
    """Data to sign, decrypt or derive from do not fit the key."""

    code = "PKCS11_DATA_REJECTED"
    default_effect = UNCHANGED
    default_advice = "Check that the data were made for this key."


class KeyRefused(Pkcs11Error):
    """The key is not made for this use."""

    code = "PKCS11_KEY_REFUSED"
    default_effect = "The key was not used."
    default_advice = "Use a key whose attributes allow this."


class TokenReadOnly(Pkcs11Error):
    """The token takes no writes."""

    code = "PKCS11_READ_ONLY"
    default_effect = UNCHANGED
    default_advice = "Remove the write protection."


class TokenFull(Pkcs11Error):
    """No room on the token."""

    code = "PKCS11_TOKEN_FULL"
    default_advice = "Delete objects that are no longer needed."


class DeviceFailed(Pkcs11Error):
    """The token or the way to it failed."""

    code = "PKCS11_DEVICE_ERROR"
    default_advice = "Take the token out, put it back and read it again."


class SessionLost(Pkcs11Error):
    """The module lost or refused the session. The next operation opens a new one, with nobody logged in."""

    code = "PKCS11_SESSION"
    default_advice = "Log in again."


_SAYS: Final[dict[str, tuple[type[Pkcs11Error], str]]] = {
    # Found by our own end of the pipe.
    "NOT_LOADABLE": (ModuleUnusable, "The file cannot be loaded as a PKCS#11 module."),
    "TOKEN_GONE": (TokenRemoved, "The token is not in any slot of the module, or two look the same."),
    "BAD_ANSWER": (AnswerInvalid, "The module gave an answer that cannot be read."),
    "PIN_LAST_TRY": (PinLastTry, "One try is left for this PIN."),
    "PIN_IS_LOCKED": (PinLocked, "The token says that this PIN is locked."),
    "NO_SUCH_OBJECT": (ObjectNotFound, "No object with that class and id is on the token."),
    "SEVERAL_OBJECTS": (ObjectNotFound, "Several objects with that class and id are on the token."),
    "OBJECT_EXISTS": (ObjectExists, "An object with that id is already on the token."),
    "WRONG_LOGIN": (NotLoggedIn, "The login that this needs is not there."),
    "LOGGED_IN": (AlreadyLoggedIn, "Somebody is logged in to the token."),
    "KEY_CANNOT": (KeyRefused, "The key's attributes do not allow this use."),
    "MODULE_FAILED": (Pkcs11Error, "The module failed without saying why."),
    # Return values of the module (PKCS#11 v2.40 section 5.1).
    "CKR_HOST_MEMORY": (DeviceFailed, "The module has no memory left."),
    "CKR_SLOT_ID_INVALID": (TokenRemoved, "The slot is gone."),
    "CKR_TOKEN_NOT_PRESENT": (TokenRemoved, "The token is gone."),
    "CKR_TOKEN_NOT_RECOGNIZED": (TokenRemoved, "The module does not know the token in the slot."),
    "CKR_DEVICE_REMOVED": (TokenRemoved, "The token was removed."),
    "CKR_DEVICE_ERROR": (DeviceFailed, "The token or its reader failed."),
    "CKR_DEVICE_MEMORY": (TokenFull, "There is no room left on the token."),
    "CKR_PIN_INCORRECT": (PinIncorrect, "The PIN is wrong."),
    "CKR_PIN_INVALID": (PinInvalid, "The token does not take this PIN."),
    "CKR_PIN_TOO_WEAK": (PinInvalid, "The PIN is too weak for the token."),
    "CKR_PIN_LEN_RANGE": (PinLength, "The PIN is too short or too long."),
    "CKR_PIN_EXPIRED": (PinExpired, "The PIN has to be changed first."),
    "CKR_PIN_LOCKED": (PinLocked, "The PIN is locked."),
    "CKR_USER_PIN_NOT_INITIALIZED": (PinNotSet, "The token has no user PIN yet."),
    "CKR_USER_NOT_LOGGED_IN": (NotLoggedIn, "Nobody is logged in to the token."),
    "CKR_USER_TYPE_INVALID": (NotLoggedIn, "The token wants another user for this."),
    "CKR_USER_ALREADY_LOGGED_IN": (AlreadyLoggedIn, "The user is already logged in."),
    "CKR_USER_ANOTHER_ALREADY_LOGGED_IN": (AlreadyLoggedIn, "Another user is logged in."),
    "CKR_USER_TOO_MANY_TYPES": (AlreadyLoggedIn, "Another user is logged in."),
    "CKR_SESSION_READ_ONLY_EXISTS": (SessionLost, "A read-only session stands in the way."),
    "CKR_SESSION_READ_WRITE_SO_EXISTS": (SessionLost, "A session of the security officer stands in the way."),
    "CKR_SESSION_HANDLE_INVALID": (SessionLost, "The session is gone."),
    "CKR_SESSION_CLOSED": (SessionLost, "The session was closed."),
    "CKR_SESSION_COUNT": (SessionLost, "The module has no session left."),
    "CKR_SESSION_READ_ONLY": (TokenReadOnly, "The token takes no writes."),
    "CKR_TOKEN_WRITE_PROTECTED": (TokenReadOnly, "The token is write-protected."),
    "CKR_ATTRIBUTE_READ_ONLY": (ObjectRejected, "The module does not let this attribute be set."),
    "CKR_ATTRIBUTE_TYPE_INVALID": (ObjectRejected, "The module does not know an attribute of the object."),
    "CKR_ATTRIBUTE_VALUE_INVALID": (ObjectRejected, "The module refuses a value of the object."),
    "CKR_TEMPLATE_INCOMPLETE": (ObjectRejected, "The module misses an attribute of the object."),
    "CKR_TEMPLATE_INCONSISTENT": (ObjectRejected, "The module finds the object's attributes contradictory."),
    "CKR_CURVE_NOT_SUPPORTED": (UnsupportedByToken, "The token does not know this curve."),
    "CKR_DOMAIN_PARAMS_INVALID": (UnsupportedByToken, "The token does not know this curve."),
    "CKR_ACTION_PROHIBITED": (KeyRefused, "The token does not allow this for this object."),
    "CKR_KEY_FUNCTION_NOT_PERMITTED": (KeyRefused, "The key is not made for this use."),
    "CKR_KEY_TYPE_INCONSISTENT": (KeyRefused, "The key is of another kind."),
    "CKR_KEY_SIZE_RANGE": (UnsupportedByToken, "The token does not support keys of this size."),
    "CKR_KEY_HANDLE_INVALID": (ObjectNotFound, "The key is gone."),
    "CKR_OBJECT_HANDLE_INVALID": (ObjectNotFound, "The object is gone."),
    "CKR_MECHANISM_INVALID": (UnsupportedByToken, "The token does not support this mechanism."),
    "CKR_MECHANISM_PARAM_INVALID": (UnsupportedByToken, "The token does not support these parameters."),
    "CKR_FUNCTION_NOT_SUPPORTED": (UnsupportedByToken, "The module does not support this function."),
    "CKR_DATA_INVALID": (DataRejected, "The data do not fit the key."),
    "CKR_DATA_LEN_RANGE": (DataRejected, "The data have the wrong length for the key."),
    "CKR_ENCRYPTED_DATA_INVALID": (DataRejected, "The encrypted data were not made for this key."),
    "CKR_ENCRYPTED_DATA_LEN_RANGE": (DataRejected, "The encrypted data have the wrong length for this key."),
}
_BEFORE_ANYTHING: Final = (
    "TOKEN_GONE",
    "NO_SUCH_OBJECT",
    "SEVERAL_OBJECTS",
    "OBJECT_EXISTS",
    "WRONG_LOGIN",
    "LOGGED_IN",
)


def error_of(code: str, detail: str = "") -> Pkcs11Error:
    """The typed error for a return value's name (``CKR_…``) or one of our own codes.

    A return value that is not in the table becomes Pkcs11Error with its name; nothing is guessed.
    """
    kind, says = _SAYS.get(code, (Pkcs11Error, f"The module answered {code}."))
    error = kind(f"{says} {detail}".rstrip(), ckr=code if code.startswith("CKR_") else "")
    if code in _BEFORE_ANYTHING:
        error.effect = UNCHANGED
    return error
