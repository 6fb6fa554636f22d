"""The commands of the PIV card application, spelled out (SP 800-73-5 part 2 section 3).

Pure functions from values to CommandAPDU; the vendor commands are in ``vendor``.
"""

from __future__ import annotations

from typing import Final

from ..iso7816.apdu import MAX_EXTENDED_LE, CommandAPDU
from ..iso7816.tlv import encode, encode_tag
from ..secret import Secret
from .algorithms import Algorithm, ManagementAlgorithm, PinPolicy, TouchPolicy
from .references import MANAGEMENT_KEY, PinReference

PIV_AID: Final = bytes.fromhex("A000000308000010000100")
PIV_AID_TRUNCATED: Final = PIV_AID[:9]
ISSUER_SECURITY_DOMAIN_AID: Final = bytes.fromhex("A000000151000000")

TAG_DISCOVERY: Final = 0x7E
TAG_BIT_GROUP: Final = 0x7F61
TAG_TAG_LIST: Final = 0x5C
TAG_DATA: Final = 0x53
TAG_DYNAMIC_AUTHENTICATION: Final = 0x7C
TAG_WITNESS: Final = 0x80
TAG_CHALLENGE: Final = 0x81
TAG_RESPONSE: Final = 0x82
TAG_EXPONENTIATION: Final = 0x85

PIN_OCTETS: Final = 8
_ALL: Final = MAX_EXTENDED_LE
_DATA_FIELD: Final = (0x3F, 0xFF)


def select(aid: bytes = PIV_AID_TRUNCATED) -> CommandAPDU:
    """SELECT by AID (3.1.1). The truncated PIV AID selects every version of the application."""
    return CommandAPDU(0x00, 0xA4, 0x04, 0x00, aid, 256)


def get_data(tag: int) -> CommandAPDU:
    """GET DATA of one container (3.1.2)."""
    return CommandAPDU(0x00, 0xCB, *_DATA_FIELD, encode(TAG_TAG_LIST, encode_tag(tag)), _ALL)


def put_data(tag: int, content: bytes) -> CommandAPDU:
    """PUT DATA (3.3.1). ``content`` is what goes inside 53; for 7E and 7F61 the whole data object, sent bare."""
    if tag in (TAG_DISCOVERY, TAG_BIT_GROUP):
        data = content
    else:
        data = encode(TAG_TAG_LIST, encode_tag(tag)) + encode(TAG_DATA, content)
    return CommandAPDU(0x00, 0xDB, *_DATA_FIELD, data)


def pin_block(pin: Secret) -> bytes:
    """A PIN or PUK padded with FF to 8 octets (2.4.3). Raises ValueError for an empty or longer one."""
    if not 0 < len(pin) <= PIN_OCTETS:
        raise ValueError("a PIN or PUK has 1 to 8 octets")
    return pin.reveal().ljust(PIN_OCTETS, b"\xff")


def pin_state(reference: int = PinReference.PIN) -> CommandAPDU:
    """VERIFY without data: 9000 verified, 63CX tries left, 6983 blocked (3.2.1). Spends no try."""
    return CommandAPDU(0x00, 0x20, 0x00, reference)


def verify(reference: int, value: Secret) -> CommandAPDU:
    """VERIFY (3.2.1)."""
    return CommandAPDU(0x00, 0x20, 0x00, reference, pin_block(value))


def clear_status(reference: int = PinReference.PIN) -> CommandAPDU:
    """VERIFY with P1=FF: forget that the reference was verified (3.2.1)."""
    return CommandAPDU(0x00, 0x20, 0xFF, reference)


def change_reference_data(reference: int, old: Secret, new: Secret) -> CommandAPDU:
    """CHANGE REFERENCE DATA of PIN, Global PIN or PUK (3.2.2)."""
    return CommandAPDU(0x00, 0x24, 0x00, reference, pin_block(old) + pin_block(new))


def reset_retry_counter(puk: Secret, new_pin: Secret) -> CommandAPDU:
    """RESET RETRY COUNTER of the application PIN (3.2.3)."""
    return CommandAPDU(0x00, 0x2C, 0x00, PinReference.PIN, pin_block(puk) + pin_block(new_pin))


def general_authenticate(algorithm: int, key: int, *parts: tuple[int, bytes], answers: bool = True) -> CommandAPDU:
    """GENERAL AUTHENTICATE with the given parts of the dynamic authentication template (3.2.4)."""
    template = encode(TAG_DYNAMIC_AUTHENTICATION, b"".join(encode(tag, value) for tag, value in parts))
    return CommandAPDU(0x00, 0x87, algorithm, key, template, _ALL if answers else 0)


def use_key(algorithm: int, slot: int, data: bytes, *, agree: bool = False) -> CommandAPDU:
    """GENERAL AUTHENTICATE with an asymmetric key: signature or decryption, or ECDH when ``agree``."""
    tag = TAG_EXPONENTIATION if agree else TAG_CHALLENGE
    return general_authenticate(algorithm, slot, (TAG_RESPONSE, b""), (tag, data))


def management_challenge(algorithm: ManagementAlgorithm) -> CommandAPDU:
    """Ask for a challenge of the administration key: external authentication, step 1 (A.1)."""
    return general_authenticate(algorithm, MANAGEMENT_KEY, (TAG_CHALLENGE, b""))


def management_witness(algorithm: ManagementAlgorithm) -> CommandAPDU:
    """Ask for a witness of the administration key: mutual authentication, step 1 (A.2)."""
    return general_authenticate(algorithm, MANAGEMENT_KEY, (TAG_WITNESS, b""))


def generate(
    slot: int,
    algorithm: Algorithm,
    *,
    pin_policy: PinPolicy = PinPolicy.DEFAULT,
    touch_policy: TouchPolicy = TouchPolicy.DEFAULT,
) -> CommandAPDU:
    """GENERATE ASYMMETRIC KEY PAIR (3.3.2). Policies other than DEFAULT are vendor tags AA and AB."""
    template = encode(0x80, bytes((algorithm,))) + policy_tags(pin_policy, touch_policy)
    return CommandAPDU(0x00, 0x47, 0x00, slot, encode(0xAC, template), _ALL)


def policy_tags(pin_policy: PinPolicy, touch_policy: TouchPolicy) -> bytes:
    """The vendor tags AA and AB; nothing for DEFAULT, which standard cards would refuse."""
    tags = b""
    if pin_policy is not PinPolicy.DEFAULT:
        tags += encode(0xAA, bytes((pin_policy,)))
    if touch_policy is not TouchPolicy.DEFAULT:
        tags += encode(0xAB, bytes((touch_policy,)))
    return tags
