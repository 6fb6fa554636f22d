"""PUT KEY: a new SCP03 key set for a security domain (Card Specification section 11.8, Amendment D section 7.2)."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB

from ..iso7816.apdu import MAX_SHORT_LE, CommandAPDU, ResponseAPDU
from ..iso7816.status import SW, error_for
from ..secret import Secret
from .scp03 import CLA_GLOBALPLATFORM, Scp03AnswerMalformed, Scp03Error, Scp03KeyInvalid, StaticKeys

INS_PUT_KEY: Final = 0xD8
SEVERAL_FROM_FIRST: Final = 0x81
"""P2: several keys, the first has identifier 1."""

KEY_TYPE_AES: Final = 0x88
KEY_CHECK_SIZE: Final = 3
_BLOCK: Final = 16


class Scp03KeyCheckMismatch(Scp03Error):
    """The card stored other keys than were sent, going by its key check values."""

    code = "SCP03_KEY_CHECK_MISMATCH"
    default_effect = "The card has new secure channel keys, and they are not known."
    default_advice = "Keep this session open and send the keys again; otherwise the domain may be lost."


@dataclass(frozen=True, slots=True)
class PutKey:
    """The plain command, for the channel to wrap, and what the card answers when it stored these keys."""

    command: CommandAPDU
    confirmation: bytes = field(repr=False)

    def check(self, response: ResponseAPDU) -> None:
        """Whether the unwrapped ``response`` confirms the keys: their version, then each check value.

        Raises StatusError for a status word other than 9000, Scp03AnswerMalformed for an answer of another
        length or version, Scp03KeyCheckMismatch for other check values.
        """
        if response.sw != SW.OK:
            raise error_for(response.sw, "storing secure channel keys")
        if len(response.data) != len(self.confirmation) or response.data[0] != self.confirmation[0]:
            raise Scp03AnswerMalformed(
                "The card did not confirm the key version that it was sent.",
                effect="Whether the card has the new secure channel keys is not known.",
                advice="Open a channel with the new keys; if that fails, the old ones are still in place.",
            )
        if not hmac.compare_digest(response.data, self.confirmation):
            raise Scp03KeyCheckMismatch("The card's key check values are not those of the keys it was sent.")


def key_check_value(key: Secret) -> bytes:
    """The first 3 octets of sixteen 01 octets encrypted with ``key`` (Amendment D section 7.2)."""
    return Cipher(AES(key.reveal()), ECB()).encryptor().update(b"\x01" * _BLOCK)[:KEY_CHECK_SIZE]


def put_key(new_version: int, keys: StaticKeys, dek: Secret, *, replaces: int = 0, inner_length: bool = True) -> PutKey:
    """The command that stores ``keys`` as version ``new_version`` (1 to 127).

    ``dek`` is the static Key-DEK of the key set that the channel was opened with. ``replaces`` is the version that
    goes, 0 to add a key set. ``inner_length`` puts the length of the clear key before each encrypted one, as
    Amendment D table 7-10 has it; YubiKeys want it left out, which has no way to tell the length of a
    24-octet key. Raises Scp03KeyInvalid for such a key and for versions out of range.
    """
    if not 1 <= new_version <= 0x7F:
        raise Scp03KeyInvalid(f"{new_version} is no version number for a new key set.")
    if not (0 <= replaces <= 0x7F or replaces == 0xFF):
        raise Scp03KeyInvalid(f"{replaces} is not the version number of a key set.")
    if not inner_length and len(keys.enc) % _BLOCK:
        raise Scp03KeyInvalid("This card's form of PUT KEY cannot carry keys of 24 octets.")
    data = confirmation = bytes((new_version,))
    for key in (keys.enc, keys.mac, keys.dek):
        check = key_check_value(key)
        value = _encrypt(dek, key)
        if inner_length:
            value = bytes((len(key),)) + value
        data += bytes((KEY_TYPE_AES, len(value))) + value + bytes((KEY_CHECK_SIZE,)) + check
        confirmation += check
    command = CommandAPDU(CLA_GLOBALPLATFORM, INS_PUT_KEY, replaces, SEVERAL_FROM_FIRST, data, MAX_SHORT_LE)
    return PutKey(command, confirmation)


def _encrypt(dek: Secret, key: Secret) -> bytes:
    """AES-CBC with a zero ICV; a key of 24 octets is filled up to 32."""
    clear = key.reveal()
    return Cipher(AES(dek.reveal()), CBC(bytes(_BLOCK))).encryptor().update(clear + bytes(-len(clear) % _BLOCK))
