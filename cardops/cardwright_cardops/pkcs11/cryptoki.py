"""The few PKCS#11 functions that carry a PIN or tell a state, called through the module's function list.

python-pkcs11 takes PINs only as ``str``, leaks a session when a login fails, hides PIN lengths and session states.
Everything else goes through it; these calls share its module and its sessions.
"""

from __future__ import annotations

import ctypes
from typing import Final

_ULONG = ctypes.c_ulong

# Places in CK_FUNCTION_LIST after the version (PKCS#11 v2.40, pkcs11f.h).
_GET_TOKEN_INFO: Final = 6
_INIT_PIN: Final = 10
_SET_PIN: Final = 11
_GET_SESSION_INFO: Final = 15
_LOGIN: Final = 18
_LOGOUT: Final = 19

CKU_SO: Final = 0
CKU_USER: Final = 1

_NAMES: Final = {
    0x002: "CKR_HOST_MEMORY",
    0x003: "CKR_SLOT_ID_INVALID",
    0x005: "CKR_GENERAL_ERROR",
    0x006: "CKR_FUNCTION_FAILED",
    0x007: "CKR_ARGUMENTS_BAD",
    0x030: "CKR_DEVICE_ERROR",
    0x031: "CKR_DEVICE_MEMORY",
    0x032: "CKR_DEVICE_REMOVED",
    0x050: "CKR_FUNCTION_CANCELED",
    0x054: "CKR_FUNCTION_NOT_SUPPORTED",
    0x0A0: "CKR_PIN_INCORRECT",
    0x0A1: "CKR_PIN_INVALID",
    0x0A2: "CKR_PIN_LEN_RANGE",
    0x0A3: "CKR_PIN_EXPIRED",
    0x0A4: "CKR_PIN_LOCKED",
    0x0B0: "CKR_SESSION_CLOSED",
    0x0B1: "CKR_SESSION_COUNT",
    0x0B3: "CKR_SESSION_HANDLE_INVALID",
    0x0B5: "CKR_SESSION_READ_ONLY",
    0x0B7: "CKR_SESSION_READ_ONLY_EXISTS",
    0x0B8: "CKR_SESSION_READ_WRITE_SO_EXISTS",
    0x0E0: "CKR_TOKEN_NOT_PRESENT",
    0x0E1: "CKR_TOKEN_NOT_RECOGNIZED",
    0x0E2: "CKR_TOKEN_WRITE_PROTECTED",
    0x100: "CKR_USER_ALREADY_LOGGED_IN",
    0x101: "CKR_USER_NOT_LOGGED_IN",
    0x102: "CKR_USER_PIN_NOT_INITIALIZED",
    0x103: "CKR_USER_TYPE_INVALID",
    0x104: "CKR_USER_ANOTHER_ALREADY_LOGGED_IN",
    0x105: "CKR_USER_TOO_MANY_TYPES",
    0x150: "CKR_BUFFER_TOO_SMALL",
    0x190: "CKR_CRYPTOKI_NOT_INITIALIZED",
}


class ReturnValue(Exception):
    """A function did not return CKR_OK. ``name`` is the return value's name, or its number in hex."""

    def __init__(self, number: int) -> None:
        self.name = _NAMES.get(number, f"CKR_0x{number:08X}")
        super().__init__(self.name)


class _TokenInfo(ctypes.Structure):
    _fields_ = (
        ("label", ctypes.c_ubyte * 32),
        ("manufacturer", ctypes.c_ubyte * 32),
        ("model", ctypes.c_ubyte * 16),
        ("serial", ctypes.c_ubyte * 16),
        ("flags", _ULONG),
        ("max_sessions", _ULONG),
        ("sessions", _ULONG),
        ("max_rw_sessions", _ULONG),
        ("rw_sessions", _ULONG),
        ("max_pin", _ULONG),
        ("min_pin", _ULONG),
        ("total_public", _ULONG),
        ("free_public", _ULONG),
        ("total_private", _ULONG),
        ("free_private", _ULONG),
        ("hardware", ctypes.c_ubyte * 2),
        ("firmware", ctypes.c_ubyte * 2),
        ("time", ctypes.c_ubyte * 16),
    )


class _SessionInfo(ctypes.Structure):
    _fields_ = (("slot", _ULONG), ("state", _ULONG), ("flags", _ULONG), ("device_error", _ULONG))


def text_of(raw: bytes) -> str:
    """A blank-padded text of a module. Never raises: tokens hold labels that are no UTF-8."""
    return raw.decode("utf-8", "replace").rstrip(" \0")


class Cryptoki:
    """The function list of a module that is already loaded and initialized."""

    def __init__(self, path: str) -> None:
        """Raises OSError or AttributeError if the file has no C_GetFunctionList, ReturnValue if that fails."""
        self._library = ctypes.CDLL(path)
        table = ctypes.POINTER(ctypes.c_void_p)()
        _check(self._library.C_GetFunctionList(ctypes.byref(table)))
        self._table = table

    def token_info(self, slot: int) -> _TokenInfo:
        """C_GetTokenInfo. Raises ReturnValue."""
        info = _TokenInfo()
        self._call(_GET_TOKEN_INFO, (_ULONG, ctypes.c_void_p), slot, ctypes.byref(info))
        return info

    def session_state(self, session: int) -> int:
        """CKS_* of a session: 0, 2 public; 1, 3 user; 4 security officer. Raises ReturnValue."""
        info = _SessionInfo()
        self._call(_GET_SESSION_INFO, (_ULONG, ctypes.c_void_p), session, ctypes.byref(info))
        return int(info.state)

    def login(self, session: int, user: int, pin: bytearray) -> None:
        """C_Login. Raises ReturnValue."""
        arguments = (_ULONG, _ULONG, ctypes.c_void_p, _ULONG)
        self._call(_LOGIN, arguments, session, user, _buffer(pin), len(pin))

    def logout(self, session: int) -> None:
        """C_Logout. Raises ReturnValue."""
        self._call(_LOGOUT, (_ULONG,), session)

    def init_pin(self, session: int, pin: bytearray) -> None:
        """C_InitPIN. Raises ReturnValue."""
        self._call(_INIT_PIN, (_ULONG, ctypes.c_void_p, _ULONG), session, _buffer(pin), len(pin))

    def set_pin(self, session: int, old: bytearray, new: bytearray) -> None:
        """C_SetPIN. Raises ReturnValue."""
        arguments = (_ULONG, ctypes.c_void_p, _ULONG, ctypes.c_void_p, _ULONG)
        self._call(_SET_PIN, arguments, session, _buffer(old), len(old), _buffer(new), len(new))

    def _call(self, place: int, types: tuple[type, ...], *arguments: object) -> None:
        address = self._table[1 + place]
        if not address:
            raise ReturnValue(0x054)
        _check(ctypes.CFUNCTYPE(_ULONG, *types)(address)(*arguments))


def _buffer(value: bytearray) -> ctypes.Array[ctypes.c_char]:
    return (ctypes.c_char * len(value)).from_buffer(value)


def _check(result: int) -> None:
    if result:
        raise ReturnValue(result)
