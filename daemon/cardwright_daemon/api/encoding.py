"""Values of the daemon as messages of the local contract, and the few that come the other way."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from cardwright_cardops import wire
from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.plan.inventory import Identity, SecretState
from cardwright_cardops.plan.steps import step_id
from cardwright_cardops.plan.words import kind_words, step_words
from cardwright_cardops.transport.trace import Entry
from cardwright_cardops.wire_reading import filled
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_proto.card.v1 import inventory_pb2

from ..cards import Card, CardState, Reader
from ..errors import BadRequest
from ..link.ports import Due, EscrowedKey, LinkState, Method, MethodKind, Outcome, Purpose
from ..operations import Kind, Operation, Phase
from ..sessions import SHOWN_AGAIN, Shown
from ..tokens import TOKEN, TokenDevice

if TYPE_CHECKING:
    from cardwright_cardops.guard import Act

K = TypeVar("K")

Unset = Any
"""A message, or None for a field that is left unset, which the generated types do not know."""

PURPOSES: Final = {
    Purpose.ISSUE: pb.PURPOSE_ISSUE,
    Purpose.UPDATE: pb.PURPOSE_UPDATE,
    Purpose.REISSUE: pb.PURPOSE_REISSUE,
    Purpose.UNLOCK: pb.PURPOSE_UNLOCK,
    Purpose.FORGOTTEN_PIN: pb.PURPOSE_FORGOTTEN_PIN,
    Purpose.RECOVER: pb.PURPOSE_RECOVER,
    Purpose.RECYCLE: pb.PURPOSE_RECYCLE,
    Purpose.LOCK: pb.PURPOSE_LOCK,
}
METHODS: Final = {
    MethodKind.DIRECTORY_PASSWORD: pb.METHOD_KIND_DIRECTORY_PASSWORD,
    MethodKind.INITIAL_PASSWORD: pb.METHOD_KIND_INITIAL_PASSWORD,
    MethodKind.SECURITY_ANSWERS: pb.METHOD_KIND_SECURITY_ANSWERS,
    MethodKind.EMERGENCY_PASSWORD: pb.METHOD_KIND_EMERGENCY_PASSWORD,
    MethodKind.CARD: pb.METHOD_KIND_CARD,
}
LINKS: Final = {
    LinkState.NOT_CONFIGURED: pb.LINK_STATE_NOT_CONFIGURED,
    LinkState.CONNECTED: pb.LINK_STATE_CONNECTED,
    LinkState.UNREACHABLE: pb.LINK_STATE_UNREACHABLE,
    LinkState.REFUSED: pb.LINK_STATE_REFUSED,
}
_STATES: Final = {
    CardState.READING: pb.CARD_STATE_READING,
    CardState.READY: pb.CARD_STATE_READY,
    CardState.UNREADABLE: pb.CARD_STATE_UNREADABLE,
}
_KINDS: Final = {
    Kind.READ: pb.OPERATION_KIND_READ,
    Kind.CHECK: pb.OPERATION_KIND_CHECK,
    Kind.CHANGE_PIN: pb.OPERATION_KIND_CHANGE_PIN,
    Kind.UNBLOCK_PIN: pb.OPERATION_KIND_UNBLOCK_PIN,
    Kind.ISSUE: pb.OPERATION_KIND_ISSUE,
    Kind.UPDATE: pb.OPERATION_KIND_UPDATE,
    Kind.UNLOCK: pb.OPERATION_KIND_UNLOCK,
    Kind.FORGOTTEN_PIN: pb.OPERATION_KIND_FORGOTTEN_PIN,
    Kind.RECOVER: pb.OPERATION_KIND_RECOVER,
    Kind.SIGN_IN: pb.OPERATION_KIND_SIGN_IN,
    Kind.RECYCLE: pb.OPERATION_KIND_RECYCLE,
    Kind.LOCK: pb.OPERATION_KIND_LOCK,
}
_PHASES: Final = {
    Phase.PREPARING: pb.OPERATION_PHASE_PREPARING,
    Phase.PROMPTING: pb.OPERATION_PHASE_PROMPTING,
    Phase.WORKING: pb.OPERATION_PHASE_WORKING,
    Phase.DONE: pb.OPERATION_PHASE_DONE,
    Phase.FAILED: pb.OPERATION_PHASE_FAILED,
    Phase.CANCELLED: pb.OPERATION_PHASE_CANCELLED,
}
_OUTCOMES: Final = {
    Outcome.DONE.value: pb.OUTCOME_DONE,
    Outcome.NOTHING_DUE.value: pb.OUTCOME_NOTHING_DUE,
    Outcome.PENDING.value: pb.OUTCOME_PENDING,
    SHOWN_AGAIN: pb.OUTCOME_SHOWN_AGAIN,
}


def time(moment: datetime | None) -> Unset:
    """A time with its zone as a Timestamp; None stays unset."""
    if moment is None:
        return None
    made = Timestamp()
    made.FromDatetime(moment.astimezone(UTC))
    return made


def error(value: CardwrightError | None) -> Unset:
    """An error as a card.v1.Error; None stays unset."""
    return None if value is None else wire.error_to_wire(value)


def identity(value: Identity) -> inventory_pb2.Identity:
    """Who a card is."""
    guid = None if value.guid is None else str(value.guid)
    document = {"guid": guid, "fascn": value.fascn, "serial": value.serial, "card_key": value.card_key}
    return filled(inventory_pb2.Identity(), document)


def reader(value: Reader) -> pb.Reader:
    """A reader."""
    return pb.Reader(name=value.name, card=value.card.id if value.card is not None else "")


def card(value: Card) -> pb.Card:
    """A card."""
    return pb.Card(
        id=value.id,
        kind=pb.CARD_KIND_PIV,
        reader=value.reader,
        atr=value.atr,
        state=_STATES[value.state],
        identity=identity(value.identity),
        problem=error(value.problem),
        operation=value.operation,
        inserted_at=time(value.inserted_at),
    )


def token(value: TokenDevice) -> pb.Card:
    """A PKCS#11 token, as a card."""
    told, who = value.token.info.identity, value.identity
    return pb.Card(
        id=value.id,
        kind=pb.CARD_KIND_PKCS11,
        reader=value.reader,
        state=pb.CARD_STATE_READY,
        identity=inventory_pb2.Identity(guid=str(who.guid), serial=who.serial),
        operation=value.operation,
        label=told.label,
    )


