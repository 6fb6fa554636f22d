"""Keys of one card from one master key: SP 800-108 in counter mode with AES-CMAC.

    key = KBKDFCMAC(master, label, context, L)        counter and L of 4 octets, counter first

    label   = "cardwright.diversified-key.1"
    context = len(purpose) || purpose || len(organization) || organization || len(card) || card || generation

Each ``len`` has 2 octets, ``generation`` 4, texts are UTF-8. Every field says where it ends, so two different
sets of values never give the same context, and L makes keys of different lengths unrelated. Changing any
of this makes every issued card unmanageable: a new encoding gets a new label.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFCMAC, CounterLocation, Mode

from ..secret import Secret
from .scp03 import KEY_SIZES, Scp03KeyInvalid, StaticKeys

LABEL: Final = b"cardwright.diversified-key.1"
_MAX_FIELD: Final = 0xFFFF
_MAX_GENERATION: Final = 0xFFFFFFFF


class KeyPurpose(Enum):
    """What a diversified key is for. The values are part of every derivation and never change."""

    SCP03_ENC = "scp03-enc"
    SCP03_MAC = "scp03-mac"
    SCP03_DEK = "scp03-dek"
    MANAGEMENT_KEY = "management-key"
    PUK = "puk"


@dataclass(frozen=True, slots=True)
class CardContext:
    """Whose keys: an organization's id, a card's id, and how often its keys were changed (0 to 2^32 - 1)."""

    organization: str
    card: str
    generation: int

    def encode(self, purpose: KeyPurpose) -> bytes:
        """The derivation context of this module's docstring.

        Raises Scp03KeyInvalid for an empty or over-long id, or a generation out of range.
        """
        if not 0 <= self.generation <= _MAX_GENERATION:
            raise Scp03KeyInvalid(f"{self.generation} is no key generation.")
        fields = [text.encode() for text in (purpose.value, self.organization, self.card)]
        if not all(0 < len(text) <= _MAX_FIELD for text in fields):
            raise Scp03KeyInvalid("Organization and card have an id of 1 to 65535 octets.")
        named = b"".join(len(text).to_bytes(2, "big") + text for text in fields)
        return named + self.generation.to_bytes(4, "big")


def diversify(master: Secret, purpose: KeyPurpose, card: CardContext, size: int) -> Secret:
    """A key of ``size`` octets (1 to 32) for one purpose and one card.

    ``master`` is an AES key of 16, 24 or 32 octets. Raises Scp03KeyInvalid for other sizes and for a
    context that cannot be encoded.
    """
    if len(master) not in KEY_SIZES:
        raise Scp03KeyInvalid("A master key has 16, 24 or 32 octets.")
    if not 1 <= size <= max(KEY_SIZES):
        raise Scp03KeyInvalid(f"A diversified key cannot have {size} octets.")
    return Secret(
        KBKDFCMAC(
            AES,
            Mode.CounterMode,
            size,
            rlen=4,
            llen=4,
            location=CounterLocation.BeforeFixed,
            label=LABEL,
            context=card.encode(purpose),
            fixed=None,
        ).derive(master.reveal())
    )


def diversify_scp03(master: Secret, card: CardContext, size: int) -> StaticKeys:
    """The SCP03 key set of one card: three keys of ``size`` octets (16, 24 or 32).

    Raises Scp03KeyInvalid.
    """
    return StaticKeys(
        diversify(master, KeyPurpose.SCP03_ENC, card, size),
        diversify(master, KeyPurpose.SCP03_MAC, card, size),
        diversify(master, KeyPurpose.SCP03_DEK, card, size),
    )
