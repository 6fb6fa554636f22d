"""The card's side of PIV secure messaging, CS2 and CS7 (SP 800-73-5 part 2 section 4), and its certificates.

Written from the standard apart from the client's code, so that each judges the other.

How the card's dispatch uses it::

    session = CardSession()
    # GENERAL AUTHENTICATE, key 04: data is the whole 7C template, p1 the algorithm octet (27 or 2E)
    answer = session.establish(data, p1, key, cvc)      # any session before it ends here
    if command.cla & 0x0C == 0x0C:
        plain = session.unwrap(command)                 # class 00 comes out
        response = session.wrap(ResponseAPDU(data, sw)) # outer 9000; 61xx when too long for one answer
    elif session.active: session.erase()                # any plain command ends the session
    session.erase()                                     # on SELECT and on card reset

``command`` is the whole logical command: blocks with class 1C are collected (each answered 9000, in clear) and
joined with the last one, whose class 0C goes into the MAC. GET RESPONSE is plain and does not end a session. Every
refusal is ``Refused``: send its status word bare and in clear; the keys are erased already.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

from cardwright_cardops.iso7816 import tlv
from cardwright_cardops.iso7816.apdu import MAX_SHORT_LE, CommandAPDU, ResponseAPDU
from cardwright_cardops.iso7816.status import SW

from .answers import Refused, require

CLASS: Final = 0x0C
INSTRUCTIONS: Final = frozenset((0xCB, 0x20, 0x24, 0x87))
"""GET DATA, VERIFY, CHANGE REFERENCE DATA, GENERAL AUTHENTICATE: what may come protected."""

ROLE_CARD: Final = 0x00
ROLE_SIGNER: Final = 0x12

_ICC_CONTROL: Final = b"\0"


@dataclass(frozen=True, slots=True)
class _Suite:
    """What one cipher suite is made of (SP 800-73-5 part 2 section 4.1)."""

    curve: ec.EllipticCurve
    curve_oid: bytes
    hash: str
    key_size: int
    nonce_size: int
    algorithm_octet: int

    @property
    def point_size(self) -> int:
        return 1 + 2 * ((self.curve.key_size + 7) // 8)


_SUITES: Final = {
    0x27: _Suite(ec.SECP256R1(), bytes.fromhex("2A8648CE3D030107"), "sha256", 16, 16, 0x09),
    0x2E: _Suite(ec.SECP384R1(), bytes.fromhex("2B81040022"), "sha384", 32, 24, 0x0D),
}

_ECDSA_SHA256: Final = bytes.fromhex("06082A8648CE3D040302")
_ECDSA_SHA384: Final = bytes.fromhex("06082A8648CE3D040303")
_RSA_SHA256: Final = bytes.fromhex("06092A864886F70D01010B0500")


@dataclass(slots=True)
class _Keys:
    mac: bytes = field(repr=False)
    enc: bytes = field(repr=False)
    rmac: bytes = field(repr=False)
    command_chaining: bytes = bytes(16)
    response_chaining: bytes = bytes(16)
    counter: int = 1


class CardSession:
    """Session keys between an establishment and the first thing that goes wrong."""

    def __init__(self) -> None:
        self._keys: _Keys | None = None

    @property
    def active(self) -> bool:
        """Whether there are session keys: the first half of the VCI condition."""
        return self._keys is not None

    def erase(self) -> None:
        """Forget the session keys."""
        self._keys = None

    def establish(
        self,
        data: bytes,
        algorithm: int,
        key: ec.EllipticCurvePrivateKey,
        cvc: bytes,
        draw: Callable[[int], bytes] = secrets.token_bytes,
    ) -> bytes:
        """Agree on session keys and answer the host's ``7C { 81, 82 }`` template.

        Refuses 6A86 when ``algorithm`` does not fit the card's key, 6A80 for a malformed request, a control
        octet that wants anything else than 00, or a point that is not on the curve.
        """
        self.erase()
        suite = _SUITES.get(algorithm)
        if suite is None or suite.curve.name != key.curve.name:
            raise Refused(SW.WRONG_P1P2)
        control, host_id, point = _read_request(data, suite)
        try:
            host_key = ec.EllipticCurvePublicKey.from_encoded_point(suite.curve, point)
        except ValueError as error:
            raise Refused(SW.WRONG_DATA) from error
        secret = key.exchange(ec.ECDH(), host_key)
        card_id = hashlib.sha256(cvc).digest()[:8]
        nonce = draw(suite.nonce_size)
        info = bytes((4, *[suite.algorithm_octet] * 4))
        for part in (host_id, control, point[1:17], card_id, nonce, _ICC_CONTROL):
            info += bytes((len(part),)) + part
        wanted = 4 * suite.key_size
        material, index = b"", 0
        while len(material) < wanted:
            index += 1
            material += hashlib.new(suite.hash, index.to_bytes(4, "big") + secret + info).digest()
        confirmation, mac, enc, rmac = (material[at : at + suite.key_size] for at in range(0, wanted, suite.key_size))
        cryptogram = _cmac(confirmation, b"KC_1_V" + card_id + host_id + point[1:])
        self._keys = _Keys(mac, enc, rmac)
        return tlv.encode(0x7C, tlv.encode(0x82, _ICC_CONTROL + nonce + cryptogram + cvc))

    def unwrap(self, command: CommandAPDU) -> CommandAPDU:
        """The plain command, class 00.

        Refuses 6882 for an instruction outside table 2, 6982 without session keys, 6987 for a missing MAC,
        6988 for anything wrong in it; each erases the keys.
        """
        keys, self._keys = self._keys, None
        require(command.cla == CLASS and command.ins in INSTRUCTIONS, SW.SM_NOT_SUPPORTED)
        if keys is None:
            raise Refused(SW.SECURITY_STATUS)
        try:
            objects = tlv.parse_all(command.data)
        except tlv.MalformedTlv as error:
            raise Refused(SW.SM_INCORRECT) from error
        tags = [item.tag for item in objects]
        require(0x8E in tags, SW.SM_MISSING)
        require(tags in ([0x8E], [0x87, 0x8E], [0x97, 0x8E], [0x87, 0x97, 0x8E]), SW.SM_INCORRECT)
        values = {item.tag: item.value for item in objects}
        head = bytes((CLASS, command.ins, command.p1, command.p2, 0x80)) + bytes(11)
        covered = command.data[: -len(objects[-1].encode())]
        full = _cmac(keys.mac, keys.command_chaining + head + covered)
        require(hmac.compare_digest(full[:8], values[0x8E]), SW.SM_INCORRECT)
        require(values.get(0x97, b"\0") == b"\0", SW.SM_INCORRECT)
        data = b""
        if 0x87 in values:
            cryptogram = values[0x87]
            require(cryptogram[:1] == b"\x01" and len(cryptogram) % 16 == 1 and len(cryptogram) > 1, SW.SM_INCORRECT)
            padded = _cbc(keys.enc, keys.counter.to_bytes(16, "big"), cryptogram[1:], decrypt=True)
            data, marker, zeros = padded.rpartition(b"\x80")
            require(bool(marker) and not zeros.strip(b"\0") and len(zeros) < 16, SW.SM_INCORRECT)
        keys.command_chaining = full
        self._keys = keys
        return CommandAPDU(0x00, command.ins, command.p1, command.p2, data, MAX_SHORT_LE if 0x97 in values else 0)

    def wrap(self, response: ResponseAPDU) -> ResponseAPDU:
        """The protected form of the plain answer to the command unwrapped last; the outer word is 9000.

        Without session keys (the command erased them) the answer goes out in clear.
        """
        keys = self._keys
        if keys is None:
            return response
        body = b""
        if response.data:
            padded = response.data + b"\x80" + bytes(15 - len(response.data) % 16)
            block = b"\x80" + keys.counter.to_bytes(15, "big")
            body = tlv.encode(0x87, b"\x01" + _cbc(keys.enc, block, padded, decrypt=False))
        body += tlv.encode(0x99, response.sw.to_bytes(2, "big"))
        keys.response_chaining = _cmac(keys.rmac, keys.response_chaining + body)
        keys.counter += 1
        return ResponseAPDU(body + tlv.encode(0x8E, keys.response_chaining[:8]), SW.OK)


def make_cvc(
    public_key: ec.EllipticCurvePublicKey,
    subject: bytes,
    issuer: bytes,
    signer: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    *,
    role: int = ROLE_CARD,
) -> bytes:
    """A card verifiable certificate, tag 7F21 (SP 800-73-5 part 2 section 4.1).

    ``subject`` is the card's GUID (16 octets), ``issuer`` the first 8 octets of the signing certificate's
    subject key identifier, or the subject id of the intermediate certificate. An intermediate certificate
    has the role ``ROLE_SIGNER`` and the subject ``intermediate_subject(public_key)``.
    """
    curve_oid = next(suite.curve_oid for suite in _SUITES.values() if suite.curve.name == public_key.curve.name)
    key = tlv.encode(0x06, curve_oid) + _point_object(public_key)
    body = (
        tlv.encode(0x5F29, b"\x80")
        + tlv.encode(0x42, issuer)
        + tlv.encode(0x5F20, subject)
        + tlv.encode(0x7F49, key)
        + tlv.encode(0x5F4C, bytes((role,)))
    )
    if isinstance(signer, rsa.RSAPrivateKey):
        algorithm = _RSA_SHA256
        signature = signer.sign(body, padding.PKCS1v15(), hashes.SHA256())
    else:
        large = signer.curve.key_size > 256
        algorithm = _ECDSA_SHA384 if large else _ECDSA_SHA256
        signature = signer.sign(body, ec.ECDSA(hashes.SHA384() if large else hashes.SHA256()))
    signed = tlv.encode(0x30, tlv.encode(0x30, algorithm) + tlv.encode(0x03, b"\0" + signature))
    return tlv.encode(0x7F21, body + tlv.encode(0x5F37, signed))


def intermediate_subject(public_key: ec.EllipticCurvePublicKey) -> bytes:
    """The subject id of an intermediate certificate: 8 octets of SHA-1 over the public point's data object."""
    return hashlib.sha1(_point_object(public_key)).digest()[:8]


