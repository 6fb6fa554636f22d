"""Values of this library and their wire form (``cardwright.card.v1``), both ways, and nowhere else.

Decoding is strict and bounded. Batches come from a server that this side does not trust, answers from a
workstation that the other side does not trust: a field, enum value or kind that is not known here is refused,
and so is anything longer than the limits below. Decoders raise WireUnsupported and WireMalformed only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from cardwright_proto.card.v1 import errors_pb2, programs_pb2

from .errors import CardwrightError
from .iso7816.apdu import MAX_EXTENDED, MAX_EXTENDED_LE, CommandAPDU
from .iso7816.exchange import BrokenExchange
from .piv.pins import NoPin
from .program.items import (
    Answer,
    Answers,
    AnyBatch,
    Apdu,
    Batch,
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
from .secret import Secret
from .transport import connection, pcsc_errors
from .transport.connection import TransportError

M = TypeVar("M", bound=Message)

MAX_MESSAGE: Final = 1 << 20
"""Octets of one encoded message."""
MAX_ITEMS: Final = 512
"""Items of one batch, and groups of one batch."""
MAX_ACCEPT: Final = 64
"""Expected status words of one item."""
MAX_APDUS: Final = 512
"""Wrapped APDUs of one sealed item."""
MAX_APDU_OCTETS: Final = MAX_EXTENDED + 9
"""Octets of one wrapped APDU: the longest extended form."""
MAX_ANSWER_OCTETS: Final = MAX_EXTENDED_LE
"""Octets of the data of one answer."""
MAX_NAME_OCTETS: Final = 2048
"""Octets of the subject of a request."""
MAX_TEXT: Final = 600
"""Characters of any one text."""
MAX_CODE: Final = 64
"""Characters of an error code or of a stage."""
NONCE_OCTETS: Final = (8, 64)
"""Least and most octets of a verifier's nonce (RFC 3163 section 3; our own limit)."""
PUK_OCTETS: Final = 8
DIGEST_OCTETS: Final = 32

_PIN_REFERENCES: Final = (0x80, 0x00)
_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]*")


class WireUnsupported(CardwrightError):
    """A message with a field, a kind or a value that this version does not know, or that has no wire form."""

    code = "WIRE_UNSUPPORTED"
    default_effect = "Nothing of it was sent to the card."
    default_advice = "One side of the line is too old for the other; update it."


class WireMalformed(CardwrightError):
    """A message that breaks its own rules: something is missing, too long or out of range."""

    code = "WIRE_MALFORMED"
    default_effect = "Nothing of it was sent to the card."
    default_advice = "The other side of the line is defective or hostile; do not use it before it is examined."


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


def parse(raw: bytes, kind: type[M]) -> M:
    """The message of ``kind`` in ``raw``. Raises WireMalformed."""
    if len(raw) > MAX_MESSAGE:
        raise WireMalformed(f"A message of {len(raw)} octets is longer than {MAX_MESSAGE}.")
    message = kind()
    try:
        message.ParseFromString(raw)
    except (DecodeError, UnicodeDecodeError, RecursionError):
        raise WireMalformed(f"These octets are no {kind.DESCRIPTOR.name}.") from None
    return message


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
    _refuse_unknown(message)
    stage = _text(message.stage, "stage", MAX_CODE)
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
    _at_most(len(message.groups), MAX_ITEMS, "groups")
    _at_most(sum(len(group.items) for group in message.groups), MAX_ITEMS, "items")
    for group in message.groups:
        _at_least_one(len(group.items), "items in a group")
    return tuple(
        Group(tuple(_item_from_wire(item) for item in group.items), group.essential) for group in message.groups
    )


def _item_from_wire(message: programs_pb2.Item) -> Item:
    match message.WhichOneof("kind"):
        case "apdu":
            return _apdu_from_wire(message.apdu)
        case "verify_pin":
            return VerifyPin(_pin_reference(message.verify_pin))
        case "set_pin":
            return SetPin(_pin_reference(message.set_pin))
        case "unblock":
            return Unblock(_puk(message.unblock.puk))
        case "set_puk":
            return SetPuk(_puk(message.set_puk.old), _puk(message.set_puk.new))
        case "prove":
            made = message.prove
            _require(made, "slot", "algorithm")
            return Prove(_octet(made.slot, "slot"), _octet(made.algorithm, "algorithm"), _nonce(made.nonce))
        case "sign_request":
            asked = message.sign_request
            _require(asked, "slot")
            subject = _octets(asked.subject, "subject", 2, MAX_NAME_OCTETS)
            return SignRequest(_octet(asked.slot, "slot"), subject)
        case "sign_in":
            signed = message.sign_in
            _require(signed, "algorithm", "audience")
            audience = _text(signed.audience, "audience", MAX_TEXT)
            return SignIn(_octet(signed.algorithm, "algorithm"), audience, _nonce(signed.nonce))
    raise WireMalformed("An item is of no kind.")


def _apdu_from_wire(message: programs_pb2.Apdu) -> Apdu:
    cla, ins, p1, p2 = _octets(message.header, "header", 4, 4)
    data = _octets(message.data, "data of a command", 0, MAX_EXTENDED)
    _at_most(message.le, MAX_EXTENDED_LE, "octets wanted")
    _at_least_one(len(message.accept), "expected status words")
    _at_most(len(message.accept), MAX_ACCEPT, "expected status words")
    accept = frozenset(_word(word) for word in message.accept)
    want = _known(_WANTS, message.want, "want")
    expect = None
    if message.HasField("expect"):
        expect = _octets(message.expect, "expected digest", DIGEST_OCTETS, DIGEST_OCTETS)
    return Apdu(CommandAPDU(cla, ins, p1, p2, data, message.le), accept, want, expect)


