"""GENERAL AUTHENTICATE (SP 800-73-5 part 2 section 3.2.4): the management key, and keys at work."""

from __future__ import annotations

import hmac
from typing import Final

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from cardwright_cardops.iso7816.status import SW
from cardwright_cardops.iso7816.tlv import MalformedTlv, encode, parse_one, parse_unique

from .algorithms import (
    AGREEMENT,
    ATTESTATION,
    CARD_AUTHENTICATION,
    MANAGEMENT_KEY,
    RSA_BITS,
    Algorithm,
    same_cipher,
)
from .answers import Command, Refused, require
from .core import Core
from .log import ManagementAuthentication, key_use
from .security import Security
from .state import StoredKey

WITNESS: Final = 0x80
CHALLENGE: Final = 0x81
RESPONSE: Final = 0x82
EXPONENTIATION: Final = 0x85
_KNOWN: Final = frozenset((WITNESS, CHALLENGE, RESPONSE, EXPONENTIATION))

PIN_NEVER: Final = 1
PIN_ONCE: Final = 2
PIN_ALWAYS: Final = 3
TOUCH_NEVER: Final = 1


def template(data: bytes) -> dict[int, bytes]:
    """The elements of a dynamic authentication template. Refuses with 6A80 what is none."""
    try:
        elements = parse_unique(parse_one(data, 0x7C).value)
    except MalformedTlv:
        raise Refused(SW.WRONG_DATA) from None
    require(elements.keys() <= _KNOWN)
    return elements


class Authenticator:
    """The uses of keys."""

    def __init__(self, core: Core, security: Security) -> None:
        self._core = core
        self._security = security

    def authenticate(self, command: Command) -> bytes:
        """GENERAL AUTHENTICATE for every key but 04."""
        if command.p2 == MANAGEMENT_KEY:
            return self._management(command)
        slot = command.p2
        require(slot in self._core.profile.slots and slot != ATTESTATION, SW.WRONG_P1P2)
        key = self._core.state.keys.get(slot)
        if key is None:
            raise Refused(self._core.profile.sw_no_key)
        require(command.p1 == key.algorithm, self._core.profile.sw_wrong_algorithm)
        self._require_right(slot, key)
        elements = template(command.data)
        require(elements.get(RESPONSE) == b"" and len(elements) == 2)
        working = self._core.working(slot, key)
        if EXPONENTIATION in elements:
            require(slot in AGREEMENT or self._core.profile.any_key_any_use)
            data = elements[EXPONENTIATION]
            answer = working.agree(data)
        else:
            data = elements.get(CHALLENGE, b"")
            require(bool(data))
            require(key.algorithm in RSA_BITS or slot not in AGREEMENT or self._core.profile.any_key_any_use)
            answer = working.sign(data)
        self._core.log.append(key_use(slot, key.algorithm, data))
        self._core.timing.use(key.algorithm)
        return encode(0x7C, encode(RESPONSE, answer))

    def _require_right(self, slot: int, key: StoredKey) -> None:
        """6982 unless the rule of the key is met (SP 800-73-5 part 1 table 5), or its own access mode."""
        security = self._security
        access = self._core.state.key_access.get(slot)
        if access is not None:
            mode = access.contactless if self._core.contactless else access.contact
            require(security.allows(mode), SW.SECURITY_STATUS)
            return
        if self._core.contactless and slot != CARD_AUTHENTICATION and not security.vci:
            raise Refused(SW.SECURITY_STATUS)
        if key.pin_policy != PIN_NEVER:
            right = security.pin_satisfied or security.occ_satisfied
            if key.pin_policy == PIN_ALWAYS:
                right = right and security.verified_before
                security.just_verified = False
            require(right, SW.SECURITY_STATUS)
        require(key.touch_policy == TOUCH_NEVER or self._core.touch_given, SW.SECURITY_STATUS)

    def _management(self, command: Command) -> bytes:
        """Prove the management key: external authentication, or mutual authentication begun by a witness."""
        security = self._security
        require(not self._core.contactless, SW.SECURITY_STATUS)
        key = self._core.state.management
        require(same_cipher(command.p1) == key.algorithm, self._core.profile.sw_wrong_algorithm)
        require(key.touch == TOUCH_NEVER or self._core.touch_given, SW.SECURITY_STATUS)
        pending, security.challenge = security.challenge, None
        elements = template(command.data)
        octets = 8 if key.algorithm == Algorithm.TDES else 16
        if elements in ({CHALLENGE: b""}, {WITNESS: b""}):
            security.admin = False
            (kind,) = elements
            plain = self._core.rng(octets)
            security.challenge = (kind, plain)
            shown = plain if kind == CHALLENGE else encipher(key.algorithm, key.value, plain)
            return encode(0x7C, encode(kind, shown))
        if elements.get(WITNESS) and elements.get(CHALLENGE) and not elements.get(RESPONSE):
            require(len(elements[CHALLENGE]) == octets and EXPONENTIATION not in elements)
            self._prove(pending, WITNESS, elements[WITNESS])
            answer = encipher(key.algorithm, key.value, elements[CHALLENGE])
            return encode(0x7C, encode(RESPONSE, answer))
        require(elements.keys() == {RESPONSE} and bool(elements[RESPONSE]))
        wanted = None
        if pending is not None and pending[0] == CHALLENGE:
            wanted = (RESPONSE, encipher(key.algorithm, key.value, pending[1]))
        self._prove(wanted, RESPONSE, elements[RESPONSE])
        return b""

    def _prove(self, wanted: tuple[int, bytes] | None, kind: int, given: bytes) -> None:
        """Set the admin status, or end it with 6982."""
        right = wanted is not None and wanted[0] == kind and hmac.compare_digest(wanted[1], given)
        self._security.admin = right
        self._core.log.append(ManagementAuthentication(right))
        require(right, SW.SECURITY_STATUS)


def encipher(algorithm: int, key: bytes, block: bytes) -> bytes:
    """One block in ECB under a management key."""
    cipher = TripleDES(key) if algorithm == Algorithm.TDES else algorithms.AES(key)
    encryptor = Cipher(cipher, modes.ECB()).encryptor()
    return encryptor.update(block) + encryptor.finalize()
