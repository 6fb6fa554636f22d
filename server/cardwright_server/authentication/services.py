"""Which methods a person may use for which service: data, for ordinary policies and under ``compliance = piv``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from .model import Method


class Service(StrEnum):
    """What a person does for themselves."""

    ISSUANCE = "issuance"
    REPLACEMENT_ISSUANCE = "replacement-issuance"
    UNLOCK_SELF = "unlock-self"
    UNLOCK_ASSISTED = "unlock-assisted"
    """As UNLOCK_SELF, but the help desk made the unlock request first."""
    FORGOTTEN_PIN = "forgotten-pin"
    INCIDENT = "incident"
    CANCEL_REPLACEMENT = "cancel-replacement"
    FIRST_ANSWERS = "first-answers"
    """Answers where there are none, or none that still count."""
    CHANGE_ANSWERS = "change-answers"
    CHANGE_PIN = "change-pin"
    UPDATE = "update"
    REISSUE = "re-issue"
    ESCROW_DOWNLOAD = "escrow-download"
    MOBILE = "mobile"
    OVERVIEW = "overview"
    """To see one's own devices and requests."""


Alternatives = frozenset[frozenset[Method]]
"""Sets of methods; all of one set are needed, any set will do."""


def any_of(*methods: Method) -> Alternatives:
    """Each of these alone is enough."""
    return frozenset(frozenset({method}) for method in methods)


NONE: Alternatives = frozenset()

METHODS: Mapping[Service, Alternatives] = {
    Service.ISSUANCE: any_of(Method.INITIAL_PASSWORD, Method.LDAP_PASSWORD, Method.SECURITY_ANSWERS),
    Service.REPLACEMENT_ISSUANCE: any_of(Method.INITIAL_PASSWORD, Method.LDAP_PASSWORD, Method.SECURITY_ANSWERS),
    Service.UNLOCK_SELF: any_of(Method.LDAP_PASSWORD, Method.SECURITY_ANSWERS),
    Service.UNLOCK_ASSISTED: any_of(Method.EMERGENCY_PASSWORD, Method.LDAP_PASSWORD, Method.SECURITY_ANSWERS),
    Service.FORGOTTEN_PIN: any_of(Method.LDAP_PASSWORD, Method.SECURITY_ANSWERS, Method.INITIAL_PASSWORD),
    Service.INCIDENT: any_of(Method.LDAP_PASSWORD, Method.SECURITY_ANSWERS),
    Service.CANCEL_REPLACEMENT: any_of(Method.LDAP_PASSWORD, Method.SECURITY_ANSWERS, Method.CARD),
    Service.FIRST_ANSWERS: any_of(Method.INITIAL_PASSWORD, Method.LDAP_PASSWORD, Method.CARD),
    Service.CHANGE_ANSWERS: any_of(Method.CARD),
    Service.CHANGE_PIN: any_of(Method.CARD),
    Service.UPDATE: any_of(Method.CARD),
    Service.REISSUE: any_of(Method.CARD),
    Service.ESCROW_DOWNLOAD: any_of(Method.CARD),
    Service.MOBILE: any_of(Method.CARD),
    Service.OVERVIEW: any_of(
        Method.CARD,
        Method.LDAP_PASSWORD,
        Method.SECURITY_ANSWERS,
        Method.INITIAL_PASSWORD,
    ),
}


@dataclass(frozen=True, slots=True)
class Restriction:
    """What remains of a service's methods under ``compliance = piv``, and why."""

    methods: Alternatives
    reason: str


_IN_PERSON = Restriction(
    NONE, "FIPS 201-3 section 2.8 hands a PIV Card over in person, to a holder whose identity was compared"
)
_REMOTE_RESET = Restriction(
    NONE, "FIPS 201-3 section 2.9.3 resets a PIN remotely only with an operator and a comparison on the card"
)

PIV: Mapping[Service, Restriction] = {
    Service.ISSUANCE: _IN_PERSON,
    Service.REPLACEMENT_ISSUANCE: _IN_PERSON,
    Service.UNLOCK_SELF: _REMOTE_RESET,
    Service.UNLOCK_ASSISTED: _REMOTE_RESET,
    Service.FORGOTTEN_PIN: _REMOTE_RESET,
}
"""Services that FIPS 201-3 narrows (sections 2.8 and 2.9). No method of ours compares biometric data on the card."""


def alternatives(service: Service, *, piv: bool = False) -> Alternatives:
    """The sets of methods that a service accepts."""
    if piv and service in PIV:
        return PIV[service].methods
    return METHODS[service]


def accepts(service: Service, methods: Iterable[Method], *, piv: bool = False) -> bool:
    """Whether these methods, proved together, are enough."""
    proved = frozenset(methods)
    return any(wanted <= proved for wanted in alternatives(service, piv=piv))


def refusal(service: Service, *, piv: bool = False) -> str:
    """Why a service is closed whatever the method; "" if it is open."""
    return PIV[service].reason if piv and service in PIV and not PIV[service].methods else ""
