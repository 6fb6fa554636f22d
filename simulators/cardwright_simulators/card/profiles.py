"""Kinds of cards as data: what each can do and where it differs from the standard. No code asks for a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from cardwright_cardops.iso7816.status import SW
from cardwright_cardops.iso7816.tlv import encode
from cardwright_cardops.transport.connection import Transmission

from .algorithms import ATTESTATION, PRIMARY, RETIRED, SM_KEY, Algorithm
from .objects import DISCOVERY

RID: Final = bytes.fromhex("A000000308")
PIX: Final = bytes.fromhex("000010000100")
PIV_AID: Final = RID + PIX
MANAGEMENT_AID: Final = bytes.fromhex("A000000527471117")
SECURITY_DOMAIN_AID: Final = bytes.fromhex("A000000151000000")


class Vendor(IntEnum):
    """Instructions beyond the standard."""

    MOVE_KEY = 0xF6
    METADATA = 0xF7
    SERIAL = 0xF8
    ATTEST = 0xF9
    SET_RETRIES = 0xFA
    RESET = 0xFB
    VERSION = 0xFD
    IMPORT = 0xFE
    SET_MANAGEMENT_KEY = 0xFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One kind of card. Variants are made with ``dataclasses.replace``; every field is a plain value."""

    name: str
    description: str

    atr: bytes
    atr_contactless: bytes
    transmission: Transmission = Transmission.T1
    extended: bool = True
    max_data: int = 16384
    """Most octets of data in one logical command, after chaining."""
    answers_without_le: bool = False
    """Whether a command without Le gets its data at once instead of 61xx."""
    chains_every_command: bool = False

    full_aid: bool = True
    """Whether 4F in the SELECT answer holds the whole AID, or the PIX alone."""
    shortest_aid: int = 9
    label: bytes = b""
    announced: tuple[int, ...] = ()
    """Algorithms listed in tag AC of the SELECT answer."""
    lengths: tuple[int, int] | None = None
    """Most octets of a command and of an answer, as tag 7F66 of the SELECT answer says them."""
    select_drops_status: bool = False
    """Whether any SELECT, also of PIV itself or of an absent application, ends all security statuses."""
    selected_after_reset: bool = False
    other_applications: frozenset[bytes] = frozenset()

    vendor: frozenset[int] = frozenset()
    version: tuple[int, int, int] = (0, 0, 0)
    form_factor: int = 1
    origin_codes: tuple[int, int] = (1, 2)
    """How metadata says that a key was generated, and imported."""
    openfips201: bool = False
    """Whether objects and keys are created, and key values set, inside an SCP03 channel."""
    scp03: bool = False
    """Whether an SCP03 channel can be opened, in every application that has administration."""
    templates_wrapped: bool = True
    """Whether the security domain answers its templates inside their tags E0 and 66."""

    slots: frozenset[int] = PRIMARY | RETIRED
    generate_slots: frozenset[int] = PRIMARY
    algorithms: frozenset[int] = frozenset(
        (Algorithm.RSA2048, Algorithm.RSA3072, Algorithm.P256, Algorithm.P384)
    )
    """What GENERATE makes and import takes."""
    held_algorithms: frozenset[int] = frozenset((Algorithm.RSA1024, Algorithm.RSA4096))
    """Further algorithms that a key on the card may have without having been made by it."""
    any_key_any_use: bool = False
    """Whether a curve key signs and agrees in every slot."""
    suite: int = 0
    """Cipher suite of key 04; 0 for a card without secure messaging."""

    management_algorithms: frozenset[int] = frozenset((Algorithm.AES128,))
    management_algorithm: int = Algorithm.AES128
    management_key: bytes = field(default=bytes(range(1, 17)), repr=False)
    pin: bytes = field(default=b"123456\xff\xff", repr=False)
    puk: bytes = field(default=b"12345678", repr=False)
    global_pin: bytes = field(default=b"", repr=False)
    pairing_code: bytes = field(default=b"", repr=False)
    fingers: Mapping[int, bytes] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    """Enrolled fingerprint templates by reference 96 and 97; a finger matches when its octets are equal."""
    tries: int = 3

    digits_only: bool = True
    """Whether a PIN must be 6 to 8 digits padded with FF, a PUK any 8 octets; else 6 to 8 octets of any value."""
    compares_before_format: bool = False
    """Whether the old secret is compared before the form of the new one is looked at."""
    blocked_query: int = 0x63C0
    """Answer to an empty VERIFY of a blocked reference."""
    strict_pin_always: bool = True
    """Whether any command between VERIFY and a PIN Always signature voids the VERIFY."""

    contactless_rules: bool = True
    """Whether the contactless interface is restricted as the standard says."""
    contactless_floor: int = 1
    """Tries at or below which a PIN is no longer compared over the contactless interface."""
    absent_before_rule: bool = False
    """Whether an absent protected object is 6A82 also to those who may not read it."""
    data_model_only: bool = True
    """Whether only containers of the data model can be written."""
    object_limit: int = 12720
    memory: int = 131072
    initial_objects: Mapping[int, bytes] = field(default_factory=lambda: MappingProxyType({}))
    read_only: frozenset[int] = frozenset()

    sw_no_key: int = SW.WRONG_P1P2
    sw_wrong_algorithm: int = SW.WRONG_P1P2

    def select_answer(self) -> bytes:
        """The application property template (SP 800-73-5 part 2 tables 3 to 6)."""
        value = encode(0x4F, PIV_AID if self.full_aid else PIX) + encode(0x79, encode(0x4F, RID))
        if self.label:
            value += encode(0x50, self.label)
        announced = self.announced + ((self.suite,) if self.suite else ())
        if announced:
            listed = b"".join(encode(0x80, bytes((number,))) for number in announced)
            value += encode(0xAC, listed + encode(0x06, b"\0"))
        if self.lengths:
            value += encode(0x7F66, b"".join(encode(0x02, size.to_bytes(2, "big")) for size in self.lengths))
        return encode(0x61, value)


