"""Secure messaging with a PIV card, cipher suites CS2 and CS7 (SP 800-73-5 part 2 section 4), the host's side.

Setting up a session::

    handshake = SmHandshake(SmSuite.CS2)
    session = handshake.finish(card(handshake.command), signer)
    plain = session.unwrap(card(session.wrap(command)))

``wrap`` gives the complete protected command with class 0C; the executing end splits it into blocks (class
1C, the last 0C) and fetches the rest of a long answer with plain GET RESPONSE. A batch may be wrapped ahead and
rolled back to the last executed command, as with an SCP03 channel: ``snapshot`` after each ``wrap``,
``unwrap(answer, after=...)`` in order, ``restore``. After a doubt, set up a new session.

``SmExchange`` does these three steps for every command. ``session.card`` is the result of the SM-AUTH
authentication mechanism (SP 800-73-5 part 1 appendix B).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import ClassVar, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash

from ..iso7816 import tlv
from ..iso7816.apdu import MAX_EXTENDED, MAX_SHORT_LE, CommandAPDU, ResponseAPDU
from ..iso7816.exchange import Sends
from ..iso7816.status import SW, StatusError, error_for
from ..secret import Secret
from .cvc import ContentSigner, Cvc, CvcMalformed, CvcRole, SmError, verify_cvc
from .references import SECURE_MESSAGING_KEY

CLA_PROTECTED: Final = 0x0C
HOST_ID_SIZE: Final = 8

INS_GENERAL_AUTHENTICATE: Final = 0x87
PROTECTABLE: Final = frozenset((0xCB, 0x20, 0x24, INS_GENERAL_AUTHENTICATE))
"""GET DATA, VERIFY, CHANGE REFERENCE DATA, GENERAL AUTHENTICATE (SP 800-73-5 part 2 table 2)."""

_BLOCK: Final = 16
_MAC: Final = 8
_PADDING: Final = 0x80
_RESPONSE_COUNTER: Final = 1 << 127
_HOST_CONTROL: Final = b"\0"
_CARD_CONTROL: Final = b"\0"


class SmAnswerMalformed(SmError):
    """The card's answer to the key establishment is not what the standard describes."""

    code = "SM_ANSWER_MALFORMED"
    default_advice = "The card does not do secure messaging as expected; use it in a contact reader without it."


class SmCryptogramMismatch(SmError):
    """The card does not have the private key of the certificate that it showed."""

    code = "SM_CRYPTOGRAM_MISMATCH"
    default_effect = "The card did not prove what it is; no protected session was set up."
    default_advice = "Do not enter a PIN. The card may be a copy, or something on the way altered the answer."


class SmCommandUnfit(SmError):
    """A command that is not sent protected, or has too much data."""

    code = "SM_COMMAND_UNFIT"
    default_effect = "Nothing was sent to the card."
    default_advice = "This is a defect of the program that made it; please report it."


class SmResponseInvalid(SmError):
    """A response whose protection is missing or wrong. The session is closed for good."""

    code = "SM_RESPONSE_INVALID"
    default_effect = "Whether the card carried out the command is not known."
    default_advice = "Start again; if it happens each time, something between program and card alters answers."


class SmSessionClosed(SmError):
    """The session was closed, by its owner, by the card or by a response that was not genuine."""

    code = "SM_SESSION_CLOSED"
    default_effect = "Nothing was sent to the card."
    default_advice = "Set up a new protected session."


class SmSessionLost(StatusError):
    """6982 in clear: the card has no session keys any more."""

    code = "SM_SESSION_LOST"
    meaning: ClassVar[str] = "the card has dropped the protected session"
    default_advice = "Set up a new protected session; another program may have used the card."


@dataclass(frozen=True, slots=True)
class _Parameters:
    curve: ec.EllipticCurve
    hash: hashes.HashAlgorithm
    key_size: int
    nonce_size: int
    algorithm_id: bytes


class SmSuite(Enum):
    """Cipher suites; the value is the algorithm identifier (SP 800-78-5)."""

    CS2 = 0x27
    CS7 = 0x2E

    @property
    def parameters(self) -> _Parameters:
        """Curve, hash, sizes of the suite."""
        return _PARAMETERS[self]


_PARAMETERS: Final = {
    SmSuite.CS2: _Parameters(ec.SECP256R1(), hashes.SHA256(), 16, 16, b"\x09" * 4),
    SmSuite.CS7: _Parameters(ec.SECP384R1(), hashes.SHA384(), 32, 24, b"\x0d" * 4),
}


