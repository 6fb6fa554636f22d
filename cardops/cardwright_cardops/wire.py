"""Values of this library and their wire form (``cardwright.card.v1``), both ways, and nowhere else.

Decoding is strict and bounded. Batches come from a server that this side does not trust, answers from a
workstation that the other side does not trust: a field, enum value or kind that is not known here is refused,
and so is anything beyond the limits of ``wire_reading``. Decoders raise WireUnsupported and WireMalformed only.
"""

from __future__ import annotations

import re
from typing import Any, Final
from uuid import UUID

from cardwright_proto.card.v1 import errors_pb2, inventory_pb2, plan_pb2, programs_pb2

from . import wire_reading as read
from .errors import CardwrightError
from .iso7816.apdu import MAX_EXTENDED, MAX_EXTENDED_LE, CommandAPDU
from .iso7816.exchange import BrokenExchange
from .piv.pins import NoPin
from .plan.inventory import FORMAT as INVENTORY_FORMAT
from .plan.inventory import Identity, Inventory
from .plan.steps import FORMAT as PLAN_FORMAT
from .plan.steps import Plan, step_from_document
from .program.items import (
    Answer,
    Answers,
    AnyBatch,
    Apdu,
    Batch,
    Block,
    Group,
    Item,
    ItemRefused,
    Outcome,
    Prove,
    SealedBatch,
    SealedItem,
    SetPin,
    SetPuk,
    SignIn,
    SignRequest,
    Unblock,
    UnexpectedAnswer,
    UseKey,
    VerifyPin,
    Want,
)
from .transport import connection, pcsc_errors
from .transport.connection import TransportError
from .wire_reading import WireMalformed, WireUnsupported, parse

__all__ = [
    "RelayedError",
    "WireMalformed",
    "WireUnsupported",
    "answers_from_wire",
    "answers_to_wire",
    "batch_from_wire",
    "batch_to_wire",
    "error_from_wire",
    "error_to_wire",
    "inventory_from_wire",
    "inventory_to_wire",
    "parse",
    "plan_from_wire",
    "plan_to_wire",
]

_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]*")


class RelayedError(CardwrightError):
    """An error that happened at the other end of the line; ``code`` is the one that it had there.

    ``sw`` and ``tries_left`` are None where the card did not say.
    """

    code = "RELAYED"
    default_advice = "Do what the text of the error says."

    def __init__(self, message: str, *, sw: int | None = None, tries_left: int | None = None) -> None:
        super().__init__(message)
        self.sw = sw
        self.tries_left = tries_left


# ---------------------------------------------------------------------------------------------------- batches


def batch_to_wire(batch: AnyBatch) -> programs_pb2.Batch:
    """The wire form of ``batch``. Raises WireUnsupported for a UseKey, which has none."""
    message = programs_pb2.Batch(stage=batch.stage)
    if isinstance(batch, SealedBatch):
        items = (programs_pb2.SealedItem(header=item.header, apdus=item.apdus) for item in batch.items)
        message.sealed.SetInParent()
        message.sealed.items.extend(items)
        return message
    message.open.SetInParent()
    for group in batch.groups:
        added = message.open.groups.add(essential=group.essential)
        added.items.extend(_item_to_wire(item) for item in group.items)
    return message


def batch_from_wire(message: programs_pb2.Batch) -> AnyBatch:
    """The batch of a message. Raises WireUnsupported, WireMalformed."""
    read.refuse_unknown(message)
    stage = read.text(message.stage, "stage", read.MAX_CODE)
    match message.WhichOneof("kind"):
        case "open":
            return Batch(_groups_from_wire(message.open), stage)
        case "sealed":
            return SealedBatch(_sealed_from_wire(message.sealed), stage)
    raise WireMalformed("A batch is neither open nor sealed.")


