"""Numbers of the card edge as the guard knows them, written down a second time on purpose.

SP 800-73-5 part 1 tables 2 to 4, SP 800-78-5 table 9, and what vendors add. Whoever changes the tables of the
programs changes nothing here: the guard shares no code with what it judges.
"""

from __future__ import annotations

from typing import Final

PIV_AIDS: Final = frozenset(
    (bytes.fromhex("A00000030800001000"), bytes.fromhex("A000000308000010000100"))
)
"""The PIV card application, truncated and in full."""

PIN: Final = 0x80
GLOBAL_PIN: Final = 0x00
PUK: Final = 0x81
PIN_REFERENCES: Final = frozenset((PIN, GLOBAL_PIN))
MANAGEMENT_KEY: Final = 0x9B
PUK_OCTETS: Final = 8

AUTHENTICATION: Final = 0x9A
SIGNATURE: Final = 0x9C
KEY_MANAGEMENT: Final = 0x9D
CARD_AUTHENTICATION: Final = 0x9E
RETIRED: Final = tuple(range(0x82, 0x96))
SLOTS: Final = frozenset((AUTHENTICATION, SIGNATURE, KEY_MANAGEMENT, CARD_AUTHENTICATION, *RETIRED))
IMPORT_SLOTS: Final = frozenset((KEY_MANAGEMENT, *RETIRED))
"""Where keys may come from outside; all other keys are born on the card (FIPS 201-3 section 4.2.2)."""
PROVING_SLOTS: Final = frozenset((AUTHENTICATION, SIGNATURE, CARD_AUTHENTICATION))
"""Keys that may sign a proof. Key management keys decrypt and do nothing else."""

CERTIFICATES: Final = {
    AUTHENTICATION: 0x5FC105,
    SIGNATURE: 0x5FC10A,
    KEY_MANAGEMENT: 0x5FC10B,
    CARD_AUTHENTICATION: 0x5FC101,
    **{slot: 0x5FC10D + number for number, slot in enumerate(RETIRED)},
}
"""Slot to the tag of its certificate's container."""

CHUID: Final = 0x5FC102
FINGERPRINTS: Final = 0x5FC103
SECURITY_OBJECT: Final = 0x5FC106
CAPABILITIES: Final = 0x5FC107
FACE: Final = 0x5FC108
PRINTED: Final = 0x5FC109
KEY_HISTORY: Final = 0x5FC10C
IRIS: Final = 0x5FC121
SM_SIGNER: Final = 0x5FC122
PAIRING_CODE: Final = 0x5FC123
DISCOVERY: Final = 0x7E
BIT_GROUP: Final = 0x7F61
ATTESTATION_CERTIFICATE: Final = 0x5FFF01

PROTECTED: Final = frozenset((FINGERPRINTS, FACE, PRINTED, IRIS, PAIRING_CODE))
"""Read under the PIN: they never leave the workstation."""
READABLE: Final = frozenset(
    (
        CHUID,
        SECURITY_OBJECT,
        CAPABILITIES,
        KEY_HISTORY,
        SM_SIGNER,
        DISCOVERY,
        BIT_GROUP,
        ATTESTATION_CERTIFICATE,
        *CERTIFICATES.values(),
    )
)
"""Free to read for everybody, so free to read for a server too."""
WRITABLE: Final = frozenset(
    (CHUID, FINGERPRINTS, SECURITY_OBJECT, CAPABILITIES, FACE, PRINTED, KEY_HISTORY, IRIS, BIT_GROUP)
)
"""Objects of ordinary plans. Certificates have an operation of their own; so has what is left out here."""
BARE: Final = frozenset((DISCOVERY, BIT_GROUP))
"""Written and read without the wrapper 53."""

BLOCK_OCTETS: Final = {0x03: 8, 0x08: 16, 0x0A: 16, 0x0C: 16}
"""Management-key algorithm to its block."""
MANAGEMENT_KEY_OCTETS: Final = {0x03: 24, 0x08: 16, 0x0A: 24, 0x0C: 32}

POLICY_DEFAULT: Final = 0
PIN_NEVER, PIN_ONCE, PIN_ALWAYS, MATCH_ONCE, MATCH_ALWAYS = 1, 2, 3, 4, 5
TOUCH_NEVER, TOUCH_ALWAYS, TOUCH_CACHED = 1, 2, 3

FACTORY_PUK: Final = b"12345678"
FACTORY_MANAGEMENT_KEY: Final = bytes.fromhex("0102030405060708") * 3


def default_pin_policy(slot: int) -> int:
    """What PIN policy 0 means in ``slot`` (SP 800-73-5 part 1 table 4)."""
    return {SIGNATURE: PIN_ALWAYS, CARD_AUTHENTICATION: PIN_NEVER}.get(slot, PIN_ONCE)