@dataclass(frozen=True, slots=True)
class SmSessionKeys:
    """SK_CFRM, SK_MAC, SK_ENC and SK_RMAC, in the order they are derived."""

    confirmation: Secret
    mac: Secret
    enc: Secret
    rmac: Secret


@dataclass(frozen=True, slots=True)
class SmCard:
    """The card at the other end. Only a ``proven`` one is known to be the card of this ``guid``.

    ``signer`` is the content signing certificate that vouches for it, None when none was given.
    """

    guid: bytes
    certificate: Cvc = field(repr=False)
    signer: x509.Certificate | None

    @property
    def proven(self) -> bool:
        """Whether the certificate was checked against its signer (the card showed its key in any case)."""
        return self.signer is not None


@dataclass(frozen=True, slots=True)
class SmState:
    """Where the sending half of a session stands: MAC chaining value, number of commands wrapped."""

    chaining: bytes
    counter: int

    def __repr__(self) -> str:
        return f"SmState(counter={self.counter})"


class SmHandshake:
    """One key establishment (one-pass Diffie-Hellman, section 4.1). ``finish`` may be called once.

    ``host_id`` are 8 octets of the host's choice, ``ephemeral`` its one-time key (a new one if not given).
    Raises SmCommandUnfit for an id or a key that does not fit the suite.
    """

    __slots__ = ("_ephemeral", "_host_id", "_point", "suite")

    def __init__(
        self,
        suite: SmSuite,
        *,
        host_id: bytes = bytes(HOST_ID_SIZE),
        ephemeral: ec.EllipticCurvePrivateKey | None = None,
    ) -> None:
        curve = suite.parameters.curve
        key = ec.generate_private_key(curve) if ephemeral is None else ephemeral
        if len(host_id) != HOST_ID_SIZE or key.curve.name != curve.name:
            raise SmCommandUnfit("A host has an id of 8 octets and a key on the curve of the cipher suite.")
        self.suite = suite
        self._host_id = host_id
        self._ephemeral: ec.EllipticCurvePrivateKey | None = key
        self._point = key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )

    @property
    def command(self) -> CommandAPDU:
        """GENERAL AUTHENTICATE with key 04."""
        request = tlv.encode(0x81, _HOST_CONTROL + self._host_id + self._point) + tlv.encode(0x82, b"")
        return CommandAPDU(
            0x00,
            INS_GENERAL_AUTHENTICATE,
            self.suite.value,
            SECURE_MESSAGING_KEY,
            tlv.encode(0x7C, request),
            MAX_SHORT_LE,
        )

    def finish(self, response: ResponseAPDU, signer: ContentSigner | None, *, at: datetime | None = None) -> SmSession:
        """Check the card's answer and give the session.

        Without ``signer`` the card shows that it has the key of its certificate, but nobody vouches for that
        certificate: the session then protects from listeners, not from a false card, and
        ``session.card.proven`` is False. Raises StatusError (6A86: the card has no key for this suite),
        SmAnswerMalformed, CvcMalformed, CvcUntrusted, SmCryptogramMismatch, SmSessionClosed on a second call.
        """
        if self._ephemeral is None:
            raise SmSessionClosed("A key establishment is used once.")
        ephemeral, self._ephemeral = self._ephemeral, None
        if response.sw != SW.OK:
            raise error_for(response.sw, "setting up secure messaging")
        nonce, cryptogram, cvc = self._read(response.data)
        certificate = Cvc.parse(cvc)
        if certificate.role is not CvcRole.CARD:
            raise CvcMalformed("The card showed a signer's certificate as its own.")
        parameters = self.suite.parameters
        if certificate.public_key.curve.name != parameters.curve.name:
            raise SmAnswerMalformed("The card's key is not on the curve of the cipher suite.")
        if signer is not None:
            verify_cvc(certificate, signer, at=at)
        card_id = _card_id(cvc)
        keys = derive_session_keys(
            self.suite,
            Secret(ephemeral.exchange(ec.ECDH(), certificate.public_key)),
            other_info(self.suite, self._host_id, self._point, card_id, nonce),
        )
        expected = _cmac(keys.confirmation, b"KC_1_V", card_id, self._host_id, self._point[1:])
        keys.confirmation.wipe()
        if not hmac.compare_digest(expected, cryptogram):
            raise SmCryptogramMismatch("The card's authentication cryptogram is wrong.")
        card = SmCard(certificate.subject, certificate, None if signer is None else signer.certificate)
        return SmSession(self.suite, card, keys)

    def _read(self, data: bytes) -> tuple[bytes, bytes, bytes]:
        """Nonce, cryptogram and certificate of the answer."""
        try:
            value = tlv.parse_one(tlv.parse_one(data, 0x7C).value, 0x82).value
        except tlv.MalformedTlv as error:
            raise SmAnswerMalformed("The card's answer to the key establishment cannot be read.") from error
        nonce_end = 1 + self.suite.parameters.nonce_size
        cryptogram_end = nonce_end + _BLOCK
        if value[:1] != _CARD_CONTROL or len(value) <= cryptogram_end:
            raise SmAnswerMalformed("The card's answer is too short, or asks for an unknown control octet.")
        return value[1:nonce_end], value[nonce_end:cryptogram_end], value[cryptogram_end:]


