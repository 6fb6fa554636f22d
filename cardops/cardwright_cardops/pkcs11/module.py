"""A PKCS#11 module and the tokens in it."""

from __future__ import annotations

from .errors import TokenNotFound
from .messages import ListTokens
from .process import ModuleProcess
from .token import Token
from .values import TokenInfo


class Module(ModuleProcess):
    """One module: its process, and the tokens that are found through it."""

    def tokens(self) -> tuple[Token, ...]:
        """Every initialized token, in the order of the slots. Raises Pkcs11Error."""
        found = self.ask(ListTokens(), list[TokenInfo], self.deadlines.read)
        quirks = self.quirks
        return tuple(Token(self, info, quirks) for info in found if info.initialized)

    def token(self, *, serial: str | None = None, label: str | None = None) -> Token:
        """The one token that fits. Raises TokenNotFound if none or several do, else as ``tokens``."""
        found = [
            token
            for token in self.tokens()
            if serial in (None, token.info.identity.serial) and label in (None, token.info.identity.label)
        ]
        if len(found) == 1:
            return found[0]
        if not found:
            raise TokenNotFound("No token in this module fits.")
        serials = ", ".join(token.info.identity.serial for token in found)
        raise TokenNotFound(f"Several tokens fit: serial numbers {serials}.")
