"""A security domain and a host that hold the same keys, ready to talk."""

from __future__ import annotations

from dataclasses import dataclass, field

from cardwright_cardops.globalplatform.channel import Scp03Channel, authenticate
from cardwright_cardops.globalplatform.scp03 import (
    CardAnswer,
    SecurityLevel,
    StaticKeys,
    initialize_update,
    new_host_challenge,
)
from cardwright_cardops.iso7816.apdu import ResponseAPDU
from cardwright_cardops.secret import Secret
from cardwright_simulators.card.scp03 import SecurityDomainSession

AID = bytes.fromhex("A000000151000000")
VERSION = 0x30


def raw_keys(size: int = 16, seed: int = 0) -> tuple[bytes, bytes, bytes]:
    """Three different keys of ``size`` octets."""
    enc, mac, dek = (bytes((seed + 3 * at + part) & 0xFF for at in range(size)) for part in range(3))
    return enc, mac, dek


def static_keys(keys: tuple[bytes, bytes, bytes]) -> StaticKeys:
    """The same as the host holds them."""
    return StaticKeys(*(Secret(key) for key in keys))


@dataclass(slots=True)
class Domain:
    """What a card stores of its security domain."""

    channel_keys: dict[int, tuple[bytes, bytes, bytes]] = field(default_factory=lambda: {VERSION: raw_keys()})
    sequence: int = 0


def begin(
    card: SecurityDomainSession, *, version: int = VERSION, s16: bool = False, challenge: bytes | None = None
) -> CardAnswer:
    """INITIALIZE UPDATE and its answer."""
    host = challenge or new_host_challenge(s16=s16)
    return CardAnswer.parse(ResponseAPDU(card.initialize_update(initialize_update(version, host)), 0x9000), host)


def open_channel(
    card: SecurityDomainSession,
    keys: tuple[bytes, bytes, bytes],
    level: SecurityLevel = SecurityLevel.ALL,
    *,
    version: int = VERSION,
    s16: bool = False,
    pad_empty: bool = False,
) -> Scp03Channel:
    """Both ends of an open channel: the host's is returned, the card's is ``card``."""
    answer = begin(card, version=version, s16=s16)
    command, channel = authenticate(static_keys(keys), answer, level, pad_empty=pad_empty)
    card.external_authenticate(command)
    return channel
