"""Tokens behind a PKCS#11 module as devices.

``Module(path).tokens()`` gives ``Token`` objects; each module runs in a process of its own.
"""

from .capabilities import Ability, Capability, TokenCapabilities
from .inventory import CertificateEntry, KeyEntry, TokenInventory
from .keys import TokenEcKey, TokenRsaKey
from .module import Module
from .process import Deadlines
from .quirks import UnlockBy
from .token import Token
from .values import KeyAlgorithm, LoginState, Mechanism, ModuleInfo, PinState, TokenInfo, User

__all__ = [
    "Ability",
    "Capability",
    "CertificateEntry",
    "Deadlines",
    "KeyAlgorithm",
    "KeyEntry",
    "LoginState",
    "Mechanism",
    "Module",
    "ModuleInfo",
    "PinState",
    "Token",
    "TokenCapabilities",
    "TokenEcKey",
    "TokenInfo",
    "TokenInventory",
    "TokenRsaKey",
    "UnlockBy",
    "User",
]
