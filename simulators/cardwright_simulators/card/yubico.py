"""Administration beyond the standard, as USB keys and PivApplet have it: import, metadata, attest, reset, move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cardwright_cardops.iso7816.status import SW
from cardwright_cardops.iso7816.tlv import MalformedTlv, encode, parse_one, parse_unique

from .algorithms import (
    ATTESTATION,
    EC_OCTETS,
    MANAGEMENT_KEY,
    PIN,
    PUK,
    RSA_BITS,
    SYMMETRIC_OCTETS,
    Algorithm,
)
from .answers import Command, Refused, require
from .application import PivApplication, default_pin_policy
from .authenticate import PIN_ALWAYS, TOUCH_NEVER
from .core import Core
from .factory import factory_state
from .keys import working_key
from .objects import ATTESTATION_CERTIFICATE
from .profiles import Vendor
from .state import ManagementKey, Reference, StoredKey

_RSA_EXPONENT: Final = b"\x01\x00\x01"
_PIN_POLICY: Final = 0xAA
_TOUCH_POLICY: Final = 0xAB
_CURVE_TAGS: Final = {
    Algorithm.P256: 0x06,
    Algorithm.P384: 0x06,
    Algorithm.ED25519: 0x07,
    Algorithm.X25519: 0x08,
}


class VendorPivApplication(PivApplication):
    """The PIV application with the instructions that the profile names."""

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._factory_certificate: bytes | None = None
        known: dict[int, Callable[[Command], bytes]] = {
            Vendor.MOVE_KEY: self._move,
            Vendor.METADATA: self._metadata,
            Vendor.SERIAL: self._serial,
            Vendor.ATTEST: self._attest,
            Vendor.SET_RETRIES: self._set_retries,
            Vendor.RESET: self._reset,
            Vendor.VERSION: self._version,
            Vendor.IMPORT: self._import,
            Vendor.SET_MANAGEMENT_KEY: self._set_management_key,
        }
        self.commands.update({ins: known[ins] for ins in core.profile.vendor})

    def policies(self, slot: int, parameters: dict[int, bytes]) -> tuple[int, int]:
        """PIN policy (AA: 0 default, 1 never, 2 once, 3 always) and touch policy (AB: 0 default to 3 cached)."""
        pin = self._policy(parameters.pop(_PIN_POLICY, b"\0"))
        touch = self._policy(parameters.pop(_TOUCH_POLICY, b"\0"))
        require(not parameters)
        return pin or default_pin_policy(slot), touch or TOUCH_NEVER

    @staticmethod
    def _policy(value: bytes) -> int:
        require(len(value) == 1 and value[0] <= PIN_ALWAYS)
        return value[0]

    def stored_object(self, tag: int) -> bytes | None:
        """With the attestation certificate, which is made from the card's seed when it is first wanted."""
        stored = super().stored_object(tag)
        if tag != ATTESTATION_CERTIFICATE or ATTESTATION not in self.core.profile.slots:
            return stored
        if stored is not None:
            return stored or None
        if self._factory_certificate is None:
            from .attestation import factory_certificate

            state = self.core.state
            der = factory_certificate(state.seed, state.serial, self.core.profile.version)
            content = encode(0x70, der) + encode(0x71, b"\0") + encode(0xFE, b"")
            self._factory_certificate = encode(0x53, content)
        return self._factory_certificate

    def write_object(self, tag: int, answer: bytes, keep: bool) -> None:
        """As on any card; the maker's certificate, once deleted, does not come back: empty octets remember that."""
        if keep or tag != ATTESTATION_CERTIFICATE or ATTESTATION not in self.core.profile.slots:
            super().write_object(tag, answer, keep)
        elif self.core.state.objects.get(tag) != b"":
            self.core.state.objects[tag] = b""
            self.core.changed("object deleted", tag)

    def _key(self, slot: int) -> StoredKey | None:
        """The key in ``slot``; F9 has the maker's until it is replaced."""
        key = self.core.state.keys.get(slot)
        if key is None and slot == ATTESTATION and slot in self.core.profile.slots:
            from .attestation import factory_key

            return factory_key(self.core.state.seed)
        return key

    def _version(self, command: Command) -> bytes:
        return bytes(self.core.profile.version)

    def _serial(self, command: Command) -> bytes:
        return self.core.state.serial.to_bytes(4, "big")

    def _metadata(self, command: Command) -> bytes:
        """F7: what a reference or slot holds; 6A88 where there is nothing."""
        state, profile = self.core.state, self.core.profile
        require(command.p1 == 0x00, SW.WRONG_P1P2)
        if command.p2 in (PIN, PUK):
            item = state.references[command.p2]
            counters = bytes((item.maximum, item.tries))
            return encode(0x01, b"\xff") + encode(0x05, bytes((item.default,))) + encode(0x06, counters)
        if command.p2 == MANAGEMENT_KEY:
            key = state.management
            return (
                encode(0x01, bytes((key.algorithm,)))
                + encode(0x02, bytes((0, key.touch)))
                + encode(0x05, bytes((key.default,)))
            )
        stored = self._key(command.p2)
        if stored is None:
            raise Refused(SW.REFERENCE_NOT_FOUND)
        origin = profile.origin_codes[0 if stored.generated else 1]
        return (
            encode(0x01, bytes((stored.algorithm,)))
            + encode(0x02, bytes((stored.pin_policy, stored.touch_policy)))
            + encode(0x03, bytes((origin,)))
            + encode(0x04, working_key(stored.algorithm, stored.private).public)
        )

    def _attest(self, command: Command) -> bytes:
        """F9: a certificate about a key that was generated on the card."""
        from .attestation import attest

        require(command.p2 == 0x00, SW.WRONG_P1P2)
        require(command.p1 in self.core.profile.slots and command.p1 != ATTESTATION, SW.WRONG_P1P2)
        key = self.core.state.keys.get(command.p1)
        if key is None or not key.generated:
            raise Refused(SW.WRONG_DATA)
        signer = self._key(ATTESTATION)
        certificate = self._attestation_certificate()
        if signer is None or certificate is None:
            raise Refused(SW.CONDITIONS)
        self.core.timing.use(signer.algorithm)
        try:
            return attest(
                command.p1,
                key,
                signer,
                certificate,
                serial=self.core.state.serial,
                version=self.core.profile.version,
                form_factor=self.core.profile.form_factor,
                nonce=self.core.rng(16),
            )
        except ValueError:
            raise Refused(SW.CONDITIONS) from None

    def _attestation_certificate(self) -> bytes | None:
        answer = self.stored_object(ATTESTATION_CERTIFICATE)
        try:
            return parse_unique(parse_one(answer or b"", 0x53).value).get(0x70)
        except MalformedTlv:
            return None

    def _import(self, command: Command) -> bytes:
        """FE: a private key from outside; P1 algorithm, P2 slot."""
        algorithm, slot = command.p1, command.p2
        require(slot in self.core.profile.slots, SW.WRONG_P1P2)
        self.security.require_admin()
        require(algorithm in self.core.profile.algorithms, SW.WRONG_P1P2)
        try:
            elements = parse_unique(command.data)
        except MalformedTlv:
            raise Refused(SW.WRONG_DATA) from None
        private = self._private(algorithm, elements)
        key = StoredKey(algorithm, private, *self.policies(slot, elements))
        try:
            working_key(algorithm, private)
        except ValueError:
            raise Refused(SW.WRONG_DATA) from None
        self.core.room(0)
        self.store_key(slot, key, "key imported")
        return b""

    @staticmethod
    def _private(algorithm: int, elements: dict[int, bytes]) -> tuple[bytes, ...]:
        """Take the private part out of the elements of an import."""
        if algorithm in RSA_BITS:
            octets = RSA_BITS[algorithm] // 16
            parts = [elements.pop(tag, b"") for tag in range(0x01, 0x06)]
            require(all(0 < len(part) <= octets for part in parts))
            return parts[0], parts[1], _RSA_EXPONENT
        value = elements.pop(_CURVE_TAGS[Algorithm(algorithm)], b"")
        require(len(value) == EC_OCTETS.get(algorithm, 32))
        return (value,)

    def _move(self, command: Command) -> bytes:
        """F6: move a key to another, empty slot, or delete it (P1 FF). Certificates stay where they are."""
        to, source = command.p1, command.p2
        movable = self.core.profile.slots - {ATTESTATION}
        require(source in movable and (to == 0xFF or to in movable) and to != source, SW.WRONG_P1P2)
        self.security.require_admin()
        keys = self.core.state.keys
        require(source in keys, SW.REFERENCE_NOT_FOUND)
        if to == 0xFF:
            del keys[source]
            self.core.changed("key deleted", source)
            return b""
        require(to not in keys, SW.CONDITIONS)
        keys[to] = keys.pop(source)
        self.core.changed("key moved", to)
        return b""

    def _set_retries(self, command: Command) -> bytes:
        """FA: P1 PIN tries, P2 PUK tries; both secrets get their factory values again."""
        self.security.require_admin()
        require(self.security.pin, SW.SECURITY_STATUS)
        require(command.p1 > 0 and command.p2 > 0, SW.WRONG_P1P2)
        profile, state = self.core.profile, self.core.state
        state.references[PIN] = Reference(profile.pin, command.p1, command.p1, True)
        state.references[PUK] = Reference(profile.puk, command.p2, command.p2, True)
        self.security.pin = False
        self.core.changed("retries", PIN)
        return b""

    def _reset(self, command: Command) -> bytes:
        """FB: back to the factory, only with PIN and PUK both blocked. F9 stays as it is."""
        state = self.core.state
        require(not state.references[PIN].tries and not state.references[PUK].tries, SW.CONDITIONS)
        fresh = factory_state(self.core.profile, state.serial, state.seed)
        kept = state.objects.get(ATTESTATION_CERTIFICATE)
        state.references, state.management = fresh.references, fresh.management
        state.keys = {slot: key for slot, key in state.keys.items() if slot == ATTESTATION}
        state.objects = fresh.objects | ({} if kept is None else {ATTESTATION_CERTIFICATE: kept})
        self.security.drop()
        self.security.read_usage()
        self.core.changed("factory reset", 0, 512)
        return b""

    def _set_management_key(self, command: Command) -> bytes:
        """FF: a new management key; P2 FE asks for a touch at each use, data: algorithm, then 9B key."""
        require(command.p1 == 0xFF and command.p2 in (0xFE, 0xFF), SW.WRONG_P1P2)
        self.security.require_admin()
        profile, data = self.core.profile, command.data
        require(len(data) > 3 and data[0] in profile.management_algorithms)
        algorithm, octets = data[0], SYMMETRIC_OCTETS[data[0]]
        require(data[1:3] == bytes((MANAGEMENT_KEY, octets)) and len(data) == 3 + octets)
        default = algorithm == profile.management_algorithm and data[3:] == profile.management_key
        touch = 2 if command.p2 == 0xFE else TOUCH_NEVER
        self.core.state.management = ManagementKey(algorithm, data[3:], touch, default)
        self.core.changed("management key", MANAGEMENT_KEY, octets)
        return b""