def other_info(suite: SmSuite, host_id: bytes, point: bytes, card_id: bytes, nonce: bytes) -> bytes:
    """What session keys depend on besides the shared secret; ``point`` is the host's, uncompressed."""
    parts = (suite.parameters.algorithm_id, host_id, _HOST_CONTROL, point[1:17], card_id, nonce, _CARD_CONTROL)
    return b"".join(bytes((len(part),)) + part for part in parts)


def derive_session_keys(suite: SmSuite, shared: Secret, info: bytes) -> SmSessionKeys:
    """The four session keys (one-step derivation of SP 800-56C)."""
    parameters = suite.parameters
    size = parameters.key_size
    material = ConcatKDFHash(parameters.hash, 4 * size, info).derive(shared.reveal())
    return SmSessionKeys(*(Secret(material[at : at + size]) for at in range(0, 4 * size, size)))


class SmSession:
    """A protected session with ``card``. Not safe for two threads at once."""

    __slots__ = ("_closed", "_keys", "_response_chaining", "_state", "card", "suite")

    def __init__(self, suite: SmSuite, card: SmCard, keys: SmSessionKeys) -> None:
        self.suite = suite
        self.card = card
        self._keys = keys
        self._state = SmState(bytes(_BLOCK), 0)
        self._response_chaining = bytes(_BLOCK)
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether ``wrap`` and ``unwrap`` refuse."""
        return self._closed

    def close(self) -> None:
        """Wipe the session keys. Further calls do nothing."""
        self._closed = True
        for key in (self._keys.mac, self._keys.enc, self._keys.rmac):
            key.wipe()

    def snapshot(self) -> SmState:
        """Where the sending half stands now."""
        return self._state

    def restore(self, state: SmState) -> None:
        """Go back to ``state``, when nothing wrapped since then reached the card. Raises SmSessionClosed."""
        self._require_open()
        self._state = state

    def wrap(self, command: CommandAPDU) -> CommandAPDU:
        """The protected form of ``command`` (section 4.2): class 0C, the whole data field, Le 00.

        Raises SmCommandUnfit for a class other than 00, an instruction that is not protected, or too much data;
        SmSessionClosed.
        """
        self._require_open()
        if command.cla or command.ins not in PROTECTABLE:
            raise SmCommandUnfit(f"The command {command.header.hex().upper()} is not sent protected.")
        counter = self._state.counter + 1
        body = b""
        if command.data:
            padded = command.data + bytes((_PADDING,)) + bytes(-(len(command.data) + 1) % _BLOCK)
            body = tlv.encode(0x87, b"\x01" + self._crypt(padded, counter, decrypt=False))
        if command.le:
            body += tlv.encode(0x97, b"\0")
        if len(body) + 2 + _MAC > MAX_EXTENDED:
            raise SmCommandUnfit(f"{len(command.data)} octets of data are too many for one command.")
        head = bytes((CLA_PROTECTED, command.ins, command.p1, command.p2, _PADDING)) + bytes(11)
        chaining = _cmac(self._keys.mac, self._state.chaining, head, body)
        self._state = SmState(chaining, counter)
        return CommandAPDU(
            CLA_PROTECTED,
            command.ins,
            command.p1,
            command.p2,
            body + tlv.encode(0x8E, chaining[:_MAC]),
            MAX_SHORT_LE,
        )

    def unwrap(self, response: ResponseAPDU, *, after: SmState | None = None) -> ResponseAPDU:
        """The plain response to a wrapped command: the last one, or the one behind which ``after`` stands.

        Responses are unwrapped in the order of their commands. Whatever is wrong closes the session. Raises
        SecureMessagingNotSupported (6882), SmSessionLost (6982) and SecureMessagingBroken (6987, 6988) when
        the card refuses in clear, SmResponseInvalid for anything else unprotected and for a wrong MAC, padding
        or form; SmSessionClosed.
        """
        self._require_open()
        if response.sw != SW.OK:
            self.close()
            if response.sw == SW.SECURITY_STATUS:
                raise SmSessionLost(response.sw, "sending a protected command")
            if response.sw in (SW.SM_NOT_SUPPORTED, SW.SM_MISSING, SW.SM_INCORRECT):
                raise error_for(response.sw, "sending a protected command")
            raise SmResponseInvalid(f"The card answered a protected command in clear ({response.sw:04X}).")
        try:
            objects = tlv.parse_all(response.data)
        except tlv.MalformedTlv as error:
            raise self._broken("The protected answer cannot be read.") from error
        tags = [item.tag for item in objects]
        if tags not in ([0x87, 0x99, 0x8E], [0x99, 0x8E]) or tlv.join(objects) != response.data:
            raise self._broken("The answer has missing, extra or oddly coded protection.")
        *covered, received = objects
        chaining = _cmac(self._keys.rmac, self._response_chaining, tlv.join(covered))
        if not hmac.compare_digest(chaining[:_MAC], received.value):
            raise self._broken("The MAC of the card's answer is wrong.")
        status = covered[-1].value
        if len(status) != 2:
            raise self._broken("The answer has no status word.")
        data = b""
        if tags[0] == 0x87:
            counter = (self._state if after is None else after).counter
            data = self._decrypt(covered[0].value, counter)
        self._response_chaining = chaining
        return ResponseAPDU(data, int.from_bytes(status, "big"))

    def _decrypt(self, value: bytes, counter: int) -> bytes:
        cryptogram = value[1:]
        if value[:1] != b"\x01" or not cryptogram or len(cryptogram) % _BLOCK:
            raise self._broken("The encrypted answer is no whole number of blocks.")
        padded = self._crypt(cryptogram, _RESPONSE_COUNTER | counter, decrypt=True)
        plain = padded.rstrip(b"\0")
        if not plain or plain[-1] != _PADDING or len(padded) - len(plain) >= _BLOCK:
            raise self._broken("The padding of the card's answer is wrong.")
        return plain[:-1]

    def _crypt(self, data: bytes, counter: int, *, decrypt: bool) -> bytes:
        key = AES(self._keys.enc.reveal())
        iv = Cipher(key, ECB()).encryptor().update(counter.to_bytes(_BLOCK, "big"))
        cipher = Cipher(key, CBC(iv))
        return (cipher.decryptor() if decrypt else cipher.encryptor()).update(data)

    def _require_open(self) -> None:
        if self._closed:
            raise SmSessionClosed("The protected session is closed.")

    def _broken(self, message: str) -> SmResponseInvalid:
        self.close()
        return SmResponseInvalid(message)

    def __repr__(self) -> str:
        return f"SmSession({self.suite.name}, {'closed' if self._closed else self._state!r})"


class SmExchange:
    """Sends every command through ``session`` and ``below``, an exchange of plain commands."""

    __slots__ = ("_below", "session")

    def __init__(self, below: Sends, session: SmSession) -> None:
        self.session = session
        self._below = below

    def send(self, command: CommandAPDU) -> ResponseAPDU:
        """The plain answer to ``command``. Raises what ``wrap``, ``unwrap`` and the exchange below raise.

        When the exchange below fails, whether the card counted the command is not known: the session is closed.
        """
        wrapped = self.session.wrap(command)
        answered = False
        try:
            response = self._below.send(wrapped)
            answered = True
        finally:
            if not answered:
                self.session.close()
        return self.session.unwrap(response)


def _card_id(cvc: bytes) -> bytes:
    """ID_sICC: the first 8 octets of SHA-256 over the certificate, in both suites."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(cvc)
    return digest.finalize()[:8]


def _cmac(key: Secret, *parts: bytes) -> bytes:
    state = CMAC(AES(key.reveal()))
    for part in parts:
        state.update(part)
    return state.finalize()