def _item_to_wire(item: Item) -> programs_pb2.Item:
    match item:
        case Apdu(command=command):
            apdu = programs_pb2.Apdu(
                header=command.header,
                data=command.data,
                le=command.le,
                accept=sorted(item.accept),
                want=_WANTS[item.want],
            )
            if item.expect is not None:
                apdu.expect = item.expect
            return programs_pb2.Item(apdu=apdu)
        case VerifyPin(reference=reference):
            return programs_pb2.Item(verify_pin=programs_pb2.VerifyPin(reference=reference))
        case SetPin(reference=reference):
            return programs_pb2.Item(set_pin=programs_pb2.SetPin(reference=reference))
        case Unblock(puk=puk):
            return programs_pb2.Item(unblock=programs_pb2.Unblock(puk=puk.reveal()))
        case SetPuk(old=old, new=new):
            return programs_pb2.Item(set_puk=programs_pb2.SetPuk(old=old.reveal(), new=new.reveal()))
        case Block(reference=reference):
            return programs_pb2.Item(block=programs_pb2.Block(reference=reference))
        case Prove(slot=slot, algorithm=algorithm, nonce=nonce):
            return programs_pb2.Item(prove=programs_pb2.Prove(slot=slot, algorithm=algorithm, nonce=nonce))
        case SignRequest(slot=slot, subject=subject):
            return programs_pb2.Item(sign_request=programs_pb2.SignRequest(slot=slot, subject=subject))
        case SignIn(algorithm=algorithm, audience=audience, nonce=nonce):
            made = programs_pb2.SignIn(algorithm=algorithm, audience=audience, nonce=nonce)
            return programs_pb2.Item(sign_in=made)
        case UseKey():
            raise WireUnsupported("Free use of a card key has no wire form; only a local program may ask for it.")


def _groups_from_wire(message: programs_pb2.OpenBatch) -> tuple[Group, ...]:
    read.at_most(len(message.groups), read.MAX_ITEMS, "groups")
    read.at_most(sum(len(group.items) for group in message.groups), read.MAX_ITEMS, "items")
    for group in message.groups:
        read.at_least_one(len(group.items), "items in a group")
    return tuple(
        Group(tuple(_item_from_wire(item) for item in group.items), group.essential) for group in message.groups
    )


def _item_from_wire(message: programs_pb2.Item) -> Item:
    match message.WhichOneof("kind"):
        case "apdu":
            return _apdu_from_wire(message.apdu)
        case "verify_pin":
            return VerifyPin(_reference(message.verify_pin))
        case "set_pin":
            return SetPin(_reference(message.set_pin))
        case "unblock":
            return Unblock(read.puk(message.unblock.puk))
        case "set_puk":
            return SetPuk(read.puk(message.set_puk.old), read.puk(message.set_puk.new))
        case "block":
            read.require(message.block, "reference")
            return Block(read.blocked_reference(message.block.reference))
        case "prove":
            made = message.prove
            read.require(made, "slot", "algorithm")
            return Prove(read.octet(made.slot, "slot"), read.octet(made.algorithm, "algorithm"), read.nonce(made.nonce))
        case "sign_request":
            asked = message.sign_request
            read.require(asked, "slot")
            subject = read.octets(asked.subject, "subject", 2, read.MAX_NAME_OCTETS)
            return SignRequest(read.octet(asked.slot, "slot"), subject)
        case "sign_in":
            signed = message.sign_in
            read.require(signed, "algorithm", "audience")
            audience = read.text(signed.audience, "audience")
            return SignIn(read.octet(signed.algorithm, "algorithm"), audience, read.nonce(signed.nonce))
    raise WireMalformed("An item is of no kind.")


def _reference(message: programs_pb2.VerifyPin | programs_pb2.SetPin) -> int:
    read.require(message, "reference")
    return read.pin_reference(message.reference)


def _apdu_from_wire(message: programs_pb2.Apdu) -> Apdu:
    cla, ins, p1, p2 = read.octets(message.header, "header", 4, 4)
    data = read.octets(message.data, "data of a command", 0, MAX_EXTENDED)
    read.at_most(message.le, MAX_EXTENDED_LE, "octets wanted")
    read.at_least_one(len(message.accept), "expected status words")
    read.at_most(len(message.accept), read.MAX_ACCEPT, "expected status words")
    accept = frozenset(read.word(word) for word in message.accept)
    want = read.key_of(_WANTS, message.want, "want")
    expect = None
    if message.HasField("expect"):
        expect = read.octets(message.expect, "expected digest", read.DIGEST_OCTETS, read.DIGEST_OCTETS)
    return Apdu(CommandAPDU(cla, ins, p1, p2, data, message.le), accept, want, expect)


