"""How failures in the process that holds the module get their names."""

from __future__ import annotations

import re
from typing import Final

from pkcs11 import PKCS11Error

# Where python-pkcs11's class is not the return value's name in camel case.
_EXCEPTION_NAMES: Final = {
    "AnotherUserAlreadyLoggedIn": "CKR_USER_ANOTHER_ALREADY_LOGGED_IN",
    "TokenNotRecognised": "CKR_TOKEN_NOT_RECOGNIZED",
    "PKCS11Error": "MODULE_FAILED",
}
SESSION_ENDING: Final = (
    "CKR_SESSION_HANDLE_INVALID",
    "CKR_SESSION_CLOSED",
    "CKR_DEVICE_REMOVED",
    "CKR_DEVICE_ERROR",
    "CKR_TOKEN_NOT_PRESENT",
    "CKR_TOKEN_NOT_RECOGNIZED",
)


class Fault(Exception):
    """An answer of ours that is not the module's. ``code`` is one of errors.error_of."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail


def exception_name(error: PKCS11Error) -> str:
    """The CKR_ name behind an exception of python-pkcs11."""
    name = type(error).__name__
    return (
        _EXCEPTION_NAMES.get(name)
        or "CKR_" + re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).upper()
    )
