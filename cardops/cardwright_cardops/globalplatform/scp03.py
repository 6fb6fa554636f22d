"""SCP03 keys, key derivation, cryptograms and the two commands that open a channel.

GlobalPlatform Card Specification v2.3 Amendment D, sections 4.1.5 (derivation), 6.2.2 (cryptograms),
7.1 (commands). Amendment D v1.2 adds the S16 mode, in which challenges, cryptograms and MACs have 16 octets
in place of 8.

Opening a channel::

    command = initialize_update(key_version, host_challenge)
    answer = CardAnswer.parse(card(command), host_challenge)
    command, channel = authenticate(keys, answer, SecurityLevel.ALL)     # of channel.py; raises on a mismatch
    check_authenticated(card(command))
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFCMAC, CounterLocation, Mode

from ..errors import CardwrightError
from ..iso7816.apdu import MAX_SHORT_DATA, MAX_SHORT_LE, CommandAPDU, ResponseAPDU
from ..iso7816.status import SW, error_for
from ..secret import Secret

INS_INITIALIZE_UPDATE: Final = 0x50
INS_EXTERNAL_AUTHENTICATE: Final = 0x82
CLA_GLOBALPLATFORM: Final = 0x80
CLA_SECURED: Final = 0x04
"""Bit 3 of the class byte: the command is protected."""

SCP03: Final = 0x03
KEY_SIZES: Final = (16, 24, 32)
FIRST_MAC_CHAINING: Final = bytes(16)

_DIVERSIFICATION_SIZE: Final = 10
_COUNTER_SIZE: Final = 3


class Scp03Error(CardwrightError):
    """Root of what can go wrong with an SCP03 channel on this side."""


class Scp03KeyInvalid(Scp03Error):
    """A key, key version or challenge that SCP03 cannot use."""

    code = "SCP03_KEY_INVALID"
    default_effect = "Nothing was sent to the card."
    default_advice = "Check the secure channel keys of this card."


class Scp03AnswerMalformed(Scp03Error):
    """INITIALIZE UPDATE or PUT KEY was answered with something else than Amendment D describes."""

    code = "SCP03_ANSWER_MALFORMED"
    default_effect = "No secure channel was opened."
    default_advice = "The card does not speak SCP03 as expected; nothing can be done over a secure channel."


class Scp03CryptogramMismatch(Scp03Error):
    """The card does not have this key set. EXTERNAL AUTHENTICATE is not sent: cards count failures."""

    code = "SCP03_CRYPTOGRAM_MISMATCH"
    default_effect = "Nothing further was sent, no try of the card was spent."
    default_advice = "Use the keys of this card; a card that was personalized elsewhere has other keys."


class Scp03LevelUnsupported(Scp03Error):
    """The card says that it cannot protect responses as asked."""

    code = "SCP03_LEVEL_UNSUPPORTED"
    default_effect = "No secure channel was opened."
    default_advice = "Choose a security level that the card has."


class SecurityLevel(IntEnum):
    """P1 of EXTERNAL AUTHENTICATE (Amendment D table 7-5)."""

    NONE = 0x00
    C_MAC = 0x01
    C_MAC_C_ENC = 0x03
    C_MAC_R_MAC = 0x11
    C_MAC_C_ENC_R_MAC = 0x13
    ALL = 0x33

    @property
    def macs_commands(self) -> bool:
        """Commands carry a C-MAC."""
        return bool(self & 0x01)

    @property
    def encrypts_commands(self) -> bool:
        """Command data is encrypted."""
        return bool(self & 0x02)

    @property
    def macs_responses(self) -> bool:
        """Responses carry an R-MAC."""
        return bool(self & 0x10)

    @property
    def encrypts_responses(self) -> bool:
        """Response data is encrypted."""
        return bool(self & 0x20)


class ChannelOptions(IntFlag):
    """The parameter "i" of the card's answer (Amendment D table 5-1)."""

    S16 = 0x01
    PSEUDO_RANDOM_CHALLENGE = 0x10
    R_MAC = 0x20
    R_ENCRYPTION = 0x40


class Derivation(IntEnum):
    """Data derivation constants (Amendment D table 4-1)."""

    CARD_CRYPTOGRAM = 0x00
    HOST_CRYPTOGRAM = 0x01
    CARD_CHALLENGE = 0x02
    S_ENC = 0x04
    S_MAC = 0x06
    S_RMAC = 0x07