def _sealed_from_wire(message: programs_pb2.SealedBatch) -> tuple[SealedItem, ...]:
    read.at_most(len(message.items), read.MAX_ITEMS, "items")
    items = []
    for item in message.items:
        read.at_least_one(len(item.apdus), "wrapped commands in an item")
        read.at_most(len(item.apdus), read.MAX_APDUS, "wrapped commands in an item")
        apdus = tuple(read.octets(apdu, "wrapped command", 4, read.MAX_APDU_OCTETS) for apdu in item.apdus)
        items.append(SealedItem(read.octets(item.header, "header", 4, 4), apdus))
    return tuple(items)


# ---------------------------------------------------------------------------------------------------- answers


def answers_to_wire(answers: Answers) -> programs_pb2.Answers:
    """The wire form of ``answers``."""
    message = programs_pb2.Answers()
    for group in answers:
        message.groups.add().answers.extend(_answer_to_wire(answer) for answer in group)
    return message


def answers_from_wire(message: programs_pb2.Answers, batch: AnyBatch) -> Answers:
    """The answers to ``batch``, whose shape they must have. Raises WireUnsupported, WireMalformed."""
    read.refuse_unknown(message)
    wants = _wants_of(batch)
    if [len(group.answers) for group in message.groups] != [len(group) for group in wants]:
        raise WireMalformed("Answers do not have the shape of their batch.")
    return tuple(
        tuple(_answer_from_wire(answer, want) for answer, want in zip(group.answers, wanted, strict=True))
        for group, wanted in zip(message.groups, wants, strict=True)
    )


def _wants_of(batch: AnyBatch) -> list[list[Want]]:
    if isinstance(batch, SealedBatch):
        return [[Want.DATA] * len(batch.items)]
    return [[item.want if isinstance(item, Apdu) else Want.DATA for item in group.items] for group in batch.groups]


def _answer_to_wire(answer: Answer) -> programs_pb2.Answer:
    message = programs_pb2.Answer(outcome=_OUTCOMES[answer.outcome])
    if answer.sw is not None:
        message.sw = answer.sw
    if answer.data:
        message.data = answer.data
    if answer.cause is not None:
        message.error.CopyFrom(error_to_wire(answer.cause))
    return message


def _answer_from_wire(message: programs_pb2.Answer, want: Want) -> Answer:
    outcome = read.key_of(_OUTCOMES, message.outcome, "outcome")
    sw = read.word(message.sw) if message.HasField("sw") else None
    data = read.octets(message.data, "data of an answer", 0, read.MAX_ANSWER_OCTETS)
    cause = error_from_wire(message.error) if message.HasField("error") else None
    if outcome is Outcome.ANSWERED and sw is None:
        raise WireMalformed("An answer has no status word.")
    if outcome is Outcome.NOT_SENT and (sw is not None or data):
        raise WireMalformed("An item that was not sent has an answer.")
    # Data that was not to leave the workstation is not taken over on the other side either.
    if data and (want is Want.STATUS or (want is Want.DIGEST and len(data) != read.DIGEST_OCTETS)):
        raise WireMalformed("An answer holds data that was not asked for.")
    return Answer(outcome, sw, data, cause)


# ----------------------------------------------------------------------------------------------------- errors


def error_to_wire(error: CardwrightError) -> errors_pb2.Error:
    """The wire form of ``error``: its texts, cut and without control characters, and what a card said."""
    message = errors_pb2.Error(code=error.code, message=read.clean(error.message))
    message.effect = read.clean(error.effect)
    message.advice = read.clean(error.advice)
    sw, tries, reader = (getattr(error, name, None) for name in ("sw", "tries_left", "reader"))
    if sw is not None:
        message.sw = sw
    if tries is not None:
        message.tries_left = tries
    if isinstance(error, TransportError):
        message.reader = read.clean(reader or "")
        message.sent = error.sent
    return message


