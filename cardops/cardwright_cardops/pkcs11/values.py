"""What a token tells of itself: identity, flags, mechanisms, PIN state, login state."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

TOKEN_WRITE_PROTECTED = 0x0000_0002
TOKEN_LOGIN_REQUIRED = 0x0000_0004
TOKEN_USER_PIN_INITIALIZED = 0x0000_0008
TOKEN_PROTECTED_AUTHENTICATION_PATH = 0x0000_0100
TOKEN_INITIALIZED = 0x0000_0400
TOKEN_USER_PIN_COUNT_LOW = 0x0001_0000
TOKEN_USER_PIN_FINAL_TRY = 0x0002_0000
TOKEN_USER_PIN_LOCKED = 0x0004_0000
TOKEN_SO_PIN_COUNT_LOW = 0x0010_0000
TOKEN_SO_PIN_FINAL_TRY = 0x0020_0000
TOKEN_SO_PIN_LOCKED = 0x0040_0000

MECHANISM_DECRYPT = 0x0000_0200
MECHANISM_SIGN = 0x0000_0800
MECHANISM_GENERATE_KEY_PAIR = 0x0001_0000
MECHANISM_DERIVE = 0x0008_0000


class User(Enum):
    """Who logs in (PKCS#11 v2.40 section 2.4)."""

    USER = "user"
    SO = "so"


class LoginState(Enum):
    """Who is logged in to the token, as the module says."""

    NOBODY = "nobody"
    USER = "user"
    SO = "so"


class PinState(Enum):
    """What the token tells of a PIN. PKCS#11 knows no count, only these steps."""

    GOOD = "good"
    COUNT_LOW = "count_low"
    FINAL_TRY = "final_try"
    LOCKED = "locked"
    NOT_SET = "not_set"


class KeyAlgorithm(Enum):
    """Keys this library makes or imports. The value is the name used in policies and on the command line."""

    RSA_1024 = "rsa1024"
    RSA_2048 = "rsa2048"
    RSA_3072 = "rsa3072"
    RSA_4096 = "rsa4096"
    P256 = "p256"
    P384 = "p384"

    @property
    def is_rsa(self) -> bool:
        """True for RSA, False for elliptic curves."""
        return self.value.startswith("rsa")

    @property
    def bits(self) -> int:
        """Modulus or field size in bits."""
        return int(self.value.lstrip("rsap"))


class Mechanism(IntEnum):
    """The mechanisms this library uses (CKM_*, PKCS#11 v2.40)."""

    RSA_PKCS_KEY_PAIR_GEN = 0x0000
    RSA_PKCS = 0x0001
    RSA_PKCS_OAEP = 0x0009
    RSA_PKCS_PSS = 0x000D
    EC_KEY_PAIR_GEN = 0x1040
    ECDSA = 0x1041
    ECDH1_DERIVE = 0x1050


@dataclass(frozen=True, slots=True)
class MechanismInfo:
    """One mechanism of the token: CKM number, key sizes in bits (as the module counts), CKF flags."""

    mechanism: int
    min_key_size: int
    max_key_size: int
    flags: int


@dataclass(frozen=True, slots=True)
class TokenIdentity:
    """What makes a token the same token again. ``slot`` only decides between equal ones."""

    slot: int
    label: str
    serial: str
    manufacturer: str
    model: str

    def same_token(self, other: TokenIdentity) -> bool:
        """Equal but for the slot number, which a module may change at any time."""
        return (self.label, self.serial, self.manufacturer, self.model) == (
            other.label,
            other.serial,
            other.manufacturer,
            other.model,
        )


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """CK_TOKEN_INFO, the reader's name and the mechanisms."""

    identity: TokenIdentity
    slot_description: str
    flags: int
    min_pin_length: int
    max_pin_length: int
    hardware_version: tuple[int, int]
    firmware_version: tuple[int, int]
    mechanisms: tuple[MechanismInfo, ...]

    @property
    def initialized(self) -> bool:
        """False for an empty slot of a software token."""
        return bool(self.flags & TOKEN_INITIALIZED)

    @property
    def user_pin_state(self) -> PinState:
        """State of the user PIN when this was read."""
        return user_pin_state(self.flags)

    @property
    def so_pin_state(self) -> PinState:
        """State of the SO PIN when this was read."""
        return so_pin_state(self.flags)

    def mechanism(self, number: int) -> MechanismInfo | None:
        """The entry of one mechanism, None if the token lacks it."""
        return next((entry for entry in self.mechanisms if entry.mechanism == number), None)

    def offers(self, number: int, flag: int) -> bool:
        """Whether the token has the mechanism for that use."""
        entry = self.mechanism(number)
        return entry is not None and bool(entry.flags & flag)


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """CK_INFO."""

    manufacturer: str
    description: str
    cryptoki_version: tuple[int, int]
    library_version: tuple[int, int]


def user_pin_state(flags: int) -> PinState:
    """CKF_USER_PIN_* as one value; the worst flag wins."""
    if flags & TOKEN_USER_PIN_LOCKED:
        return PinState.LOCKED
    if flags & TOKEN_USER_PIN_FINAL_TRY:
        return PinState.FINAL_TRY
    if not flags & TOKEN_USER_PIN_INITIALIZED:
        return PinState.NOT_SET
    if flags & TOKEN_USER_PIN_COUNT_LOW:
        return PinState.COUNT_LOW
    return PinState.GOOD


def so_pin_state(flags: int) -> PinState:
    """CKF_SO_PIN_* as one value; the worst flag wins."""
    if flags & TOKEN_SO_PIN_LOCKED:
        return PinState.LOCKED
    if flags & TOKEN_SO_PIN_FINAL_TRY:
        return PinState.FINAL_TRY
    if flags & TOKEN_SO_PIN_COUNT_LOW:
        return PinState.COUNT_LOW
    return PinState.GOOD