def _discovery(policy: int) -> bytes:
    """A Discovery object with this first octet of the PIN usage policy."""
    return encode(DISCOVERY, encode(0x4F, PIV_AID) + encode(0x5F2F, bytes((policy, 0))))


_A = Algorithm
_YUBIKEY_HISTORY: Final = bytes.fromhex("8073C021C057597562694B6579")
_FACTORY_KEY: Final = bytes.fromhex("0102030405060708" * 3)
_EC_RSA: Final = frozenset((_A.RSA1024, _A.RSA2048, _A.P256, _A.P384))
_ALL_AES: Final = frozenset((_A.AES128, _A.AES192, _A.AES256))
_ADMINISTRATION: Final = frozenset(Vendor)

_YUBIKEY_57: Final = Profile(
    name="yubikey-5.7",
    description="USB key with AES-192 factory key, RSA to 4096, Ed25519 and X25519, move and delete",
    atr=bytes.fromhex("3BFD1300008131FE158073C021C057597562694B657940"),
    atr_contactless=bytes.fromhex("3B8D80018073C021C057597562694B6579F9"),
    max_data=3072,
    answers_without_le=True,
    chains_every_command=True,
    full_aid=False,
    shortest_aid=5,
    select_drops_status=True,
    other_applications=frozenset((MANAGEMENT_AID, SECURITY_DOMAIN_AID)),
    vendor=_ADMINISTRATION,
    version=(5, 7, 4),
    scp03=True,
    templates_wrapped=False,
    slots=PRIMARY | RETIRED | {ATTESTATION},
    generate_slots=PRIMARY | RETIRED | {ATTESTATION},
    algorithms=_EC_RSA | {_A.RSA3072, _A.RSA4096, _A.ED25519, _A.X25519},
    held_algorithms=frozenset(),
    management_algorithms=_ALL_AES | {_A.TDES},
    management_algorithm=_A.AES192,
    management_key=_FACTORY_KEY,
    puk=b"12345678",
    any_key_any_use=True,
    digits_only=False,
    compares_before_format=True,
    blocked_query=SW.BLOCKED,
    contactless_rules=False,
    contactless_floor=0,
    data_model_only=False,
    object_limit=3063,
    memory=51200,
    initial_objects=MappingProxyType({DISCOVERY: _discovery(0x40)}),
    read_only=frozenset((DISCOVERY,)),
    sw_no_key=SW.WRONG_DATA,
    sw_wrong_algorithm=SW.WRONG_DATA,
)

