"""VERIFY, CHANGE REFERENCE DATA, RESET RETRY COUNTER (SP 800-73-5 part 2 sections 3.2.1 to 3.2.3)."""

from __future__ import annotations

from typing import Final

from cardwright_cardops.iso7816.status import SW

from .algorithms import FINGERS, GLOBAL_PIN, PAIRING_CODE, PIN, PUK
from .answers import Command, Refused, require
from .core import Core
from .log import Verify
from .security import Security
from .state import Reference

_PINS: Final = (GLOBAL_PIN, PIN)


class References:
    """The secrets that a person knows or is."""

    def __init__(self, core: Core, security: Security) -> None:
        self._core = core
        self._security = security

    def verify(self, command: Command) -> bytes:
        """VERIFY. Checks in this order: P1, P2, interface, data presence, counter, format, comparison."""
        reference = command.p2
        require(command.p1 in (0x00, 0xFF), SW.WRONG_P1P2)
        require(self._security.known_reference(reference), SW.REFERENCE_NOT_FOUND)
        self._require_interface(reference, command.sm)
        if command.p1 == 0xFF:
            require(not command.data)
            self._security.set_status(reference, False)
            return b""
        if not command.data:
            return self._query(reference)
        self._require_tries(reference)
        if reference in FINGERS:
            self._require_minutiae(reference, command.data)
        elif reference == PAIRING_CODE:
            require(len(command.data) == 8 and command.data.isdigit())
        else:
            require(len(command.data) == 8)
            require(not self._core.profile.digits_only or self.well_formed(reference, command.data))
        if not self._compare(reference, command.data):
            self._security.set_status(reference, False)
            self._fail(reference)
        self._security.set_status(reference, True)
        self._security.just_verified = reference != PAIRING_CODE
        return b""

    def change(self, command: Command) -> bytes:
        """CHANGE REFERENCE DATA with the old value in the data field."""
        reference = command.p2
        require(command.p1 == 0x00, SW.WRONG_P1P2)
        require(reference in (GLOBAL_PIN, PIN, PUK), SW.REFERENCE_NOT_FOUND)
        require(reference == PUK or self._security.known_reference(reference), SW.REFERENCE_NOT_FOUND)
        if reference == PUK:
            require(not self._core.contactless, SW.FUNCTION)
        else:
            self._security.require_contact_or_vci()
        require(len(command.data) == 16)
        self._require_tries(reference)
        old, new = command.data[:8], command.data[8:]
        formed = self.well_formed(reference, new)
        if not self._core.profile.compares_before_format:
            require(formed and self.well_formed(reference, old))
        if not self._compare(reference, old):
            if reference != PUK:
                self._security.set_status(reference, False)
            self._fail(reference)
        require(formed)
        self._set(reference, new)
        if reference != PUK:
            self._security.set_status(reference, True)
        return b""

    def reset_retry_counter(self, command: Command) -> bytes:
        """RESET RETRY COUNTER: the PUK gives the PIN a new value; nobody is logged in by it."""
        require(command.p1 == 0x00, SW.WRONG_P1P2)
        require(command.p2 == PIN, SW.REFERENCE_NOT_FOUND)
        require(not self._core.contactless, SW.FUNCTION)
        require(len(command.data) == 16)
        self._require_tries(PUK)
        puk, new = command.data[:8], command.data[8:]
        formed = self.well_formed(PIN, new)
        require(formed or self._core.profile.compares_before_format)
        if not self._compare(PUK, puk):
            self._security.pin = False
            self._fail(PUK)
        require(formed)
        self._set(PIN, new)
        return b""

    def set_by_administrator(self, reference: int, value: bytes) -> None:
        """A new value and all tries, without the old one. Refuses an unknown reference or a malformed value."""
        require(reference in self._core.state.references, SW.REFERENCE_NOT_FOUND)
        require(self.well_formed(reference, value))
        self._set(reference, value)

    def well_formed(self, reference: int, value: bytes) -> bool:
        """Whether ``value`` may become the value of a PIN or PUK (part 2 section 2.4.3)."""
        if not self._core.profile.digits_only:
            return len(value) == 8 and len(value.rstrip(b"\xff")) >= 6
        if reference == PUK:
            return len(value) == 8
        digits = value.rstrip(b"\xff")
        return len(value) == 8 and len(digits) >= 6 and digits.isdigit()

    def _require_interface(self, reference: int, sm: bool) -> None:
        if reference in _PINS:
            self._security.require_contact_or_vci()
        elif self._core.contactless:
            require(sm, SW.SECURITY_STATUS)

    def _require_minutiae(self, reference: int, data: bytes) -> None:
        least, most = self._security.finger_limits(reference) or (0, 0)
        count, odd = divmod(len(data), 3)
        require(not odd and least <= count <= most)

    def _query(self, reference: int) -> bytes:
        if self._security.status(reference):
            return b""
        item = self._item(reference)
        if not item.maximum:
            raise Refused(SW.VERIFICATION_FAILED)
        raise Refused(self._tries_word(item.tries) if item.tries else self._core.profile.blocked_query)

    def _require_tries(self, reference: int) -> None:
        item = self._item(reference)
        floor = self._core.profile.contactless_floor if self._core.contactless else 0
        require(not item.maximum or item.tries > floor, SW.BLOCKED)

    def _compare(self, reference: int, value: bytes) -> bool:
        """Compare, with one try taken and kept before, given back by a match."""
        item = self._item(reference)
        if item.maximum:
            item.tries -= 1
            self._core.timing.write(1)
            self._core.commit()
            item = self._item(reference)
        right = item.value == value
        if right and item.maximum:
            item.tries = item.maximum
            self._core.dirty = True
        self._core.log.append(Verify(reference, right, item.tries))
        return right

    def _fail(self, reference: int) -> None:
        item = self._item(reference)
        raise Refused(self._tries_word(item.tries) if item.maximum else SW.VERIFICATION_FAILED)

    def _set(self, reference: int, value: bytes) -> None:
        item = self._item(reference)
        item.value = value
        item.tries = item.maximum
        item.default = False
        self._core.changed("reference", reference)

    def _item(self, reference: int) -> Reference:
        return self._core.state.references[reference]

    @staticmethod
    def _tries_word(tries: int) -> int:
        return 0x63C0 | min(tries, 15)
