"""The root of every error: what happened, what it means for the card, what to do, and a stable code.

Concrete errors live beside the code that raises them. Each class sets ``code`` (listed in docs/errors.md)
and, where one sentence fits all its instances, ``effect`` and ``advice``.
"""

from __future__ import annotations

from typing import ClassVar


class CardwrightError(Exception):
    """Base of all errors of this project.

    ``str(error)`` says what happened. ``effect`` says what it means for the card, ``advice`` what to do;
    both may be empty. No error text ever holds a PIN, a PUK, a key or data read under a PIN.
    """

    code: ClassVar[str] = "INTERNAL"
    default_effect: ClassVar[str] = ""
    default_advice: ClassVar[str] = ""

    def __init__(self, message: str, *, effect: str | None = None, advice: str | None = None) -> None:
        super().__init__(message)
        self.effect = self.default_effect if effect is None else effect
        self.advice = self.default_advice if advice is None else advice

    @property
    def message(self) -> str:
        """What happened, one sentence."""
        return str(self.args[0])

    def explain(self) -> str:
        """The whole text for a person: what happened, what it means for the card, what to do."""
        return " ".join(part for part in (self.message, self.effect, self.advice) if part)