def _point_object(public_key: ec.EllipticCurvePublicKey) -> bytes:
    point = public_key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return tlv.encode(0x86, point)


def _read_request(data: bytes, suite: _Suite) -> tuple[bytes, bytes, bytes]:
    """Control octet, host id and ephemeral point of the 7C template."""
    try:
        template = tlv.parse_unique(tlv.parse_one(data, 0x7C).value)
    except tlv.MalformedTlv as error:
        raise Refused(SW.WRONG_DATA) from error
    require(set(template) == {0x81, 0x82} and not template[0x82])
    value = template[0x81]
    # The high nibble asks for persistent binding, which the standard leaves out.
    require(len(value) == 1 + 8 + suite.point_size and value[0] & 0xF0 == 0x00 and value[9] == 0x04)
    return value[:1], value[1:9], value[9:]


def _cmac(key: bytes, message: bytes) -> bytes:
    state = CMAC(algorithms.AES(key))
    state.update(message)
    return state.finalize()


def _cbc(key: bytes, counter_block: bytes, data: bytes, *, decrypt: bool) -> bytes:
    aes = algorithms.AES(key)
    first = Cipher(aes, modes.ECB()).encryptor()
    iv = first.update(counter_block) + first.finalize()
    cipher = Cipher(aes, modes.CBC(iv))
    run = cipher.decryptor() if decrypt else cipher.encryptor()
    return run.update(data) + run.finalize()
