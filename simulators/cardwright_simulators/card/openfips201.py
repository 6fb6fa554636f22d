"""Administration inside an SCP03 channel as OpenFIPS201 has it: create and delete objects and keys, set their values.

The card also has every container and slot of the standard from the beginning; creating one of those gives it other
access modes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa

from cardwright_cardops.iso7816.status import SW
from cardwright_cardops.iso7816.tlv import MalformedTlv, Tlv, encode, parse_all, parse_one, parse_unique

from .algorithms import (
    GLOBAL_PIN,
    MANAGEMENT_KEY,
    PIN,
    PUK,
    RSA_BITS,
    SYMMETRIC_OCTETS,
    same_cipher,
)
from .answers import Command, Refused, require
from .application import CHANGE_REFERENCE_DATA, GET_DATA, PUT_DATA, PivApplication
from .authenticate import TOUCH_NEVER
from .core import Core
from .keys import working_key
from .state import Access, ManagementKey, StoredKey

CREATE_OBJECT: Final = 0x64
DELETE_OBJECT: Final = 0x65
CREATE_KEY: Final = 0x66
DELETE_KEY: Final = 0x67
BULK: Final = 0x6A
_VERSION: Final = bytes.fromhex("5C032F4756")
_STATUS: Final = bytes.fromhex("5C032F4753")
_SYMMETRIC, _MODULUS, _EXPONENT, _PRIVATE_EXPONENT, _POINT, _SCALAR = 0x80, 0x81, 0x82, 0x83, 0x86, 0x87
_SECRET_BY_ADMINISTRATOR: Final = 0xFF


class ManagedPivApplication(PivApplication):
    """The PIV application that a host administers through SCP03."""

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._parts: dict[tuple[int, int], dict[int, bytes]] = {}
        standard_put, standard_change = self.commands[PUT_DATA], self.commands[CHANGE_REFERENCE_DATA]
        standard_get = self.commands[GET_DATA]

        def put(command: Command) -> bytes:
            administrative = (command.p1, command.p2) == (0x3F, 0x00)
            return self._administer(command) if administrative else standard_put(command)

        def change(command: Command) -> bytes:
            return self._set_value(command) if command.scp and command.p1 else standard_change(command)

        def get(command: Command) -> bytes:
            information = (command.p1, command.p2) == (0x3F, 0x00)
            return self._information(command) if information else standard_get(command)

        self.commands.update({PUT_DATA: put, CHANGE_REFERENCE_DATA: change, GET_DATA: get})

    def leave(self) -> None:
        """Half-sent keys are forgotten, too."""
        super().leave()
        self._parts.clear()

    def chains(self, ins: int) -> int:
        """Key elements may be longer than one block."""
        return SW.OK if ins == CHANGE_REFERENCE_DATA else super().chains(ins)

    def _administer(self, command: Command) -> bytes:
        """PUT DATA 3F00: one administrative command, or several in a bulk."""
        require(command.scp, SW.SECURITY_STATUS)
        try:
            request = parse_one(command.data)
            steps = parse_all(request.value) if request.tag == BULK else (request,)
            chosen = [self._step(step) for step in steps]
        except MalformedTlv:
            raise Refused(SW.WRONG_DATA) from None
        for step in chosen:
            step()
        return b""

    def _step(self, step: Tlv) -> Callable[[], None]:
        """What one request will do; everything that can be refused is refused here, before the first step."""
        known = {
            CREATE_OBJECT: self._create_object,
            DELETE_OBJECT: self._delete_object,
            CREATE_KEY: self._create_key,
            DELETE_KEY: self._delete_key,
        }
        require(step.tag in known)
        return known[step.tag](parse_unique(step.value))

    def _create_object(self, fields: dict[int, bytes]) -> Callable[[], None]:
        tag = int.from_bytes(fields.get(0x8B, b""), "big")
        require(1 <= len(fields.get(0x8B, b"")) <= 3)
        access = Access(_octet(fields, 0x8C), _octet(fields, 0x8D))
        self.core.room(16)

        def create() -> None:
            self.core.state.access[tag] = access
            self.core.changed("access", tag)

        return create

    def _delete_object(self, fields: dict[int, bytes]) -> Callable[[], None]:
        tag = int.from_bytes(fields.get(0x8B, b""), "big")
        state = self.core.state
        require(tag in state.access or tag in state.objects, SW.NOT_FOUND)

        def delete() -> None:
            state.access.pop(tag, None)
            state.objects.pop(tag, None)
            self.core.changed("object deleted", tag)

        return delete

    def _create_key(self, fields: dict[int, bytes]) -> Callable[[], None]:
        slot = _octet(fields, 0x8B)
        require(slot in self.core.profile.slots or slot == MANAGEMENT_KEY)
        access = Access(_octet(fields, 0x8C), _octet(fields, 0x8D), _octet(fields, 0x8E))

        def create() -> None:
            self.core.state.key_access[slot] = access
            self.core.changed("access", slot)

        return create

    def _delete_key(self, fields: dict[int, bytes]) -> Callable[[], None]:
        slot = _octet(fields, 0x8B)
        state = self.core.state
        require(slot in state.keys or slot in state.key_access, SW.REFERENCE_NOT_FOUND)

        def delete() -> None:
            state.keys.pop(slot, None)
            state.key_access.pop(slot, None)
            self.core.changed("key deleted", slot)

        return delete

    def _set_value(self, command: Command) -> bytes:
        """CHANGE REFERENCE DATA in the channel: P1 FF sets a PIN or PUK, else the mechanism of one key element."""
        if command.p1 == _SECRET_BY_ADMINISTRATOR:
            require(command.p2 in (GLOBAL_PIN, PIN, PUK), SW.REFERENCE_NOT_FOUND)
            self.references.set_by_administrator(command.p2, command.data)
            return b""
        algorithm, slot = same_cipher(command.p1), command.p2
        try:
            element = parse_one(parse_one(command.data, 0x30).value)
        except MalformedTlv:
            raise Refused(SW.WRONG_DATA) from None
        if slot == MANAGEMENT_KEY:
            octets = SYMMETRIC_OCTETS.get(algorithm)
            require(octets is not None, SW.WRONG_P1P2)
            require(element.tag == _SYMMETRIC and len(element.value) == octets)
            self.core.state.management = ManagementKey(algorithm, element.value, TOUCH_NEVER)
            self.core.changed("management key", MANAGEMENT_KEY, len(element.value))
            return b""
        self._require_key(slot, algorithm)
        parts = self._parts.setdefault((slot, algorithm), {})
        parts[element.tag] = element.value
        private = self._private(algorithm, parts)
        if private is not None:
            del self._parts[slot, algorithm]
            self.core.room(0)
            pin_policy, touch_policy = self.policies(slot, {})
            self.store_key(slot, StoredKey(algorithm, private, pin_policy, touch_policy), "key imported")
        return b""

    def _require_key(self, slot: int, algorithm: int) -> None:
        profile = self.core.profile
        require(slot in profile.slots, SW.REFERENCE_NOT_FOUND)
        require(algorithm in profile.algorithms | profile.held_algorithms, SW.WRONG_P1P2)
        created = self.core.state.key_access.get(slot)
        require(created is None or created.mechanism == algorithm, SW.WRONG_P1P2)

    @staticmethod
    def _private(algorithm: int, parts: dict[int, bytes]) -> tuple[bytes, ...] | None:
        """The private part once all its elements came; None before. Refuses what makes no key."""
        if algorithm in RSA_BITS:
            if not parts.keys() >= {_MODULUS, _EXPONENT, _PRIVATE_EXPONENT}:
                return None
            n, e, d = (
                int.from_bytes(parts[tag], "big") for tag in (_MODULUS, _EXPONENT, _PRIVATE_EXPONENT)
            )
            try:
                require(n.bit_length() == RSA_BITS[algorithm])
                p, q = rsa.rsa_recover_prime_factors(n, e, d)
            except ValueError:
                raise Refused(SW.WRONG_DATA) from None
            private = tuple(part.to_bytes((part.bit_length() + 7) // 8, "big") for part in (p, q, e))
        else:
            if _SCALAR not in parts:
                require(parts.keys() <= {_POINT})
                return None
            private = (parts[_SCALAR],)
        try:
            working_key(algorithm, private)
        except ValueError:
            raise Refused(SW.WRONG_DATA) from None
        return private

    def _information(self, command: Command) -> bytes:
        """GET DATA 3F00: version, and whether the secrets are still the factory's."""
        if command.data == _VERSION:
            return encode(0x73, encode(0x80, b"OpenFIPS201") + encode(0x81, b"\x01") + encode(0x82, b"\x0a"))
        require(command.data == _STATUS, SW.NOT_FOUND)
        factory = any(item.default for item in self.core.state.references.values())
        return encode(0x73, encode(0x80, b"\0" if factory else b"\x01"))


def _octet(fields: dict[int, bytes], tag: int) -> int:
    value = fields.get(tag, b"")
    require(len(value) == 1)
    return value[0]