_STANDARD: Final = Profile(
    name="sp800-73-5",
    description="card by the letter of SP 800-73-5: no import, no management-key change, no metadata",
    atr=bytes.fromhex("3BDC18008131FE4580730021C05643572D504956FD"),
    atr_contactless=bytes.fromhex("3B8C800180730021C05643572D5049563F"),
    label=b"Cardwright PIV",
    lengths=(0x1000, 0x7FFF),
    selected_after_reset=True,
    other_applications=frozenset((SECURITY_DOMAIN_AID,)),
    global_pin=b"654321\xff\xff",
)

_PIVAPPLET: Final = replace(
    _YUBIKEY_57,
    name="pivapplet",
    description="Java Card applet with the same administration, without move; slots 82 to 8C; short APDUs only",
    atr=bytes.fromhex("3BD518008131FE45807300218094"),
    atr_contactless=bytes.fromhex("3B858001807300218056"),
    extended=False,
    full_aid=True,
    label=b"PivApplet v0.9.0/RSA,ECDSA,ECDH",
    announced=(_A.TDES, _A.RSA1024, _A.RSA2048, _A.AES128, _A.AES192, _A.AES256, _A.P256, _A.P384),
    select_drops_status=False,
    other_applications=frozenset(),
    vendor=_ADMINISTRATION - {Vendor.MOVE_KEY},
    version=(5, 4, 0),
    origin_codes=(0, 1),
    scp03=False,
    slots=PRIMARY | frozenset(range(0x82, 0x8D)) | {ATTESTATION},
    generate_slots=PRIMARY | frozenset(range(0x82, 0x8D)) | {ATTESTATION},
    algorithms=_EC_RSA,
    management_algorithm=_A.TDES,
    strict_pin_always=False,
    absent_before_rule=True,
    read_only=frozenset(),
)

_ALL: Final = (
    _YUBIKEY_57,
    replace(
        _YUBIKEY_57,
        name="yubikey-5.4",
        description="USB key with 3TDEA factory key, RSA to 2048, metadata, no move or delete",
        version=(5, 4, 3),
        vendor=_ADMINISTRATION - {Vendor.MOVE_KEY},
        algorithms=_EC_RSA,
        management_algorithm=_A.TDES,
    ),
    _STANDARD,
    replace(
        _STANDARD,
        name="secure-messaging",
        description="the standard card with secure messaging, virtual contact interface and pairing code",
        suite=_A.CS2,
        generate_slots=PRIMARY | {SM_KEY},
        pairing_code=b"20260731",
        initial_objects=MappingProxyType({DISCOVERY: _discovery(0x48)}),
    ),
    replace(
        _STANDARD,
        name="secure-messaging-cs7",
        description="the secure-messaging card with the suite for P-384 keys",
        suite=_A.CS7,
        generate_slots=PRIMARY | {SM_KEY},
        pairing_code=b"20260731",
        initial_objects=MappingProxyType({DISCOVERY: _discovery(0x48)}),
    ),
    _PIVAPPLET,
    replace(
        _YUBIKEY_57,
        name="tdes-only",
        description="older USB key: the management key can only be 3TDEA, no metadata",
        version=(5, 2, 7),
        vendor=_ADMINISTRATION - {Vendor.MOVE_KEY, Vendor.METADATA},
        algorithms=_EC_RSA,
        management_algorithms=frozenset((_A.TDES,)),
        management_algorithm=_A.TDES,
        other_applications=frozenset((MANAGEMENT_AID,)),
        scp03=False,
    ),
    replace(
        _YUBIKEY_57,
        name="t0-short",
        description="T=0 card: no extended length, no case 4, data only by GET RESPONSE and exact Le",
        atr=bytes.fromhex("3B1B9680730021805543572D5430"),
        atr_contactless=bytes.fromhex("3B8B800180730021805543572D543050"),
        transmission=Transmission.T0,
        extended=False,
        answers_without_le=False,
        scp03=False,
        other_applications=frozenset((MANAGEMENT_AID,)),
    ),
    replace(
        _STANDARD,
        name="globalplatform",
        description="standard card administered through SCP03: security domain, PUT KEY, objects and keys created",
        atr=bytes.fromhex("3BDB18008131FE4580730021C05543572D4750A1"),
        atr_contactless=bytes.fromhex("3B8B800180730021C05543572D475063"),
        label=b"Cardwright GP",
        scp03=True,
        openfips201=True,
    ),
)

PROFILES: Final[dict[str, Profile]] = {profile.name: profile for profile in _ALL}
"""Every kind of card by name."""