def error_from_wire(message: errors_pb2.Error) -> CardwrightError:
    """The error of a message, of its own type where callers tell that type apart, else a RelayedError.

    Either has the code, texts and values it had at the other end. Raises WireUnsupported, WireMalformed.
    """
    read.refuse_unknown(message)
    code = read.text(message.code, "error code", read.MAX_CODE)
    if _CODE.fullmatch(code) is None:
        raise WireMalformed("An error has no code.")
    what = read.text(message.message, "text of an error")
    effect = read.text(message.effect, "text of an error")
    advice = read.text(message.advice, "text of an error")
    sw = read.word(message.sw) if message.HasField("sw") else None
    tries = read.octet(message.tries_left, "tries left") if message.HasField("tries_left") else None
    error: CardwrightError
    if message.HasField("sent"):
        reader = read.text(message.reader, "name of a reader")
        kind = _TRANSPORT_ERRORS.get(code, TransportError)
        error = kind(what, reader=reader, sent=message.sent)
    elif code == BrokenExchange.code:
        error = BrokenExchange(what, sw)
    elif code in _PLAIN_ERRORS:
        error = _PLAIN_ERRORS[code](what)
    else:
        error = RelayedError(what, sw=sw, tries_left=tries)
    error.effect, error.advice = effect, advice
    vars(error)["code"] = code  # of this one error: the class may stand for several
    return error


_TRANSPORT_ERRORS: Final[dict[str, type[TransportError]]] = {
    kind.code: kind
    for kind in (
        connection.CardRemoved,
        connection.CardReset,
        connection.CardUnresponsive,
        connection.ReaderGone,
        connection.CardBusy,
        pcsc_errors.PcscNotRunning,
        pcsc_errors.PcscAccessDenied,
        pcsc_errors.NoReader,
        pcsc_errors.NoCard,
        pcsc_errors.DeadlinePassed,
        pcsc_errors.ConnectionOver,
    )
}
_PLAIN_ERRORS: Final[dict[str, type[CardwrightError]]] = {
    kind.code: kind for kind in (ItemRefused, UnexpectedAnswer, NoPin)
}

# ----------------------------------------------------------------------------------------- inventories and plans
# Their messages have the fields of their JSON documents, so one pair of functions carries them over; what the values
# may be is decided where documents are read.


def inventory_to_wire(inventory: Inventory) -> inventory_pb2.Inventory:
    """The wire form of ``inventory``."""
    return read.filled(inventory_pb2.Inventory(), inventory.document())


def inventory_from_wire(message: inventory_pb2.Inventory) -> Inventory:
    """The inventory of a message. Raises WireUnsupported, WireMalformed."""
    document = _received(message, INVENTORY_FORMAT)
    try:
        made = Inventory.from_document(document)
        if made.document() == document:
            return made
    except ValueError:
        pass
    raise WireMalformed("An inventory has a value that no card has.")


def plan_to_wire(plan: Plan) -> plan_pb2.Plan:
    """The wire form of ``plan``."""
    document = plan.document()
    steps = [{step.pop("kind").replace("-", "_"): step} for step in document["steps"]]
    return read.filled(plan_pb2.Plan(), {**document, "steps": steps})


def plan_from_wire(message: plan_pb2.Plan) -> Plan:
    """The plan of a message. Raises WireUnsupported for unknown kinds of step, WireMalformed."""
    document = _received(message, PLAN_FORMAT)
    try:
        steps = []
        for row in document["steps"]:
            ((kind, fields),) = [(name, value) for name, value in row.items() if value is not None]
            steps.append({"kind": kind.replace("_", "-"), **fields})
        document["steps"] = steps
        card = document["card"]
        guid = None if card["guid"] is None else UUID(card["guid"])
        who = Identity(guid, card["fascn"], card["serial"], card["card_key"])
        made = Plan(document["policy"], who, tuple(map(step_from_document, steps)))
        if made.document() == document:
            return made
    except (ArithmeticError, LookupError, TypeError, ValueError, CardwrightError):
        pass
    raise WireMalformed("A plan has a value that no plan has.")


def _received(message: inventory_pb2.Inventory | plan_pb2.Plan, known: int) -> dict[str, Any]:
    """The document of a message of the known format."""
    read.refuse_unknown(message)
    if message.format != known:
        raise WireUnsupported(f"A {message.DESCRIPTOR.name} has format {message.format}, this version reads {known}.")
    return read.document_of(message)


_WANTS: Final = {
    Want.DATA: programs_pb2.WANT_DATA,
    Want.DIGEST: programs_pb2.WANT_DIGEST,
    Want.STATUS: programs_pb2.WANT_STATUS,
}
_OUTCOMES: Final = {
    Outcome.ANSWERED: programs_pb2.OUTCOME_ANSWERED,
    Outcome.IN_DOUBT: programs_pb2.OUTCOME_IN_DOUBT,
    Outcome.NOT_SENT: programs_pb2.OUTCOME_NOT_SENT,
}