@dataclass(frozen=True, slots=True)
class StaticKeys:
    """One key set of a security domain: AES keys of one length, 16, 24 or 32 octets.

    Raises Scp03KeyInvalid for other lengths, or lengths that differ.
    """

    enc: Secret
    mac: Secret
    dek: Secret

    def __post_init__(self) -> None:
        sizes = {len(self.enc), len(self.mac), len(self.dek)}
        if len(sizes) != 1 or not sizes <= set(KEY_SIZES):
            raise Scp03KeyInvalid("The three keys of a key set have 16, 24 or 32 octets, all the same.")


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """What protects one channel: S-ENC, S-MAC, S-RMAC."""

    enc: Secret
    mac: Secret
    rmac: Secret


@dataclass(frozen=True, slots=True)
class CardAnswer:
    """The answer to INITIALIZE UPDATE (Amendment D table 7-3), with the challenge that it answers.

    ``sequence_counter`` is None where the card draws its challenge at random.
    """

    host_challenge: bytes
    diversification: bytes
    key_version: int
    options: ChannelOptions
    card_challenge: bytes
    card_cryptogram: bytes
    sequence_counter: int | None

    @classmethod
    def parse(cls, response: ResponseAPDU, host_challenge: bytes) -> CardAnswer:
        """Read the answer to ``initialize_update(..., host_challenge)``.

        Raises StatusError (ReferenceNotFound: the card has no such key set) for a status word that is not
        9000, and Scp03AnswerMalformed for another protocol, another mode than the challenge asks for, or a
        wrong length.
        """
        if response.sw != SW.OK:
            raise error_for(response.sw, "opening a secure channel")
        data, size = response.data, len(host_challenge)
        start = _DIVERSIFICATION_SIZE + 3
        end = start + 2 * size
        if len(data) not in (end, end + _COUNTER_SIZE):
            raise Scp03AnswerMalformed(f"The card's answer has {len(data)} octets, which SCP03 does not know.")
        key_version, protocol, options = data[_DIVERSIFICATION_SIZE:start]
        if protocol != SCP03:
            raise Scp03AnswerMalformed(f"The card opened a channel of protocol {protocol:02X}, not SCP03.")
        answer = cls(
            host_challenge,
            data[:_DIVERSIFICATION_SIZE],
            key_version,
            ChannelOptions(options),
            data[start : start + size],
            data[start + size : end],
            int.from_bytes(data[end:], "big") if len(data) > end else None,
        )
        if bool(answer.options & ChannelOptions.S16) != (size == 16):
            raise Scp03AnswerMalformed("The card answered in another mode (S8 or S16) than it was asked in.")
        return answer

    @property
    def mac_size(self) -> int:
        """Octets of a MAC or cryptogram: 8, or 16 in S16 mode."""
        return len(self.card_challenge)

    @property
    def context(self) -> bytes:
        """What session keys and cryptograms are derived from."""
        return self.host_challenge + self.card_challenge


def derive(key: Secret, constant: Derivation, context: bytes, size: int) -> bytes:
    """``size`` octets from ``key``: SP 800-108 counter mode with AES-CMAC (Amendment D section 4.1.5)."""
    before_counter = bytes(11) + bytes((constant, 0)) + (size * 8).to_bytes(2, "big")
    return KBKDFCMAC(
        AES,
        Mode.CounterMode,
        size,
        rlen=1,
        llen=None,
        location=CounterLocation.MiddleFixed,
        label=None,
        context=None,
        fixed=before_counter + context,
        break_location=len(before_counter),
    ).derive(key.reveal())


def session_keys(keys: StaticKeys, context: bytes) -> SessionKeys:
    """S-ENC from Key-ENC, S-MAC and S-RMAC from Key-MAC (Amendment D section 6.2.1)."""
    size = len(keys.enc)
    return SessionKeys(
        Secret(derive(keys.enc, Derivation.S_ENC, context, size)),
        Secret(derive(keys.mac, Derivation.S_MAC, context, size)),
        Secret(derive(keys.mac, Derivation.S_RMAC, context, size)),
    )


def mac(key: Secret, chaining: bytes, *parts: bytes) -> bytes:
    """The 16 octets of AES-CMAC over the chaining value and ``parts``."""
    state = CMAC(AES(key.reveal()))
    state.update(chaining)
    for part in parts:
        state.update(part)
    return state.finalize()


