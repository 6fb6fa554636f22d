"""The process that shows one dialog of Windows: a request on its standard input, one line on its standard output.

CredUIPromptForCredentialsW (wincred.h) shows its dialog in the calling process and gives what was typed as UTF-16 in a
buffer of ours; the newer CredUIPromptForWindowsCredentialsW asks in a process of the system, which outlives this one.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any, Final, Protocol, cast

import msgspec

ERROR_CANCELLED: Final = 1223
MAX_REQUEST: Final = 1 << 14

FLAGS: Final = (
    0x00000002  # CREDUI_FLAGS_DO_NOT_PERSIST
    | 0x00000008  # CREDUI_FLAGS_EXCLUDE_CERTIFICATES
    | 0x00000080  # CREDUI_FLAGS_ALWAYS_SHOW_UI
    | 0x00040000  # CREDUI_FLAGS_GENERIC_CREDENTIALS
    | 0x00100000  # CREDUI_FLAGS_KEEP_USERNAME
)
BOX: Final = (
    0x00000040  # MB_ICONINFORMATION
    | 0x00010000  # MB_SETFOREGROUND
    | 0x00040000  # MB_TOPMOST
)
USERNAME_UNITS: Final = 513 + 1
"""CREDUI_MAX_USERNAME_LENGTH and the end, in units of UTF-16."""
PASSWORD_UNITS: Final = 256 + 1
"""CREDUI_MAX_PASSWORD_LENGTH and the end, in units of UTF-16."""
_TARGET: Final = "cardwright"
_SYSTEM_FOLDER_ONLY: Final = 0x00000800
"""LOAD_LIBRARY_SEARCH_SYSTEM32."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One dialog. ``what`` names the value that is asked for; without it ``text`` is only shown."""

    title: str
    text: str
    what: str = ""


class Libraries(Protocol):
    """The two functions, of credui.dll and user32.dll."""

    def CredUIPromptForCredentialsW(self, *given: Any) -> int:
        """0, or an error of Windows."""

    def MessageBoxW(self, *given: Any) -> int:
        """The button, or 0 where no box could be shown."""


class Info(ctypes.Structure):
    """CREDUI_INFOW."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("parent", ctypes.c_void_p),
        ("message", ctypes.c_void_p),
        ("caption", ctypes.c_void_p),
        ("banner", ctypes.c_void_p),
    )


def shown(request: Request, libraries: Libraries) -> bytearray:
    """Show the dialog; the line for the daemon, for the caller to wipe."""
    title, text = _wide(request.title), _wide(request.text)
    if not request.what:
        button = libraries.MessageBoxW(None, text, title, BOX)
        return bytearray(b"+\n" if button else b"!0\n")
    info = Info(ctypes.sizeof(Info), None, ctypes.addressof(text), ctypes.addressof(title), None)
    username = _wide(request.what, USERNAME_UNITS)
    password = (ctypes.c_uint16 * PASSWORD_UNITS)()
    save = ctypes.c_int(0)
    try:
        error = libraries.CredUIPromptForCredentialsW(
            ctypes.byref(info), _wide(_TARGET), None, 0,
            username, USERNAME_UNITS, password, PASSWORD_UNITS, ctypes.byref(save), FLAGS,
        )  # fmt: skip
        return _typed(password) if error == 0 else bytearray(f"!{error & 0xFFFFFFFF}\n".encode())
    finally:
        ctypes.memset(password, 0, ctypes.sizeof(password))


def _typed(units: ctypes.Array[ctypes.c_uint16]) -> bytearray:
    """What was typed as UTF-8 in a line for the daemon; it is never in a text, one character at a time apart."""
    # Room for all that UTF-8 can take: a buffer that grows or shrinks leaves its octets behind.
    line, length, high = bytearray(3 * PASSWORD_UNITS + 2), 1, 0
    line[0] = ord("+")
    for unit in units:
        if not unit:
            break
        if 0xD800 <= unit < 0xDC00 and not high:
            high = unit
            continue
        point = 0x10000 + ((high - 0xD800) << 10) + (unit - 0xDC00) if high and 0xDC00 <= unit < 0xE000 else unit
        high = 0
        octets = chr(point).encode("utf-8", "replace")
        line[length : length + len(octets)] = octets
        length += len(octets)
    line[length] = ord("\n")
    exact = line[: length + 1]
    line[:] = bytes(len(line))
    return exact


def _wide(text: str, units: int = 0) -> ctypes.Array[ctypes.c_uint16]:
    """``text`` as WCHARs with their end, in ``units`` of them where that is given: what does not fit is cut."""
    octets = text.replace("\0", " ").encode("utf-16-le", "replace")
    wide = (ctypes.c_uint16 * (units or len(octets) // 2 + 1))()
    ctypes.memmove(wide, octets, min(len(octets), ctypes.sizeof(wide) - 2))
    return wide


class _Windows:
    """The libraries of the system, from the system's folder."""

    def __init__(self) -> None:
        if sys.platform == "win32":
            self.CredUIPromptForCredentialsW = ctypes.WinDLL(
                "credui.dll", winmode=_SYSTEM_FOLDER_ONLY
            ).CredUIPromptForCredentialsW
            self.MessageBoxW = ctypes.WinDLL("user32.dll", winmode=_SYSTEM_FOLDER_ONLY).MessageBoxW


def main(libraries: Libraries | None = None) -> None:
    """Show what standard input asks for, by ``libraries`` or the system's. Without Windows there is no answer."""
    request = msgspec.json.decode(sys.stdin.buffer.read(MAX_REQUEST), type=Request)
    if libraries is None and sys.platform != "win32":
        sys.exit("There are no dialogs of Windows here.")
    line = shown(request, libraries or cast(Libraries, _Windows()))
    try:
        os.write(sys.stdout.fileno(), line)
    finally:
        line[:] = bytes(len(line))


if __name__ == "__main__":
    main()
