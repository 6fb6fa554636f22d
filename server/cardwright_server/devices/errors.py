"""What devices refuse."""

from __future__ import annotations

from collections.abc import Sequence

from cardwright_cardops.errors import CardwrightError


class DeviceError(CardwrightError):
    """Base of the errors of devices."""

    default_effect = "Nothing was changed."


class NoSuchDevice(DeviceError):
    """There is no such device or lot here."""

    code = "NO_SUCH_DEVICE"
    default_advice = "Search for the device again."


class DeviceKnown(DeviceError):
    """A device of this kind and serial number, or a lot of this name, is registered already."""

    code = "DEVICE_KNOWN"
    default_advice = "Look the device up; it may have been recycled."


class BadDevice(DeviceError):
    """A serial number, lot or secret that cannot be one."""

    code = "BAD_DEVICE"
    default_advice = "Correct what was given."


class TokenNumberIncomplete(BadDevice):
    """A PKCS#11 token is known by its manufacturer and serial number; under less nobody would ever find it."""

    code = "TOKEN_NUMBER_INCOMPLETE"
    default_advice = (
        "Put the token in and copy the number that 'cardwright status' shows: manufacturer, colon and serial number,"
        " such as SoftHSM-project:1f2e3d4c5b6a7988."
    )


class PersonNotActive(DeviceError):
    """Devices are bound to active persons only."""

    code = "PERSON_NOT_ACTIVE"
    default_advice = "See why the person is suspended or has left."


class TooManyDevices(DeviceError):
    """The person has as many live devices as the policy allows."""

    code = "TOO_MANY_DEVICES"
    default_advice = "Terminate or replace one of them first."


class KindNotAllowed(DeviceError):
    """The policy does not allow this kind of device."""

    code = "DEVICE_KIND_NOT_ALLOWED"
    default_advice = "Use another device, or another policy."


class SelfBindingClosed(DeviceError):
    """The policy lets only operators bind devices."""

    code = "SELF_BINDING_CLOSED"
    default_advice = "Ask an issuance operator."


class SecondPersonRequired(DeviceError):
    """Under this policy a termination needs a request that another person approved."""

    code = "SECOND_PERSON_REQUIRED"
    default_effect = "Nothing was changed. The device can be suspended at once, which puts its certificates on hold."
    default_advice = "Make a termination request and have another person approve it."


class NoSuchHold(DeviceError):
    """The device is not held for this reason, or the hold is not the caller's to lift."""

    code = "NO_SUCH_HOLD"
    default_advice = "Look for which reasons the device is held; each is lifted by itself."


class NumbersExhausted(DeviceError):
    """No FASC-N is left for this agency and system code."""

    code = "NUMBERS_EXHAUSTED"
    default_advice = "Configure another system code."


class DeviceRestoreRefused(DeviceError):
    """The original device cannot come back: it was replaced, is not invalid for an incident, or was stolen."""

    code = "DEVICE_RESTORE_REFUSED"
    default_advice = "A stolen device that was found is brought to the help desk; otherwise finish the replacement."


class CardLockUnavailable(DeviceError):
    """This card cannot be locked, or nobody could open it again: whoever asks for that must not believe it happens."""

    code = "CARD_LOCK_UNAVAILABLE"
    default_effect = "Nothing was changed: the device is not suspended either."
    default_advice = "Suspend it without locking the card: its certificates go on hold, and it is refused everywhere."


class PukRefused(DeviceError):
    """The PUK of this device is not released here and now. ``reasons`` are codes."""

    code = "PUK_REFUSED"
    default_effect = "No PUK left the vault."
    default_advice = "Meet the conditions that are named, or go to an operator's station."

    def __init__(self, sentences: Sequence[str], reasons: Sequence[str]) -> None:
        super().__init__("the PUK is not released: " + "; ".join(sentences))
        self.reasons = tuple(reasons)
