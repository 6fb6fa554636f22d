"""In place of credui.dll and user32.dll: checks how it is called, and answers as told."""

from __future__ import annotations

import ctypes
from typing import Any

from cardwright_daemon.credui import Info


def wide(place: int) -> str:
    """The text that a pointer to WCHARs leads to."""
    end = place
    while ctypes.string_at(end, 2) != b"\0\0":
        end += 2
    return ctypes.string_at(place, end - place).decode("utf-16-le")


class Library:
    """Answers with ``typed``, or with ``error``; what it was called with is in the other attributes."""

    def __init__(self, typed: bytes = b"", error: int = 0, button: int = 1) -> None:
        self.typed, self.error, self.button = typed, error, button
        self.texts: list[str] = []
        self.password: Any = None

    def CredUIPromptForCredentialsW(self, *given: Any) -> int:
        info, target, context, reason, user, user_units, password, password_units, save, flags = given
        # CREDUI_INFOW: a DWORD, then four pointers.
        assert info._obj.size == ctypes.sizeof(Info) == 5 * ctypes.sizeof(ctypes.c_void_p)
        assert (info._obj.parent, info._obj.banner, context, reason, save._obj.value) == (None, None, None, 0, 0)
        assert (user_units, password_units, flags) == (514, 257, 0x14008A)
        assert (len(user), len(password)) == (user_units, password_units) and not any(password)
        places = (info._obj.caption, info._obj.message, ctypes.addressof(target), ctypes.addressof(user))
        self.texts = [wide(place) for place in places]
        self.password = password
        ctypes.memmove(password, self.typed, len(self.typed))
        return self.error

    def MessageBoxW(self, *given: Any) -> int:
        parent, text, caption, flags = given
        assert (parent, flags) == (None, 0x50040)
        self.texts = [wide(ctypes.addressof(caption)), wide(ctypes.addressof(text))]
        return self.button