def encode_lc(size: int, *, extended: bool) -> bytes:
    """Lc as a MAC covers it: as it is sent, in three octets when ``extended`` or too large for one."""
    return b"\0" + size.to_bytes(2, "big") if extended or size > MAX_SHORT_DATA else bytes((size,))


def new_host_challenge(*, s16: bool = False) -> bytes:
    """A random host challenge; its length asks for the S8 or the S16 mode."""
    return secrets.token_bytes(16 if s16 else 8)


def initialize_update(key_version: int, host_challenge: bytes) -> CommandAPDU:
    """INITIALIZE UPDATE (Amendment D section 7.1.1). ``key_version`` 0 is the card's own choice.

    Raises Scp03KeyInvalid for a version above 127 other than 255 (the initial keys of some cards) or a
    challenge of neither 8 nor 16 octets.
    """
    if not (0 <= key_version <= 0x7F or key_version == 0xFF):
        raise Scp03KeyInvalid(f"{key_version} is not the version number of a key set.")
    if len(host_challenge) not in (8, 16):
        raise Scp03KeyInvalid("A host challenge has 8 or 16 octets.")
    return CommandAPDU(CLA_GLOBALPLATFORM, INS_INITIALIZE_UPDATE, key_version, 0, host_challenge, MAX_SHORT_LE)


def match_candidates(candidates: Sequence[StaticKeys], answer: CardAnswer) -> int | None:
    """The index of the key set that made the card's cryptogram, None if none did.

    Nothing is sent for it, so any number of candidates costs the card no try. Every candidate is computed
    and compared in constant time.
    """
    found: int | None = None
    for index, keys in enumerate(candidates):
        if _matches(session_keys(keys, answer.context), answer) and found is None:
            found = index
    return found


@dataclass(frozen=True, slots=True)
class Opening:
    """EXTERNAL AUTHENTICATE, and where a channel stands once the card has accepted it."""

    command: CommandAPDU
    keys: SessionKeys
    level: SecurityLevel
    mac_size: int
    chaining: bytes


def external_authenticate(
    keys: StaticKeys, answer: CardAnswer, level: SecurityLevel, *, extended: bool = False
) -> Opening:
    """EXTERNAL AUTHENTICATE (Amendment D section 7.1.2) for the card that gave ``answer``.

    Raises Scp03CryptogramMismatch if the card did not prove ``keys``, Scp03LevelUnsupported if its answer
    does not announce the protection of responses that ``level`` wants. There is no other way to the
    command, so none is ever sent to a card with other keys. ``extended`` says that the command goes out as
    an extended APDU, whose Lc of three octets the MAC covers.
    """
    session = session_keys(keys, answer.context)
    if not _matches(session, answer):
        raise Scp03CryptogramMismatch(
            f"The card's cryptogram (key version {answer.key_version}) was not made with these keys."
        )
    wanted = ChannelOptions(0)
    if level.macs_responses:
        wanted |= ChannelOptions.R_MAC
    if level.encrypts_responses:
        wanted |= ChannelOptions.R_ENCRYPTION
    if answer.options & wanted != wanted:
        raise Scp03LevelUnsupported(f"The card (i = {answer.options:02X}) does not have security level {level:02X}.")
    size = answer.mac_size
    cryptogram = derive(session.mac, Derivation.HOST_CRYPTOGRAM, answer.context, size)
    cla = CLA_GLOBALPLATFORM | CLA_SECURED
    head = bytes((cla, INS_EXTERNAL_AUTHENTICATE, level, 0))
    lc = encode_lc(2 * size, extended=extended)
    chaining = mac(session.mac, FIRST_MAC_CHAINING, head, lc, cryptogram)
    command = CommandAPDU(cla, INS_EXTERNAL_AUTHENTICATE, level, 0, cryptogram + chaining[:size])
    return Opening(command, session, level, size, chaining)


def check_authenticated(response: ResponseAPDU) -> None:
    """Whether the card accepted EXTERNAL AUTHENTICATE. Raises StatusError if it did not."""
    if response.sw != SW.OK:
        raise error_for(response.sw, "authenticating to the card's security domain")


def _matches(session: SessionKeys, answer: CardAnswer) -> bool:
    expected = derive(session.mac, Derivation.CARD_CRYPTOGRAM, answer.context, answer.mac_size)
    return hmac.compare_digest(expected, answer.card_cryptogram)
