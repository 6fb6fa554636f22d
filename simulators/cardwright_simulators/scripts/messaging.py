"""Secure messaging as scripts need it: the ordinary session, and commands protected wrongly on purpose."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB
from cryptography.hazmat.primitives.cmac import CMAC

from cardwright_cardops.iso7816 import tlv
from cardwright_cardops.iso7816.apdu import CommandAPDU, ResponseAPDU
from cardwright_cardops.iso7816.exchange import Sends
from cardwright_cardops.piv import containers
from cardwright_cardops.piv.cvc import ContentSigner, Cvc
from cardwright_cardops.piv.objects import SmSigner
from cardwright_cardops.piv.secure_messaging import (
    SmHandshake,
    SmSession,
    SmSessionKeys,
    SmSuite,
    derive_session_keys,
    other_info,
)
from cardwright_cardops.piv.signing import digest
from cardwright_cardops.secret import Secret

_HOST_ID: Final = bytes.fromhex("4361726477726967")
_BLOCK: Final = 16


class Messaging:
    """A session with a card. ``session`` is the host's ordinary end of it; raises what that raises."""

    def __init__(self, suite: SmSuite, below: Sends, signer: bytes | None) -> None:
        """Set it up; ``signer`` is the card's answer for container 5FC122, None to take any certificate."""
        ephemeral = ec.generate_private_key(suite.parameters.curve)
        handshake = SmHandshake(suite, host_id=_HOST_ID, ephemeral=ephemeral)
        answer = below.send(handshake.command)
        self.session: SmSession = handshake.finish(answer, None if signer is None else _signer(signer))
        self._keys = _keys(suite, ephemeral, handshake.command, answer, self.session.card.certificate)

    def protect(self, command: CommandAPDU, *, padded: bool) -> bytes:
        """The data field of ``command`` under protection; not ``padded``: genuine but for the padding inside.

        The session counts such a command as it counts any other.
        """
        before = self.session.snapshot()
        wrapped = self.session.wrap(command)
        if padded:
            return wrapped.data
        zeros = command.data + bytes(-len(command.data) % _BLOCK)
        body = tlv.encode(0x87, b"\x01" + self._encipher(zeros, self.session.snapshot().counter))
        if command.le:
            body += tlv.encode(0x97, b"\0")
        mac = CMAC(AES(self._keys.mac.reveal()))
        mac.update(before.chaining + wrapped.header + b"\x80" + bytes(11) + body)
        return body + tlv.encode(0x8E, mac.finalize()[:8])

    def _encipher(self, padded: bytes, counter: int) -> bytes:
        key = AES(self._keys.enc.reveal())
        iv = Cipher(key, ECB()).encryptor().update(counter.to_bytes(_BLOCK, "big"))
        return Cipher(key, CBC(iv)).encryptor().update(padded)


def _signer(answer: bytes) -> ContentSigner:
    stored = SmSigner.decode(containers.unwrap(containers.SM_SIGNER.tag, answer))
    return ContentSigner.load(stored.der, stored.intermediate_cvc)


def _keys(
    suite: SmSuite, ephemeral: ec.EllipticCurvePrivateKey, command: CommandAPDU, answer: ResponseAPDU, cvc: Cvc
) -> SmSessionKeys:
    """The session keys once more, which the session keeps to itself."""
    request = tlv.parse_unique(tlv.parse_one(command.data, 0x7C).value)[0x81]
    value = tlv.parse_one(tlv.parse_one(answer.data, 0x7C).value, 0x82).value
    nonce = value[1 : 1 + suite.parameters.nonce_size]
    info = other_info(suite, request[1:9], request[9:], digest(cvc.raw, hashes.SHA256())[:8], nonce)
    return derive_session_keys(suite, Secret(ephemeral.exchange(ec.ECDH(), cvc.public_key)), info)
