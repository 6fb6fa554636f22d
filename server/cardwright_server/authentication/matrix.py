"""Which call may be made by whom: data. A call that is not here is refused.

A call is named after its remote procedure, ``<Service>.<Method>``; what one procedure may be asked to do with different
rights is told apart by a suffix, ``SessionService.Run/unlock``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from ..people.model import Role
from .model import Assurance, Method
from .services import Service, alternatives


@dataclass(frozen=True, slots=True)
class Call:
    """The name of a call."""

    name: str

    @property
    def procedure(self) -> str:
        """The remote procedure, without the suffix."""
        return self.name.partition("/")[0]


class Wants(Enum):
    """What an operator's grant must cover."""

    PERSON = auto()
    """The person whom the target belongs to; a target of nobody needs a grant for everywhere."""
    HOLDER = auto()
    """As PERSON; but the person is named by a record, and may be missing (erased, or not known since a restore): such
    a target needs a grant for everywhere. Only for calls that show or end something: nobody is given anything so."""
    STOCK = auto()
    """As HOLDER, but what belongs to nobody is open to every grant of the role."""
    ORGANIZATION = auto()
    """Everywhere: what is made or changed concerns the whole organization."""
    SOME = auto()
    """Anything: the service shows only what the permission covers."""


class Part(StrEnum):
    """Parts in the life of a request that a strict policy gives to different persons."""

    REQUEST = "request"
    APPROVE = "approve"
    ISSUE = "issue"
    RELEASE = "release"
    """Of keys from escrow, and of PUKs."""


class Refuse(Enum):
    """What nobody may do to their own, whatever their role. Persons are compared, not accounts."""

    OWN_REQUEST = auto()
    OWN_PERSON = auto()
    """The target belongs to the caller: their device, their account, their answers."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may make a call. Each way in is enough; with none, nobody may.

    ``roles`` of an operator or service, covering what ``wants`` says, proved at least as ``assurance``, minus what
    ``refuse`` says. ``own``: the person whom the target belongs to, proved as the service wants. ``workstation``: a
    workstation, for itself. ``server``: the server by itself. ``anyone``: callers who have proved nothing, because the
    call takes a proof of its own; with ``local``, only at the host's own socket.
    """

    roles: frozenset[Role] = frozenset()
    wants: Wants = Wants.PERSON
    assurance: Assurance = Assurance.SOFTWARE_KEY
    refuse: frozenset[Refuse] = frozenset()
    part: Part | None = None
    own: frozenset[Service] = frozenset()
    workstation: bool = False
    server: bool = False
    anyone: bool = False
    local: bool = False


_LETTERS = {
    "I": Role.ISSUANCE,
    "H": Role.HELP_DESK,
    "S": Role.SECURITY_OFFICER,
    "A": Role.ADMINISTRATOR,
    "U": Role.AUDITOR,
}


def _rule(
    roles: str = "",
    wants: Wants = Wants.PERSON,
    *,
    own: tuple[Service, ...] = (),
    refuse: tuple[Refuse, ...] = (),
    part: Part | None = None,
    workstation: bool = False,
    server: bool = False,
) -> Rule:
    return Rule(
        roles=frozenset(_LETTERS[letter] for letter in roles),
        wants=wants,
        refuse=frozenset(refuse),
        part=part,
        own=frozenset(own),
        workstation=workstation,
        server=server,
    )


_ORG, _HOLDER, _STOCK, _SOME = Wants.ORGANIZATION, Wants.HOLDER, Wants.STOCK, Wants.SOME
_NOT_OWN = (Refuse.OWN_PERSON,)
_NOT_MINE = (Refuse.OWN_PERSON, Refuse.OWN_REQUEST)
_SEEN = (Service.OVERVIEW,)
_ANYONE = Rule(anyone=True, workstation=True)

