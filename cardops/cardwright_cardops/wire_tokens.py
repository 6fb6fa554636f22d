"""Sessions on PKCS#11 tokens and their wire form (``cardwright.card.v1``), both ways.

As strict and bounded as ``wire``, which this belongs to. Decoders raise WireUnsupported and WireMalformed only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

from cardwright_proto.card.v1 import programs_pb2, tokens_pb2

from . import wire
from . import wire_reading as read
from .piv.algorithms import Algorithm
from .piv.references import Slot
from .plan.token import TokenAnswer, TokenFeatures, TokenName
from .program import token_items as t
from .program.items import Outcome
from .secret import Secret
from .wire_reading import WireMalformed

MAX_ITEMS: Final = 128
MAX_SO_PIN: Final = 64
MAX_KEY: Final = 8192
MAX_CERTIFICATE: Final = 1 << 15
MAX_DATA: Final = 1 << 15
MAX_NAME: Final = 64
"""Octets of the texts of CK_TOKEN_INFO: 32 at most, some modules pad."""
MOST_SLOTS: Final = 32

_OUTCOMES: Final = {one: programs_pb2.Outcome.Value(f"OUTCOME_{one.name}") for one in Outcome}
_E = TypeVar("_E", Slot, Algorithm)


def token_to_wire(features: TokenFeatures) -> tokens_pb2.Token:
    """The wire form of what a token is and can do."""
    name = features.name
    return tokens_pb2.Token(
        label=name.label,
        serial=name.serial,
        manufacturer=name.manufacturer,
        model=name.model,
        module=features.module,
        generates=sorted(f"{one:02X}" for one in features.generates),
        imports=features.imports,
        deletes=features.deletes,
        unlocks=features.unlocks,
        refusal=read.clean(features.refusal),
    )


def token_from_wire(message: tokens_pb2.Token) -> TokenFeatures:
    """The features of a message. Raises WireUnsupported, WireMalformed."""
    read.refuse_unknown(message)
    texts = (message.label, message.serial, message.manufacturer, message.model)
    label, serial, manufacturer, model = (read.text(one, "text of a token", MAX_NAME) for one in texts)
    if not serial and not label:
        raise WireMalformed("A token has neither serial number nor label.")
    read.at_most(len(message.generates), MOST_SLOTS, "algorithms")
    return TokenFeatures(
        TokenName(label, serial, manufacturer, model),
        read.text(message.module, "name of a module", MAX_NAME),
        frozenset(_number(Algorithm, one) for one in message.generates),
        message.imports,
        message.deletes,
        message.unlocks,
        read.text(message.refusal, "refusal"),
    )


def steps_to_wire(batch: t.TokenBatch) -> tokens_pb2.TokenBatch:
    """The wire form of steps."""
    return tokens_pb2.TokenBatch(items=[_item_to_wire(item) for item in batch.items])


def steps_from_wire(message: tokens_pb2.TokenBatch) -> t.TokenBatch:
    """The steps of a message. Raises WireUnsupported, WireMalformed."""
    read.refuse_unknown(message)
    read.at_least_one(len(message.items), "steps")
    read.at_most(len(message.items), MAX_ITEMS, "steps")
    return t.TokenBatch(tuple(map(_item_from_wire, message.items)))


def _item_to_wire(item: t.TokenItem) -> tokens_pb2.TokenItem:
    made = tokens_pb2.TokenItem()
    match item:
        case t.ReadToken():
            made.token_read.SetInParent()
        case t.ProveToken(nonce=nonce):
            made.token_prove.nonce = nonce
        case t.SetSoPin(old=old, new=new):
            made.token_set_so_pin.old, made.token_set_so_pin.new = old.reveal(), new.reveal()
        case t.InitPin(so_pin=so_pin):
            made.token_init_pin.so_pin = so_pin.reveal()
        case t.MakeTokenKey(slot=slot, algorithm=algorithm, always=always):
            wanted = tokens_pb2.TokenMakeKey(slot=f"{slot:02X}", algorithm=f"{algorithm:02X}", always=always)
            made.token_make_key.CopyFrom(wanted)
        case t.RequestTokenCertificate(slot=slot, subject=subject):
            made.token_request_certificate.slot, made.token_request_certificate.subject = f"{slot:02X}", subject
        case t.PutTokenKey(slot=slot, algorithm=algorithm, key=key):
            brought = tokens_pb2.TokenPutKey(slot=f"{slot:02X}", algorithm=f"{algorithm:02X}", key=key.reveal())
            made.token_put_key.CopyFrom(brought)
        case t.PutTokenCertificate(slot=slot, certificate=der):
            made.token_put_certificate.slot, made.token_put_certificate.certificate = f"{slot:02X}", der
        case t.RemoveToken(slot=slot, key=mark):
            made.token_remove.slot, made.token_remove.key = f"{slot:02X}", mark
    return made


def _item_from_wire(message: tokens_pb2.TokenItem) -> t.TokenItem:
    match message.WhichOneof("kind"):
        case "token_read":
            return t.ReadToken()
        case "token_prove":
            return t.ProveToken(read.nonce(message.token_prove.nonce))
        case "token_set_so_pin":
            return t.SetSoPin(_so_pin(message.token_set_so_pin.old), _so_pin(message.token_set_so_pin.new))
        case "token_init_pin":
            return t.InitPin(_so_pin(message.token_init_pin.so_pin))
        case "token_make_key":
            made = message.token_make_key
            return t.MakeTokenKey(_number(Slot, made.slot), _number(Algorithm, made.algorithm), made.always)
        case "token_request_certificate":
            asked = message.token_request_certificate
            subject = read.octets(asked.subject, "subject", 2, read.MAX_NAME_OCTETS)
            return t.RequestTokenCertificate(_number(Slot, asked.slot), subject)
        case "token_put_key":
            put = message.token_put_key
            key = Secret(read.octets(put.key, "private key", 16, MAX_KEY))
            return t.PutTokenKey(_number(Slot, put.slot), _number(Algorithm, put.algorithm), key)
        case "token_put_certificate":
            der = read.octets(message.token_put_certificate.certificate, "certificate", 16, MAX_CERTIFICATE)
            return t.PutTokenCertificate(_number(Slot, message.token_put_certificate.slot), der)
        case "token_remove":
            gone = message.token_remove
            return t.RemoveToken(_number(Slot, gone.slot), read.text(gone.key, "fingerprint", 64))
    raise WireMalformed("A step is of no kind.")


def step_answers_to_wire(answers: tuple[TokenAnswer, ...]) -> tokens_pb2.TokenAnswers:
    """The wire form of answers."""
    message = tokens_pb2.TokenAnswers()
    for answer in answers:
        row = message.answers.add(outcome=_OUTCOMES[answer.outcome], data=answer.data)
        if answer.seen is not None:
            row.inventory.CopyFrom(wire.inventory_to_wire(answer.seen))
        row.broken.extend(sorted(slot.label for slot in answer.broken))
        row.bare.extend(sorted(slot.label for slot in answer.bare))
        if answer.cause is not None:
            row.error.CopyFrom(wire.error_to_wire(answer.cause))
    return message


def step_answers_from_wire(message: tokens_pb2.TokenAnswers, batch: t.TokenBatch) -> tuple[TokenAnswer, ...]:
    """The answers to ``batch``, one for each step. Raises WireUnsupported, WireMalformed."""
    read.refuse_unknown(message)
    if len(message.answers) != len(batch.items):
        raise WireMalformed("Answers do not have the shape of their steps.")
    return tuple(_answer(row, item) for row, item in zip(message.answers, batch.items, strict=True))


def _answer(message: tokens_pb2.TokenAnswer, item: t.TokenItem) -> TokenAnswer:
    outcome = read.key_of(_OUTCOMES, message.outcome, "outcome")
    cause = wire.error_from_wire(message.error) if message.HasField("error") else None
    seen = wire.inventory_from_wire(message.inventory) if message.HasField("inventory") else None
    data = read.octets(message.data, "data of an answer", 0, MAX_DATA)
    done = outcome is Outcome.ANSWERED
    if done and cause is not None:
        raise WireMalformed("A step that was done has an error.")
    if (seen is not None) is not (done and isinstance(item, t.ReadToken)) or (data and not done):
        raise WireMalformed("An answer holds something that its step does not tell.")
    return TokenAnswer(outcome, data, seen, _slots(message.broken), _slots(message.bare), cause)


def _so_pin(value: bytes) -> Secret:
    return Secret(read.octets(value, "PIN of the security officer", 1, MAX_SO_PIN))


def _slots(labels: Sequence[str]) -> frozenset[Slot]:
    read.at_most(len(labels), MOST_SLOTS, "slots")
    return frozenset(_number(Slot, one) for one in labels)


def _number(kind: type[_E], text: str) -> _E:
    """Raises WireMalformed."""
    try:
        if len(text) == 2 and text == text.upper():
            return kind(int(text, 16))
    except ValueError:
        pass
    raise WireMalformed("There is no such slot or algorithm.")
