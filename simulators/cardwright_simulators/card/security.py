"""Security statuses and the rules they decide (SP 800-73-5 part 1 section 5.5, part 2 section 2.3.2)."""

from __future__ import annotations

from cardwright_cardops.iso7816.status import SW

from .algorithms import FINGERS, GLOBAL_PIN, PAIRING_CODE, PIN
from .answers import Refused
from .core import Core
from .objects import BIT_GROUP, DISCOVERY, PinUsage, Rule, finger_limits


class Security:
    """One boolean per credential; all but the Global PIN's belong to the application.

    ``just_verified`` is the one-shot right to a PIN Always signature; ``verified_before`` is what it was when the
    command of now began. ``challenge`` is what the card waits to see answered with the management key: (kind,
    plain octets). ``sm`` and ``scp`` say how the command of now came.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self.global_pin = False
        self.pin = False
        self.fingers: set[int] = set()
        self.pairing = False
        self.admin = False
        self.just_verified = False
        self.verified_before = False
        self.challenge: tuple[int, bytes] | None = None
        self.sm = False
        self.scp = False
        self.usage = PinUsage()
        self.read_usage()

    def begin_command(self) -> None:
        """A command of any kind begins: whatever it is, it stands between an earlier VERIFY and later uses."""
        self.verified_before = self.just_verified
        if self._core.profile.strict_pin_always:
            self.just_verified = False

    def drop(self) -> None:
        """Every application status to FALSE; the Global PIN's stays."""
        self.pin = self.pairing = self.admin = self.just_verified = False
        self.fingers.clear()
        self.challenge = None

    def reset(self) -> None:
        """Every status to FALSE."""
        self.drop()
        self.global_pin = False

    def read_usage(self) -> None:
        """Take over the PIN usage policy of the Discovery object as it is now."""
        self.usage = PinUsage.read(self._core.state.objects.get(DISCOVERY))

    @property
    def pin_satisfied(self) -> bool:
        """The PIN condition: PIN 80, or the Global PIN where the policy admits it."""
        return self.pin or (self.global_pin and self.usage.global_pin)

    @property
    def occ_satisfied(self) -> bool:
        """The OCC condition."""
        return self.usage.occ and bool(self.fingers)

    @property
    def vci(self) -> bool:
        """The virtual contact interface, for the command that runs now."""
        return self.sm and self.usage.vci and (self.pairing or self.usage.vci_without_pairing)

    def satisfied(self, rule: Rule) -> bool:
        """Whether ``rule`` holds now, interface aside."""
        if rule is Rule.ALWAYS:
            return True
        return self.pin_satisfied or (rule is Rule.PIN_OR_OCC and self.occ_satisfied)

    def allows(self, mode: int) -> bool:
        """Whether an access mode of a created object or key is met.

        00 never, 7F always, else any of 01 PIN, 02 PIN directly before, 04 OCC, 10 administrator.
        """
        return (
            mode == 0x7F
            or (bool(mode & 0x01) and self.pin_satisfied)
            or (bool(mode & 0x02) and self.pin_satisfied and self.verified_before)
            or (bool(mode & 0x04) and self.occ_satisfied)
            or (bool(mode & 0x10) and (self.admin or self.scp))
        )

    def require_admin(self) -> None:
        """6A81 over the contactless interface, 6982 without the management key.

        Where the profile is administered through SCP03, a command inside the channel needs no management key.
        """
        if self._core.contactless:
            raise Refused(SW.FUNCTION)
        if not self.admin and not (self.scp and self._core.profile.openfips201):
            raise Refused(SW.SECURITY_STATUS)

    def require_contact_or_vci(self) -> None:
        """6982 over the contactless interface outside the virtual contact interface."""
        if self._core.contactless and not self.vci:
            raise Refused(SW.SECURITY_STATUS)

    def known_reference(self, reference: int) -> bool:
        """Whether VERIFY knows ``reference`` under the PIN usage policy of now."""
        if reference not in self._core.state.references:
            return False
        if reference == GLOBAL_PIN:
            return self.usage.global_pin
        if reference == PAIRING_CODE:
            return self.usage.vci
        if reference in FINGERS:
            return self.usage.occ and self.finger_limits(reference) is not None
        return reference == PIN

    def finger_limits(self, reference: int) -> tuple[int, int] | None:
        """Least and most minutiae of a finger that the BIT group lists; None for any other."""
        return finger_limits(self._core.state.objects.get(BIT_GROUP), reference)

    def status(self, reference: int) -> bool:
        """The security status of a reference that VERIFY knows."""
        if reference == PIN:
            return self.pin
        if reference == GLOBAL_PIN:
            return self.global_pin
        if reference == PAIRING_CODE:
            return self.pairing
        return reference in self.fingers

    def set_status(self, reference: int, value: bool) -> None:
        """Set it."""
        if reference == PIN:
            self.pin = value
        elif reference == GLOBAL_PIN:
            self.global_pin = value
        elif reference == PAIRING_CODE:
            self.pairing = value
        elif value:
            self.fingers.add(reference)
        else:
            self.fingers.discard(reference)
