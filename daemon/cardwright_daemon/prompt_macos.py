"""Questions by the dialogs of macOS. UNTESTED on it: no macOS machine was at hand; tests play osascript.

osascript shows the dialogs of its own process, so no other application has to be allowed to be controlled, and reads
the script from its standard input.
"""

from __future__ import annotations

import math
import re
from typing import Final

from .dialog_program import DialogProgram

PROGRAM: Final = "/usr/bin/osascript"
_USER_CANCELLED: Final = -128
"""userCanceledErr, MacErrors.h."""
_LEFT_ALONE_SECONDS: Final = 10
"""How much longer than the daemon's limit a dialog stands whose daemon died."""

_SCRIPT: Final = """\
on run
	try
		activate
	end try
	try
		set given to display dialog {text} with title {title} {kind} giving up after {seconds}
		if gave up of given then error number -1712
		return "+"{answer}
	on error number problem
		return "!" & problem
	end try
end run
"""
_PRINTABLE: Final = re.compile(r"([ -~]+)")


def literal(text: str) -> str:
    """``text`` as an expression of AppleScript, in printable ASCII.

    Quoted strings hold printable ASCII with backslash and quotation mark escaped; every other character is a number.
    """
    parts = []
    for index, run in enumerate(_PRINTABLE.split(text)):
        if index % 2:
            escaped = run.replace("\\", "\\\\").replace('"', '\\"')
            parts.append(f'"{escaped}"')
        else:
            parts += [f"(character id {ord(character)})" for character in run]
    return f"({' & '.join(parts)})" if parts else '""'


class MacDialog(DialogProgram):
    """One osascript process."""

    name = "dialog of macOS"
    cancelled = _USER_CANCELLED

    def __init__(self, seconds: float, program: str = PROGRAM) -> None:
        """``seconds`` are for a person to answer. Raises PinentryUnavailable."""
        super().__init__((program, "-"), seconds)

    def _asking(self, title: str, text: str, prompt: str) -> bytes:
        kind = (
            'default answer "" buttons {"Cancel", "OK"} default button "OK" cancel button "Cancel" with hidden answer'
        )
        return self._script(title, f"{text}\n\n{prompt}", kind, " & (text returned of given)")

    def _telling(self, title: str, text: str) -> bytes:
        return self._script(title, text, 'buttons {"OK"} default button "OK"', "")

    def _script(self, title: str, text: str, kind: str, answer: str) -> bytes:
        seconds = math.ceil(self._seconds) + _LEFT_ALONE_SECONDS
        filled = _SCRIPT.format(text=literal(text), title=literal(title), kind=kind, answer=answer, seconds=seconds)
        return filled.encode("ascii")