def operation(value: Operation) -> pb.Operation:
    """An operation."""
    return pb.Operation(
        id=value.id,
        kind=_KINDS[value.kind],
        card=value.card,
        reader=value.reader,
        phase=_PHASES[value.phase],
        percentage=value.percentage,
        step=value.step,
        step_words=kind_words(value.step, token=value.card.startswith(TOKEN)),
        outcome=_OUTCOMES.get(value.outcome, pb.OUTCOME_UNSPECIFIED),
        error=error(value.error),
        cancellable=value.cancellable and not value.over,
        started_at=time(value.started_at),
        ended_at=time(value.ended_at),
        unasked=value.unasked,
        continues=value.continues,
    )


def secret(value: SecretState) -> pb.SecretStatus:
    """What a card says of its PIN or PUK."""
    blocked = value.is_blocked if value.tries_left is not None else None
    told = {
        "tries_left": value.tries_left,
        "tries_total": value.tries_total,
        "is_default": value.is_default,
        "is_blocked": blocked,
    }
    return filled(pb.SecretStatus(), told)


def trace_entry(value: Entry, begin: float) -> pb.TraceEntry:
    """One entry of a trace, ``begin`` being the time of the first."""
    return pb.TraceEntry(
        number=value.number,
        at=value.at - begin,
        seconds=value.seconds,
        instruction=value.instruction,
        header=value.header,
        lc=value.lc,
        le=value.le,
        answered=value.answered,
        sw=value.sw or 0,
        tag="" if value.tag is None else f"{value.tag:X}",
        data=value.data or b"",
        answer=value.answer or b"",
        error=value.error,
    )


def due(value: Due, postponed: datetime | None, continues: bool, begins: datetime | None) -> pb.Due:
    """What is due, with what is known here: until when it is put off, whether it goes on, when it begins by itself."""
    items = [pb.DueItem(what=one.what, since=time(one.since), ends_at=time(one.ends_at)) for one in value.items]
    return pb.Due(
        items=items,
        until=time(value.until),
        purpose=PURPOSES[value.purpose],
        mandatory_from=time(value.mandatory_from),
        postponed_until=time(postponed),
        request=str(value.request or ""),
        continues=continues,
        begins_at=time(begins),
        suspended=value.suspended,
    )


def shown(value: Shown, *, token: bool = False) -> pb.PreviewUpdateResponse:
    """A preview. ``token``: of a PKCS#11 token."""
    if value.plan is None:
        return pb.PreviewUpdateResponse(nothing_due=True, until=time(value.until))
    steps = [
        pb.PlanStep(
            id=step_id(step),
            kind=step.kind,
            words=step_words(step, token=token),
            seconds=step.seconds,
            may_be_pulled=step.may_be_pulled,
        )
        for step in value.plan.steps
    ]
    return pb.PreviewUpdateResponse(
        plan=wire.plan_to_wire(value.plan),
        digest=bytes.fromhex(value.plan.digest),
        steps=steps,
        seconds=value.plan.seconds,
        confirmations=sorted(act.value for act in value.acts),
        until=time(value.until),
        asks_pin=value.asks_pin,
        asks_new_pin=value.asks_new_pin,
    )


def method(value: Method) -> pb.Method:
    """A way to prove who one is."""
    return pb.Method(kind=METHODS[value.kind], questions=[text for _, text in value.questions])


def escrowed(value: EscrowedKey, on_card: frozenset[str]) -> pb.EscrowedKey:
    """A key in escrow."""
    return pb.EscrowedKey(
        fingerprint=value.fingerprint,
        algorithm=value.algorithm,
        not_before=time(value.not_before),
        not_after=time(value.not_after),
        on_card=value.fingerprint in on_card,
        downloadable=value.downloadable,
    )


# ------------------------------------------------------------------------------------------------ the other way


def key_of(table: Mapping[K, Any], number: int, what: str, default: K | None = None) -> K:
    """The key of an enum's number; 0 is ``default``. Raises BadRequest."""
    if number == 0 and default is not None:
        return default
    for key, known in table.items():
        if known == number:
            return key
    raise BadRequest(f"There is no such {what}.")


def uuid_of(text: str, what: str) -> UUID | None:
    """A UUID; None for "". Raises BadRequest."""
    if not text:
        return None
    try:
        return UUID(text)
    except ValueError:
        raise BadRequest(f"The {what} is no UUID.") from None


def acts_of(names: list[str]) -> frozenset[Act]:
    """Acts by their names. Raises BadRequest."""
    from cardwright_cardops.guard import Act  # takes long to load

    try:
        return frozenset(Act(name) for name in names)
    except ValueError:
        raise BadRequest("There is no such act to confirm.") from None


def moment_of(message: Any, name: str) -> datetime | None:
    """The time in a field; None where it is not set. Raises BadRequest."""
    if not message.HasField(name):
        return None
    try:
        made: datetime = getattr(message, name).ToDatetime(tzinfo=UTC)
        return made
    except (ValueError, OverflowError):
        raise BadRequest(f"The field {name} is no time.") from None