def _sealed_from_wire(message: programs_pb2.SealedBatch) -> tuple[SealedItem, ...]:
    _at_most(len(message.items), MAX_ITEMS, "items")
    items = []
    for item in message.items:
        _at_least_one(len(item.apdus), "wrapped commands in an item")
        _at_most(len(item.apdus), MAX_APDUS, "wrapped commands in an item")
        apdus = tuple(_octets(apdu, "wrapped command", 4, MAX_APDU_OCTETS) for apdu in item.apdus)
        items.append(SealedItem(_octets(item.header, "header", 4, 4), apdus))
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
    _refuse_unknown(message)
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
    outcome = _known(_OUTCOMES, message.outcome, "outcome")
    sw = _word(message.sw) if message.HasField("sw") else None
    data = _octets(message.data, "data of an answer", 0, MAX_ANSWER_OCTETS)
    cause = error_from_wire(message.error) if message.HasField("error") else None
    if outcome is Outcome.ANSWERED and sw is None:
        raise WireMalformed("An answer has no status word.")
    if outcome is Outcome.NOT_SENT and (sw is not None or data):
        raise WireMalformed("An item that was not sent has an answer.")
    # Data that was not to leave the workstation is not taken over on the other side either.
    if data and (want is Want.STATUS or (want is Want.DIGEST and len(data) != DIGEST_OCTETS)):
        raise WireMalformed("An answer holds data that was not asked for.")
    return Answer(outcome, sw, data, cause)


# ----------------------------------------------------------------------------------------------------- errors


def error_to_wire(error: CardwrightError) -> errors_pb2.Error:
    """The wire form of ``error``: its texts, cut and without control characters, and what a card said."""
    message = errors_pb2.Error(code=error.code, message=_clean(error.message))
    message.effect = _clean(error.effect)
    message.advice = _clean(error.advice)
    sw, tries, reader = (getattr(error, name, None) for name in ("sw", "tries_left", "reader"))
    if sw is not None:
        message.sw = sw
    if tries is not None:
        message.tries_left = tries
    if isinstance(error, TransportError):
        message.reader = _clean(reader or "")
        message.sent = error.sent
    return message


def error_from_wire(message: errors_pb2.Error) -> CardwrightError:
    """The error of a message, of its own type where callers tell that type apart, else a RelayedError.

    Either has the code, texts and values it had at the other end. Raises WireUnsupported, WireMalformed.
    """
    _refuse_unknown(message)
    code = _text(message.code, "error code", MAX_CODE)
    if _CODE.fullmatch(code) is None:
        raise WireMalformed("An error has no code.")
    what = _text(message.message, "text of an error", MAX_TEXT)
    effect = _text(message.effect, "text of an error", MAX_TEXT)
    advice = _text(message.advice, "text of an error", MAX_TEXT)
    sw = _word(message.sw) if message.HasField("sw") else None
    tries = _octet(message.tries_left, "tries left") if message.HasField("tries_left") else None
    error: CardwrightError
    if message.HasField("sent"):
        reader = _text(message.reader, "name of a reader", MAX_TEXT)
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

# ----------------------------------------------------------------------------------------- small strict readers

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

K = TypeVar("K")


def _known(table: Mapping[K, int], number: int, what: str) -> K:
    """The key of ``number`` in a table of enum numbers; 0 is "not given"."""
    for key, known in table.items():
        if known == number:
            return key
    if number == 0:
        raise WireMalformed(f"A message does not give its {what}.")
    raise WireUnsupported(f"There is no {what} {number} in this version.")


def _refuse_unknown(message: Message) -> None:
    """Raise WireUnsupported where a field that is not known here stands anywhere in ``message``."""
    waiting = [message]
    while waiting:
        one = waiting.pop()
        if len(UnknownFieldSet(one)):
            raise WireUnsupported(f"A {one.DESCRIPTOR.name} has a field that this version does not know.")
        for field, value in one.ListFields():
            if field.message_type is not None:
                waiting.extend(value if field.is_repeated else (value,))


def _require(message: Message, *names: str) -> None:
    for name in names:
        if not message.HasField(name):
            raise WireMalformed(f"A {message.DESCRIPTOR.name} does not give its {name}.")


def _pin_reference(message: programs_pb2.VerifyPin | programs_pb2.SetPin) -> int:
    _require(message, "reference")
    if message.reference not in _PIN_REFERENCES:
        raise WireMalformed("There is no such PIN reference.")
    return message.reference


def _puk(value: bytes) -> Secret:
    return Secret(_octets(value, "PUK", PUK_OCTETS, PUK_OCTETS))


def _nonce(value: bytes) -> bytes:
    return _octets(value, "nonce", *NONCE_OCTETS)


def _octet(number: int, what: str) -> int:
    if number > 0xFF:
        raise WireMalformed(f"The {what} is more than one octet.")
    return number


def _word(number: int) -> int:
    if not 0x6000 <= number <= 0x9FFF:
        raise WireMalformed("A status word is out of range.")
    return number


def _octets(value: bytes, what: str, least: int, most: int) -> bytes:
    if not least <= len(value) <= most:
        raise WireMalformed(f"The {what} has {len(value)} octets; {least} to {most} are allowed.")
    return value


def _text(value: str, what: str, most: int) -> str:
    if len(value) > most or not value.isprintable():
        raise WireMalformed(f"The {what} is too long or has control characters.")
    return value


def _clean(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text[:MAX_TEXT])


def _at_most(number: int, most: int, what: str) -> None:
    if number > most:
        raise WireMalformed(f"There are {number} {what}; {most} are allowed.")


def _at_least_one(number: int, what: str) -> None:
    if not number:
        raise WireMalformed(f"There are no {what}.")
