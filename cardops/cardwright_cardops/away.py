"""Which error codes say that a card, a token or the way to it was away, and not that something was refused.

Codes and not classes, as the same error comes from another machine too: the daemon goes on by itself with what such an
error broke off, whether it was raised here or the server tells it back, and the server counts the session as broken
off. A module of its own that imports nothing, since the classes load PC/SC and PKCS#11.
"""

from __future__ import annotations

from typing import Final

CARD_AWAY: Final = frozenset(
    {
        "CARD_BUSY",
        "CARD_DEADLINE",
        "CARD_REMOVED",
        "CARD_RESET",
        "CARD_UNRESPONSIVE",
        "CONNECTION_OVER",
        "NO_CARD",
        "NO_READER",
        "PCSC_ACCESS_DENIED",
        "PCSC_FAILURE",
        "PCSC_NOT_RUNNING",
        "READER_GONE",
        "STAGE_ENDED",
        "TRANSPORT",
    }
)
"""Every TransportError, also PCSC_ACCESS_DENIED: polkit takes the card from a user whose screen is locked, and gives it
back. STAGE_ENDED is the daemon's: no batch came for seconds, and server or line may be quicker the next time."""

TOKEN_AWAY: Final = frozenset(
    {
        "PKCS11_ANSWER_INVALID",
        "PKCS11_DEVICE_ERROR",
        "PKCS11_MODULE_CRASHED",
        "PKCS11_MODULE_UNUSABLE",
        "PKCS11_SESSION",
        "PKCS11_TIMEOUT",
        "PKCS11_TOKEN_NOT_FOUND",
        "PKCS11_TOKEN_REMOVED",
    }
)
"""Of a token whose module worked at the preview. PKCS11_MODULE_UNUSABLE is then a service that the module needs and
that is away: OpenSC's and ykcs11's find no pcscd, SoftHSM2's no folder. PKCS11_FAILED is none: nobody knows what the
module meant, and the same step would mostly fail again."""

AWAY: Final = CARD_AWAY | TOKEN_AWAY
