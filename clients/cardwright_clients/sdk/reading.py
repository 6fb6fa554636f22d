"""Messages of the daemon as values. The daemon is of the same release: what is not known is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, TypeVar
from uuid import UUID

from cardwright_cardops import wire
from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.plan.inventory import Identity, SecretState
from cardwright_cardops.wire_reading import WireMalformed, key_of
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_proto.card.v1 import inventory_pb2

from . import values as v

E = TypeVar("E", bound=Enum)


def table(kind: type[E], wire_kind: Any) -> dict[E, Any]:
    """Members of an enum with the numbers of a protobuf enum, whose values are called ``ITS_NAME_MEMBER``."""
    prefix = wire_kind.DESCRIPTOR.values[0].name.removesuffix("UNSPECIFIED")
    return {member: wire_kind.Value(prefix + member.name) for member in kind}


CARD_KINDS: Final = table(v.CardKind, pb.CardKind)
CARD_STATES: Final = table(v.CardState, pb.CardState)
OPERATION_KINDS: Final = table(v.OperationKind, pb.OperationKind)
PHASES: Final = table(v.Phase, pb.OperationPhase)
OUTCOMES: Final = table(v.Outcome, pb.Outcome)
PURPOSES: Final = table(v.Purpose, pb.Purpose)
METHODS: Final = table(v.MethodKind, pb.MethodKind)
LINKS: Final = table(v.LinkState, pb.LinkState)
LEVELS: Final = table(v.CheckLevel, pb.CheckLevel)
SEVERITIES: Final = table(v.Severity, pb.Severity)


def moment(message: Any, name: str) -> datetime | None:
    """The time in a field; None where it is not set. Raises WireMalformed."""
    if not message.HasField(name):
        return None
    try:
        made: datetime = getattr(message, name).ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise WireMalformed(f"The field {name} is no time.") from None
    return made


def error(message: Any, name: str) -> CardwrightError | None:
    """The error in a field, None where it is not set."""
    return wire.error_from_wire(getattr(message, name)) if message.HasField(name) else None


def _uuid(text: str, what: str) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        raise WireMalformed(f"The {what} is no UUID.") from None


def identity(message: inventory_pb2.Identity) -> Identity:
    """Who a card is."""
    guid = _uuid(message.guid, "GUID of a card") if message.HasField("guid") else None
    return Identity(guid, message.fascn, message.serial, message.card_key)


def reader(message: pb.Reader) -> v.Reader:
    """A reader."""
    return v.Reader(message.name, message.card)


def readers(message: pb.ListReadersResponse) -> v.Readers:
    """Readers, and what cannot be used."""
    failed = tuple(v.FailedModule(one.path, wire.error_from_wire(one.problem)) for one in message.modules)
    return v.Readers(tuple(map(reader, message.readers)), error(message, "service"), failed)


def card(message: pb.Card) -> v.Card:
    """A card."""
    return v.Card(
        id=message.id,
        kind=key_of(CARD_KINDS, message.kind, "kind of card"),
        reader=message.reader,
        state=key_of(CARD_STATES, message.state, "state of a card"),
        identity=identity(message.identity),
        atr=message.atr,
        problem=error(message, "problem"),
        operation=message.operation,
        inserted_at=moment(message, "inserted_at"),
        label=message.label,
    )


def contents(message: pb.GetInventoryResponse) -> v.Contents:
    """What is on a card."""
    objects = tuple(
        v.TokenObject(
            one.id, one.label, one.algorithm, one.key_reference, one.der, one.is_certificate, one.subject
        )
        for one in message.objects
    )
    inventory = wire.inventory_from_wire(message.inventory) if message.HasField("inventory") else None
    return v.Contents(moment(message, "observed_at"), inventory, objects, tuple(message.problems))


def check_report(message: pb.CheckCardResponse) -> v.CheckReport:
    """What a check found."""
    findings = tuple(
        v.Finding(one.code, key_of(SEVERITIES, one.severity, "severity"), one.object, one.message, one.reference)
        for one in message.findings
    )
    return v.CheckReport(message.good, findings, tuple(message.objects), moment(message, "at"))


def trace_entry(message: pb.TraceEntry) -> v.TraceEntry:
    """One entry of a trace."""
    return v.TraceEntry(
        number=message.number,
        at=message.at,
        seconds=message.seconds,
        instruction=message.instruction,
        header=message.header,
        lc=message.lc,
        le=message.le,
        answered=message.answered,
        sw=message.sw,
        tag=message.tag,
        data=message.data,
        answer=message.answer,
        error=message.error,
    )


def secret(message: pb.SecretStatus) -> SecretState:
    """What a card says of a PIN; a value that is not set is None. Blocked, with nothing else told, is no try left."""
    left = message.tries_left if message.HasField("tries_left") else None
    if left is None and message.HasField("is_blocked") and message.is_blocked:
        left = 0
    return SecretState(
        is_default=message.is_default if message.HasField("is_default") else None,
        tries_total=message.tries_total if message.HasField("tries_total") else None,
        tries_left=left,
    )


def operation(message: pb.Operation) -> v.Operation:
    """An operation."""
    return v.Operation(
        id=message.id,
        kind=key_of(OPERATION_KINDS, message.kind, "kind of operation"),
        card=message.card,
        reader=message.reader,
        phase=key_of(PHASES, message.phase, "phase of an operation"),
        percentage=min(message.percentage, 100),
        step=message.step,
        words=message.step_words,
        outcome=key_of(OUTCOMES, message.outcome, "outcome") if message.outcome else None,
        error=error(message, "error"),
        cancellable=message.cancellable,
        started_at=moment(message, "started_at"),
        ended_at=moment(message, "ended_at"),
        unasked=message.unasked,
        continues=message.continues,
    )


def due(message: pb.Due) -> v.Due:
    """What is due."""
    return v.Due(
        items=tuple(v.DueItem(one.what, moment(one, "since"), moment(one, "ends_at")) for one in message.items),
        purpose=key_of(PURPOSES, message.purpose, "purpose"),
        until=moment(message, "until"),
        mandatory_from=moment(message, "mandatory_from"),
        postponed_until=moment(message, "postponed_until"),
        request=_uuid(message.request, "request"),
        continues=message.continues,
        begins_at=moment(message, "begins_at"),
        suspended=message.suspended,
    )


def preview(message: pb.PreviewUpdateResponse) -> v.UpdatePreview:
    """What would be done."""
    if message.nothing_due:
        return v.UpdatePreview(None, until=moment(message, "until"))
    return v.UpdatePreview(
        plan=wire.plan_from_wire(message.plan),
        digest=message.digest,
        steps=tuple(v.PlanStep(one.id, one.kind, one.words, one.seconds, one.may_be_pulled) for one in message.steps),
        seconds=message.seconds,
        confirmations=tuple(message.confirmations),
        until=moment(message, "until"),
        asks_pin=message.asks_pin,
        asks_new_pin=message.asks_new_pin,
    )


def method(message: pb.Method) -> v.Method:
    """A way to prove who one is."""
    return v.Method(key_of(METHODS, message.kind, "method"), tuple(message.questions))


def escrowed(message: pb.EscrowedKey) -> v.EscrowedKey:
    """A key in escrow."""
    return v.EscrowedKey(
        message.fingerprint,
        message.algorithm,
        moment(message, "not_before"),
        moment(message, "not_after"),
        message.on_card,
        message.downloadable,
    )


def _happened(message: pb.ReportedError) -> v.ReportedError:
    return v.ReportedError(message.code, moment(message, "at"), message.operation)


def report(message: pb.GetReportResponse) -> v.WorkstationReport:
    """The report of a workstation."""
    return v.WorkstationReport(
        version=message.version,
        python=message.python,
        platform=message.platform,
        libraries=tuple((one.name, one.version) for one in message.libraries),
        readers=tuple(v.ReportedReader(one.name, one.has_card, one.problem) for one in message.readers),
        service=message.service,
        link=key_of(LINKS, message.link, "state of the link"),
        link_error=message.link_error,
        errors=tuple(map(_happened, message.errors)),
        modules=tuple(map(_happened, message.modules)),
        started_at=moment(message, "started_at"),
        listeners=message.listeners,
        refused=message.refused,
        hardened=message.hardened,
    )


def event(message: pb.WatchEventsResponse) -> v.Event:
    """An event; how many were missed before it is not in it. Raises WireMalformed."""
    match message.WhichOneof("event"):
        case "reader":
            return v.ReaderChanged(reader(message.reader.reader), message.reader.present)
        case "card":
            return v.CardChanged(card(message.card.card), message.card.present)
        case "operation":
            return v.OperationChanged(operation(message.operation.operation))
        case "service":
            return v.ServiceChanged(error(message.service, "error"))
        case "due":
            return v.DueChanged(message.due.card, due(message.due.due))
        case "synced":
            return v.Synced()
    raise WireMalformed("An event is empty.")
