"""An open SCP03 channel: plain commands in, protected commands out, and back (Amendment D section 6.2).

The whole logical command is protected once; chaining and GET RESPONSE are the executing end's, outside the
protection. Cards that protect every block of a chain by itself take the blocks of ``split`` instead.

A batch may be wrapped ahead. Where a channel stands is one small value, ``ChannelState``::

    states = []
    for command in commands:
        batch.append(channel.wrap(command))
        states.append(channel.snapshot())
    ... answers 0..k came back, the rest was not sent ...
    for answer, state in zip(answers, states):
        plain.append(channel.unwrap(answer, after=state))
    channel.restore(states[k])                   # the next wrap() continues behind the last executed command

Never restore behind a command whose execution is in doubt: open a new channel.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB

from ..iso7816.apdu import CLA_CHAINING, MAX_EXTENDED, MAX_SHORT_DATA, MAX_SHORT_LE, CommandAPDU, ResponseAPDU
from ..iso7816.status import SW
from .scp03 import (
    CLA_SECURED,
    CardAnswer,
    Opening,
    Scp03Error,
    SecurityLevel,
    StaticKeys,
    encode_lc,
    external_authenticate,
    mac,
)

_BLOCK: Final = 16
_PADDING: Final = 0x80
_RESPONSE_COUNTER: Final = 1 << 127
_CHANNEL_BITS: Final = 0x03
_UNUSABLE_CLASS: Final = 0x6C
"""Further interindustry classes, and classes that are protected already."""


class Scp03CommandUnfit(Scp03Error):
    """A command that cannot be protected: its class byte, or too much data."""

    code = "SCP03_COMMAND_UNFIT"
    default_effect = "Nothing was sent to the card."
    default_advice = "This is a defect of the program that made it; please report it."


class Scp03ResponseInvalid(Scp03Error):
    """A response whose protection is missing or wrong. The channel is closed for good."""

    code = "SCP03_RESPONSE_INVALID"
    default_effect = "Whether the card carried out the command is not known."
    default_advice = "Start again; if it happens each time, something between program and card alters answers."


class Scp03ChannelClosed(Scp03Error):
    """The channel was closed, by its owner or by a response that was not genuine."""

    code = "SCP03_CHANNEL_CLOSED"
    default_effect = "Nothing was sent to the card."
    default_advice = "Open a new secure channel."


@dataclass(frozen=True, slots=True)
class ChannelState:
    """Where a channel stands: the MAC chaining value and the number of commands wrapped so far."""

    chaining: bytes
    counter: int

    def __repr__(self) -> str:
        return f"ChannelState(counter={self.counter})"


class Scp03Channel:
    """One direction after the other, not safe for two threads at once.

    ``pad_empty`` also encrypts commands without data (16 octets of padding), as Yubico's tools do;
    Amendment D leaves such commands without data.
    """

    __slots__ = ("_closed", "_keys", "_mac_size", "_pad_empty", "_state", "level")

    def __init__(self, opening: Opening, *, pad_empty: bool = False) -> None:
        self.level: SecurityLevel = opening.level
        self._keys = opening.keys
        self._mac_size = opening.mac_size
        self._state = ChannelState(opening.chaining, 0)
        self._pad_empty = pad_empty
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether ``wrap`` and ``unwrap`` refuse."""
        return self._closed

    def close(self) -> None:
        """Wipe the session keys. Further calls do nothing."""
        self._closed = True
        for key in (self._keys.enc, self._keys.mac, self._keys.rmac):
            key.wipe()

    def snapshot(self) -> ChannelState:
        """Where the channel stands now."""
        return self._state

    def restore(self, state: ChannelState) -> None:
        """Go back to ``state``, when nothing wrapped since then reached the card.

        Raises Scp03ChannelClosed on a closed channel: a broken one does not come back.
        """
        self._require_open()
        self._state = state

    def wrap(self, command: CommandAPDU, *, extended: bool = False) -> CommandAPDU:
        """The protected form of ``command``, a whole logical command.

        The C-MAC covers Lc in the form it is sent in: one octet, or three when the command goes out as an
        extended APDU (``extended``) or is too long for a short one. Unless it is, Le is cut to what a short
        APDU can ask for, so that nothing below turns it into an extended one. Raises Scp03CommandUnfit,
        Scp03ChannelClosed.
        """
        self._require_open()
        if command.cla & _UNUSABLE_CLASS:
            raise Scp03CommandUnfit(f"A command of class {command.cla:02X} cannot be protected.")
        counter = self._state.counter + 1
        if not self.level.macs_commands:
            self._state = ChannelState(self._state.chaining, counter)
            return command
        data = command.data
        if self.level.encrypts_commands and (data or self._pad_empty):
            data = self._crypt(_pad(data), counter, decrypt=False)
        size = len(data) + self._mac_size
        if size > MAX_EXTENDED:
            raise Scp03CommandUnfit(f"{len(command.data)} octets of data are too many for one command.")
        cla = command.cla | CLA_SECURED
        head = bytes((cla & ~_CHANNEL_BITS, command.ins, command.p1, command.p2))
        lc = encode_lc(size, extended=extended)
        chaining = mac(self._keys.mac, self._state.chaining, head, lc, data)
        self._state = ChannelState(chaining, counter)
        le = command.le if extended or size > MAX_SHORT_DATA else min(command.le, MAX_SHORT_LE)
        return CommandAPDU(cla, command.ins, command.p1, command.p2, data + chaining[: self._mac_size], le)

    def split(self, command: CommandAPDU) -> tuple[CommandAPDU, ...]:
        """``command`` as blocks that each fit a short APDU once wrapped, all but the last with the chaining bit.

        For cards that unwrap block by block; each block is wrapped like a command of its own.
        """
        room = MAX_SHORT_DATA - (self._mac_size if self.level.macs_commands else 0)
        if self.level.encrypts_commands:
            # At least one octet of padding goes into the last 16.
            room = room // _BLOCK * _BLOCK - 1
        pieces = [command.data[at : at + room] for at in range(0, len(command.data), room)] or [b""]
        last = len(pieces) - 1
        return tuple(
            CommandAPDU(
                command.cla if index == last else command.cla | CLA_CHAINING,
                command.ins,
                command.p1,
                command.p2,
                piece,
                command.le if index == last else 0,
            )
            for index, piece in enumerate(pieces)
        )

    def unwrap(self, response: ResponseAPDU, *, after: ChannelState | None = None) -> ResponseAPDU:
        """The plain response to a wrapped command: the last one, or the one behind which ``after`` stands.

        A status word other than 9000, 62xx and 63xx travels without data and protection. Raises
        Scp03ResponseInvalid (and closes the channel) when a MAC or padding is wrong or missing, and
        Scp03ChannelClosed.
        """
        self._require_open()
        if not self.level.macs_responses:
            return response
        state = self._state if after is None else after
        if response.sw != SW.OK and response.sw >> 8 not in (0x62, 0x63):
            if response.data:
                raise self._broken("An error came with data, which has no protection.")
            return response
        data, received = response.data[: -self._mac_size], response.data[-self._mac_size :]
        expected = mac(self._keys.rmac, state.chaining, data, response.sw.to_bytes(2, "big"))
        if not hmac.compare_digest(expected[: self._mac_size], received):
            raise self._broken("The MAC of the card's answer is missing or wrong.")
        if data and self.level.encrypts_responses:
            if len(data) % _BLOCK:
                raise self._broken("The encrypted answer is no whole number of blocks.")
            plain = _unpad(self._crypt(data, _RESPONSE_COUNTER | state.counter, decrypt=True))
            if plain is None:
                raise self._broken("The padding of the card's answer is wrong.")
            data = plain
        return ResponseAPDU(data, response.sw)

    def _crypt(self, data: bytes, counter: int, *, decrypt: bool) -> bytes:
        key = AES(self._keys.enc.reveal())
        icv = Cipher(key, ECB()).encryptor().update(counter.to_bytes(_BLOCK, "big"))
        cipher = Cipher(key, CBC(icv))
        return (cipher.decryptor() if decrypt else cipher.encryptor()).update(data)

    def _require_open(self) -> None:
        if self._closed:
            raise Scp03ChannelClosed("The secure channel is closed.")

    def _broken(self, message: str) -> Scp03ResponseInvalid:
        self.close()
        return Scp03ResponseInvalid(message)

    def __repr__(self) -> str:
        return f"Scp03Channel(level={self.level:02X}, {'closed' if self._closed else self._state!r})"


def authenticate(
    keys: StaticKeys,
    answer: CardAnswer,
    level: SecurityLevel,
    *,
    extended: bool = False,
    pad_empty: bool = False,
) -> tuple[CommandAPDU, Scp03Channel]:
    """EXTERNAL AUTHENTICATE and the channel that it opens once the card answers 9000.

    Raises Scp03CryptogramMismatch, Scp03LevelUnsupported: see ``external_authenticate``.
    """
    opening = external_authenticate(keys, answer, level, extended=extended)
    return opening.command, Scp03Channel(opening, pad_empty=pad_empty)


def _pad(data: bytes) -> bytes:
    """ISO 7816-4 padding, at least one octet, to whole blocks."""
    return data + bytes((_PADDING,)) + bytes(-(len(data) + 1) % _BLOCK)


def _unpad(data: bytes) -> bytes | None:
    """``data`` without its padding, None if that is wrong."""
    plain = data.rstrip(b"\0")
    if not plain or plain[-1] != _PADDING or len(data) - len(plain) >= _BLOCK:
        return None
    return plain[:-1]
