"""The card's side of SCP03 (GlobalPlatform Amendment D): key sets, one channel, PUT KEY.

Written from the specification apart from the client's code, so that each judges the other.

How the card's dispatch uses it::

    session = SecurityDomainSession(state, aid=...)   # state: anything with channel_keys and sequence
    session.reset()                                   # on SELECT and on card reset
    session.initialize_update(command)                # INS 50 -> response data
    session.external_authenticate(command, extended=came_as_extended_apdu)     # INS 82, class 84
    if session.takes(command):                        # a channel is open, or the class byte says protected
        command = session.unwrap(command, extended=came_as_extended_apdu)
        answer = session.wrap(plain answer)           # also for an answer that is only a status word
    session.put_key(command)                          # INS D8, plain, after unwrap -> response data
    session.key_information()                         # value of GET DATA 00E0

``command`` is a whole logical command (blocks of a chain joined, class byte of the last one); a card that protects
each block hands the blocks over one by one. INITIALIZE UPDATE, EXTERNAL AUTHENTICATE, SELECT and GET RESPONSE
never go through ``unwrap``. The MAC covers Lc as it was sent, so hosts that send extended APDUs (ykman over USB)
need ``extended``. Every refusal is ``Refused`` with the status word to send, bare and in clear.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Protocol

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

from cardwright_cardops.iso7816.apdu import CommandAPDU, ResponseAPDU
from cardwright_cardops.iso7816.status import SW

from .answers import Refused, require

MAX_SEQUENCE: Final = 0xFFFFFF
LEVELS: Final = (0x00, 0x01, 0x03, 0x11, 0x13, 0x33)

_SECURED: Final = 0x04
_KEY_TYPE_AES: Final = 0x88
_OPTION_S16: Final = 0x01
_OPTION_PSEUDO_RANDOM: Final = 0x10
_KEY_SIZES: Final = (16, 24, 32)


class SecurityDomain(Protocol):
    """What survives a reset: key sets (enc, mac, dek) by version number, and the sequence counter."""

    channel_keys: dict[int, tuple[bytes, bytes, bytes]]
    sequence: int


class _Stage(Enum):
    NONE = auto()
    CHALLENGED = auto()
    OPEN = auto()
    ABORTED = auto()


@dataclass(slots=True)
class _Channel:
    """Everything of one channel; dropped as a whole."""

    key_version: int
    s_enc: bytes = field(repr=False)
    s_mac: bytes = field(repr=False)
    s_rmac: bytes = field(repr=False)
    dek: bytes = field(repr=False)
    context: bytes
    mac_size: int
    chaining: bytes = bytes(16)
    level: int = 0
    counter: int = 0


class SecurityDomainSession:
    """The volatile half of a security domain.

    ``options`` is the parameter "i" without the S16 bit, which follows the length of the host's challenge
    where ``s16`` allows it. ``draw`` gives random octets. ``capacity`` is how many key sets fit.
    ``initial_version`` names a key set that goes as soon as another one is stored.
    """

    def __init__(
        self,
        domain: SecurityDomain,
        *,
        aid: bytes,
        diversification: bytes = bytes(10),
        options: int = 0x70,
        s16: bool = False,
        draw: Callable[[int], bytes] = secrets.token_bytes,
        capacity: int = 3,
        initial_version: int | None = None,
    ) -> None:
        self._domain = domain
        self._aid = aid
        self._diversification = diversification
        self._options = options
        self._s16 = s16
        self._draw = draw
        self._capacity = capacity
        self._initial_version = initial_version
        self._stage = _Stage.NONE
        self._channel: _Channel | None = None

    @property
    def is_open(self) -> bool:
        """Whether EXTERNAL AUTHENTICATE succeeded and nothing has gone wrong since."""
        return self._stage is _Stage.OPEN

    @property
    def level(self) -> int:
        """Security level of the open channel, 0 without one."""
        return self._channel.level if self._channel is not None and self.is_open else 0

    def reset(self) -> None:
        """Drop channel and session keys, as SELECT and a card reset do."""
        self._stage = _Stage.NONE
        self._channel = None

    def takes(self, command: CommandAPDU) -> bool:
        """Whether ``command`` has to go through ``unwrap``."""
        return bool(command.cla & _SECURED) or self.level != 0

    def initialize_update(self, command: CommandAPDU) -> bytes:
        """Answer INITIALIZE UPDATE; an open or aborted channel ends here."""
        self.reset()
        host = command.data
        require(command.p2 == 0, SW.WRONG_P1P2)
        require(len(host) == 8 or (len(host) == 16 and self._s16), SW.WRONG_LENGTH)
        version = command.p1 or next(iter(self._domain.channel_keys), 0)
        require(version in self._domain.channel_keys, SW.REFERENCE_NOT_FOUND)
        require(self._domain.sequence < MAX_SEQUENCE, SW.CONDITIONS)
        enc, mac, dek = self._domain.channel_keys[version]
        self._domain.sequence += 1
        counter = self._domain.sequence.to_bytes(3, "big")
        size = len(host)
        pseudo_random = bool(self._options & _OPTION_PSEUDO_RANDOM)
        challenge = _derive(enc, 0x02, size, counter + self._aid) if pseudo_random else self._draw(size)
        context = host + challenge
        channel = _Channel(
            version,
            _derive(enc, 0x04, len(enc), context),
            _derive(mac, 0x06, len(mac), context),
            _derive(mac, 0x07, len(mac), context),
            dek,
            context,
            size,
        )
        self._channel, self._stage = channel, _Stage.CHALLENGED
        options = self._options | (_OPTION_S16 if size == 16 else 0)
        head = self._diversification + bytes((version, 0x03, options))
        cryptogram = _derive(channel.s_mac, 0x00, size, context)
        return head + challenge + cryptogram + (counter if pseudo_random else b"")

    def external_authenticate(self, command: CommandAPDU, *, extended: bool = False) -> None:
        """Open the channel at level P1; ``extended`` as in ``unwrap``.

        Refuses 6985 without INITIALIZE UPDATE directly before, 6A86 for a level the card does not have,
        6300 for a wrong host cryptogram, 6982 for a wrong MAC; each ends the attempt.
        """
        channel, stage = self._channel, self._stage
        self.reset()
        require(channel is not None and stage is _Stage.CHALLENGED, SW.CONDITIONS)
        assert channel is not None
        level, size = command.p1, channel.mac_size
        require(command.p2 == 0 and level in LEVELS, SW.WRONG_P1P2)
        # 10 and 20 of the level are bits 20 and 40 of the options.
        require((level & 0x30) << 1 & ~self._options == 0, SW.WRONG_P1P2)
        require(command.cla & _SECURED != 0, SW.SECURITY_STATUS)
        require(len(command.data) == 2 * size, SW.WRONG_LENGTH)
        expected = _derive(channel.s_mac, 0x01, size, channel.context)
        require(hmac.compare_digest(expected, command.data[:size]), SW.VERIFICATION_FAILED)
        full = _cmac(channel.s_mac, channel.chaining + _mac_input(command, size, extended=extended))
        require(hmac.compare_digest(full[:size], command.data[size:]), SW.SECURITY_STATUS)
        channel.chaining, channel.level = full, level
        self._channel, self._stage = channel, _Stage.OPEN

    def unwrap(self, command: CommandAPDU, *, extended: bool = False) -> CommandAPDU:
        """The plain command, its class byte without the secure messaging bit.

        Refuses 6982 without a channel, or for a command whose protection is missing or wrong, which aborts the channel.
        ``extended`` says that it came as an extended APDU: Lc is then MACed in three octets.
        """
        channel = self._channel
        if channel is None or self._stage is not _Stage.OPEN:
            raise Refused(SW.SECURITY_STATUS)
        secured = bool(command.cla & _SECURED)
        size = channel.mac_size
        if secured != bool(channel.level) or (secured and len(command.data) < size):
            raise self._abort()
        channel.counter += 1
        if not secured:
            return command
        full = _cmac(channel.s_mac, channel.chaining + _mac_input(command, size, extended=extended))
        if not hmac.compare_digest(full[:size], command.data[-size:]):
            raise self._abort()
        channel.chaining = full
        data = command.data[:-size]
        if channel.level & 0x02 and data:
            if len(data) % 16:
                raise self._abort()
            padded = _cbc(channel.s_enc, channel.counter.to_bytes(16, "big"), data, decrypt=True)
            data, marker, zeros = padded.rpartition(b"\x80")
            if not marker or zeros.strip(b"\0") or len(zeros) > 15:
                raise self._abort()
        return CommandAPDU(command.cla & ~_SECURED, command.ins, command.p1, command.p2, data, command.le)

    def wrap(self, response: ResponseAPDU) -> ResponseAPDU:
        """Protect the answer to the command that was unwrapped last; errors stay as they are."""
        channel = self._channel
        if channel is None or not channel.level & 0x10:
            return response
        if response.sw != SW.OK and response.sw >> 8 not in (0x62, 0x63):
            return ResponseAPDU(b"", response.sw)
        data = response.data
        if channel.level & 0x20 and data:
            block = b"\x80" + channel.counter.to_bytes(15, "big")
            data = _cbc(channel.s_enc, block, data + b"\x80" + bytes(15 - len(data) % 16), decrypt=False)
        rmac = _cmac(channel.s_rmac, channel.chaining + data + response.sw.to_bytes(2, "big"))
        return ResponseAPDU(data + rmac[: channel.mac_size], response.sw)

    def put_key(self, command: CommandAPDU) -> bytes:
        """Store a key set of three AES keys, with or without the inner length octet.

        P1 is the version to replace, 0 to add one. Refuses 6982 without an open channel, 6A86 for another
        P2, 6A88 for an unknown version, 6A84 for too many key sets, 6A80 for wrong data or check values.
        """
        channel = self._channel
        if channel is None or not self.is_open:
            raise Refused(SW.SECURITY_STATUS)
        require(command.p2 == 0x81, SW.WRONG_P1P2)
        require(len(command.data) > 1, SW.WRONG_DATA)
        version, keys = command.data[0], self._read_keys(command.data[1:], channel.dek)
        require(1 <= version <= 0x7F, SW.WRONG_DATA)
        stored = self._domain.channel_keys
        replaced = command.p1
        if replaced:
            require(replaced in stored, SW.REFERENCE_NOT_FOUND)
        require(version == replaced or version not in stored, SW.WRONG_DATA)
        remaining = {
            number: value for number, value in stored.items() if number not in (replaced, self._initial_version)
        }
        require(len(remaining) < self._capacity, SW.NO_SPACE)
        # One step, so that a card torn in between has the old sets or the new ones.
        self._domain.channel_keys = {**remaining, version: keys}
        self._domain.sequence = 0
        return bytes((version,)) + b"".join(_check_value(key) for key in keys)

    def key_information(self) -> bytes:
        """Identifier, version, type and length of every key, each in a C0.

        GlobalPlatform cards answer GET DATA 00E0 with these inside tag E0, YubiKeys with these alone.
        """
        return b"".join(
            bytes((0xC0, 0x04, identifier, version, _KEY_TYPE_AES, len(key)))
            for version, keys in self._domain.channel_keys.items()
            for identifier, key in enumerate(keys, start=1)
        )

    def _read_keys(self, data: bytes, dek: bytes) -> tuple[bytes, bytes, bytes]:
        keys = []
        for _ in range(3):
            require(len(data) >= 2 and data[0] == _KEY_TYPE_AES)
            size = data[1]
            value, rest = data[2 : 2 + size], data[2 + size :]
            # 16 and 32 octets are a bare cryptogram, one more begins with the length of the clear key.
            length = size
            if size % 16 == 1:
                length, value = value[0] if value else 0, value[1:]
            require(length in _KEY_SIZES and len(value) == -(-length // 16) * 16)
            key = _decrypt_key(dek, value)[:length]
            require(rest[:4] == b"\x03" + _check_value(key))
            keys.append(key)
            data = rest[4:]
        require(not data and len({len(key) for key in keys}) == 1)
        enc, mac, new_dek = keys
        return enc, mac, new_dek

    def _abort(self) -> Refused:
        self._stage = _Stage.ABORTED
        self._channel = None
        return Refused(SW.SECURITY_STATUS)


def _cmac(key: bytes, message: bytes) -> bytes:
    state = CMAC(algorithms.AES(key))
    state.update(message)
    return state.finalize()


def _derive(key: bytes, constant: int, size: int, context: bytes) -> bytes:
    """Amendment D section 4.1.5, one CMAC per 16 octets."""
    blocks = range(1, -(-size // 16) + 1)
    head = bytes(11) + bytes((constant, 0)) + (8 * size).to_bytes(2, "big")
    return b"".join(_cmac(key, head + bytes((index,)) + context) for index in blocks)[:size]


def _mac_input(command: CommandAPDU, mac_size: int, *, extended: bool) -> bytes:
    """Header (channel number 0), Lc as it was sent, data without the MAC."""
    size = len(command.data)
    lc = b"\0" + size.to_bytes(2, "big") if extended or size > 255 else bytes((size,))
    head = bytes((command.cla & 0xFC, command.ins, command.p1, command.p2))
    return head + lc + command.data[:-mac_size]


def _cbc(key: bytes, counter_block: bytes, data: bytes, *, decrypt: bool) -> bytes:
    aes = algorithms.AES(key)
    first = Cipher(aes, modes.ECB()).encryptor()
    iv = first.update(counter_block) + first.finalize()
    cipher = Cipher(aes, modes.CBC(iv))
    run = cipher.decryptor() if decrypt else cipher.encryptor()
    return run.update(data) + run.finalize()


def _decrypt_key(dek: bytes, value: bytes) -> bytes:
    run = Cipher(algorithms.AES(dek), modes.CBC(bytes(16))).decryptor()
    return run.update(value) + run.finalize()


def _check_value(key: bytes) -> bytes:
    run = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return (run.update(b"\x01" * 16) + run.finalize())[:3]