RULES: Mapping[str, Rule] = {
    # I issuance, H help desk, S security officer, A administrator, U auditor
    "PersonService.Create": _rule("IA", _ORG),
    "PersonService.Import": _rule("IA", server=True),
    # Before the directory is asked; whom it shows decides, by the rule above.
    "PersonService.Import/look": _rule("IA", _SOME, server=True),
    # The branches that the role is given over are read, and whom they show decides as in Import.
    "PersonService.ImportAll": _rule("IA", _SOME),
    "PersonService.Update": _rule("IA", refuse=_NOT_OWN),
    "PersonService.SetStatus": _rule("HA", refuse=_NOT_OWN, server=True),
    "PersonService.Get": _rule("IHSAU", own=_SEEN),
    "PersonService.Find": _rule("IHSAU", _SOME),
    "PersonService.Erase": _rule("S", refuse=_NOT_OWN),
    "GroupService.Create": _rule("A", _ORG),
    "GroupService.AddMember": _rule("A", _ORG, refuse=_NOT_OWN),
    "GroupService.RemoveMember": _rule("A", _ORG, refuse=_NOT_OWN),
    "GroupService.Find": _rule("IHSAU", _SOME),
    # An administrator makes the account, a security officer gives it rights: neither alone makes an operator.
    "OperatorService.Create": _rule("A", _ORG),
    "OperatorService.AddKey": _rule("A", _ORG, refuse=_NOT_OWN),
    "OperatorService.RemoveKey": _rule("SA", _ORG),
    "OperatorService.Grant": _rule("S", _ORG, refuse=_NOT_OWN),
    "OperatorService.Withdraw": _rule("SA", _ORG),
    "OperatorService.SetActive": _rule("SA", _ORG, refuse=_NOT_OWN),
    "OperatorService.Find": _rule("SAU", _ORG),
    "AuthenticationService.Methods": _ANYONE,
    "AuthenticationService.Prove": _ANYONE,
    "AuthenticationService.End": _rule(own=tuple(Service)),
    "AuthenticationService.SetQuestions": _rule("A", _ORG),
    "AuthenticationService.ListQuestions": _rule("HA", _SOME, own=_SEEN),
    "AuthenticationService.SetAnswers": _rule(own=(Service.CHANGE_ANSWERS,)),
    "AuthenticationService.SetAnswers/first": _rule(own=(Service.FIRST_ANSWERS,)),
    "AuthenticationService.ResetAnswers": _rule("H", refuse=_NOT_OWN),
    "AuthenticationService.UnlockMethod": _rule("H", refuse=_NOT_OWN),
    "AuthenticationService.SetInitialPassword": _rule("I", refuse=_NOT_OWN, part=Part.ISSUE),
    "AuthenticationService.SetEmergencyPassword": _rule("H", refuse=_NOT_OWN),
    "DeviceService.Register": _rule("I", _STOCK),
    "DeviceService.RegisterLot": _rule("I", _ORG),
    "DeviceService.FindLots": _rule("IAU", _SOME),
    "DeviceService.Get": _rule("IHSAU", _STOCK, own=_SEEN),
    "DeviceService.Find": _rule("IHSAU", _SOME, own=_SEEN),
    "DeviceService.Bind": _rule("I", refuse=_NOT_OWN, part=Part.ISSUE),
    "DeviceService.Bind/own": _rule(own=(Service.ISSUANCE, Service.REPLACEMENT_ISSUANCE)),
    "DeviceService.Unbind": _rule("I", _HOLDER, refuse=_NOT_OWN),
    "DeviceService.Activate": _rule(own=(Service.ISSUANCE, Service.REPLACEMENT_ISSUANCE)),
    "DeviceService.Suspend": _rule("IH", _HOLDER, refuse=_NOT_OWN, server=True),
    "DeviceService.Resume": _rule("IH", refuse=_NOT_OWN),
    "DeviceService.ReportIncident": _rule("IH", _HOLDER, own=(Service.INCIDENT,)),
    "DeviceService.Terminate": _rule("H", _HOLDER, refuse=_NOT_OWN, server=True),
    "DeviceService.Recycle": _rule("I", _STOCK, refuse=_NOT_OWN),
    "DeviceService.Dispose": _rule("I", _STOCK, refuse=_NOT_OWN),
    "DeviceService.ReleasePuk": _rule("H", refuse=_NOT_OWN, part=Part.RELEASE),
    "RequestService.CreateIssuance": _rule("I", refuse=_NOT_OWN, part=Part.REQUEST),
    "RequestService.CreateReplacement": _rule(
        "IH", own=(Service.INCIDENT,), refuse=_NOT_OWN, part=Part.REQUEST, server=True
    ),
    "RequestService.CreateUnlock": _rule("H", own=(Service.UNLOCK_SELF, Service.FORGOTTEN_PIN), refuse=_NOT_OWN),
    "RequestService.CreateUpdate": _rule("IH", refuse=_NOT_OWN, part=Part.REQUEST, server=True),
    "RequestService.CreateReissue": _rule("IH", refuse=_NOT_OWN, part=Part.REQUEST, server=True),
    "RequestService.CreateRecycle": _rule("I", _STOCK, refuse=_NOT_OWN, server=True),
    "RequestService.CreateTermination": _rule("H", _HOLDER, refuse=_NOT_OWN, part=Part.REQUEST),
    "RequestService.CreateRecovery": _rule("IS", refuse=_NOT_OWN, part=Part.REQUEST),
    "RequestService.Approve": _rule("IS", _HOLDER, refuse=_NOT_MINE, part=Part.APPROVE),
    "RequestService.Deny": _rule("IS", _HOLDER, refuse=_NOT_OWN),
    "RequestService.Cancel": _rule("IH", _HOLDER, refuse=_NOT_OWN, server=True),
    "RequestService.Cancel/own": _rule(own=(Service.CANCEL_REPLACEMENT,)),
    "RequestService.Get": _rule("IHSU", _HOLDER, own=_SEEN),
    "RequestService.Find": _rule("IHSU", _SOME, own=_SEEN),
    "PolicyService.Draft": _rule("A", _ORG),
    "PolicyService.Publish": _rule("S", _ORG, refuse=(Refuse.OWN_REQUEST,)),
    "PolicyService.Assign": _rule("A", _ORG),
    "PolicyService.Get": _rule("IHSAU", _SOME),
    "PolicyService.Find": _rule("IHSAU", _SOME),
    # A workstation's stream; what is done on it is asked for by the person or operator who sits there.
    "SessionService.Run": Rule(roles=frozenset({Role.ISSUANCE, Role.HELP_DESK}), wants=_SOME, workstation=True),
    "SessionService.Due": Rule(workstation=True),
    "SessionService.Watch": Rule(workstation=True),
    "SessionService.Run/issue": _rule(
        "I", own=(Service.ISSUANCE, Service.REPLACEMENT_ISSUANCE), refuse=_NOT_OWN, part=Part.ISSUE
    ),
    "SessionService.Run/update": _rule("IH", own=(Service.UPDATE,), refuse=_NOT_OWN),
    "SessionService.Run/re-issue": _rule("IH", own=(Service.REISSUE,), refuse=_NOT_OWN),
    "SessionService.Run/unlock": _rule("H", own=(Service.UNLOCK_SELF,), refuse=_NOT_OWN),
    "SessionService.Run/unlock-assisted": _rule("H", own=(Service.UNLOCK_ASSISTED,), refuse=_NOT_OWN),
    "SessionService.Run/forgotten-pin": _rule("H", own=(Service.FORGOTTEN_PIN,), refuse=_NOT_OWN),
    # What an operator asked for is carried out at an issuance station, too; sessions look at the kind of the station.
    "SessionService.Run/recycle": _rule("I", _STOCK, refuse=_NOT_OWN, workstation=True),
    # Whoever has the card would not prove who they are: that an operator ordered it is enough.
    "SessionService.Run/lock": _rule("IH", _HOLDER, refuse=_NOT_OWN, workstation=True),
    "SessionService.Run/prove": _ANYONE,
    "CertificateService.Get": _rule("IHSU", _HOLDER, own=_SEEN),
    "CertificateService.Find": _rule("IHSU", _SOME),
    "CertificateService.Revoke": _rule("HS", _HOLDER, refuse=_NOT_OWN, server=True),
    "CertificateService.Authorities": _rule("IHSAU", _SOME),
    "CertificateService.RotateSigner": _rule("S", _ORG, server=True),
    "EscrowService.Find": _rule("SU", _SOME, own=(Service.ESCROW_DOWNLOAD,)),
    "EscrowService.Recover": _rule("S", refuse=_NOT_MINE, part=Part.RELEASE),
    "EscrowService.OfferPfx": _rule(own=(Service.ESCROW_DOWNLOAD,)),
    "EscrowService.ClaimPfx": _rule(own=(Service.ESCROW_DOWNLOAD,)),
    "AuditService.Find": _rule("SU", _ORG),
    "AuditService.Verify": _rule("SU", _ORG),
    "AuditService.Anchor": _rule("SU", _ORG),
    "NotifyService.SetTemplate": _rule("A", _ORG),
    "NotifyService.Find": _rule("AU", _ORG),
    "WorkstationService.CreateToken": _rule("A", _ORG),
    "WorkstationService.Enrol": Rule(anyone=True),
    "WorkstationService.Renew": Rule(workstation=True),
    "WorkstationService.Revoke": _rule("HSA", _ORG),
    "WorkstationService.Find": _rule("HSAU", _ORG),
    "SystemService.Hello": _ANYONE,
    "SystemService.Status": _rule("SAU", _ORG),
    "SystemService.Backup": _rule("A", _ORG),
    "SystemService.RotateMaster": _rule("S", _ORG, refuse=(Refuse.OWN_REQUEST,)),
    "SystemService.DestroyMaster": _rule("S", _ORG, refuse=(Refuse.OWN_REQUEST,)),
    "SystemService.EnrolFirstOperator": Rule(anyone=True, local=True),
}
"""Every call."""


def methods_of(call: Call) -> frozenset[Method]:
    """The methods that take part in any proof by which the holder may make this call, unless a policy says no."""
    sets = (wanted for service in RULES[call.name].own for wanted in alternatives(service))
    return frozenset().union(*sets)
