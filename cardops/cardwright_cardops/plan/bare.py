"""Bare programs: SELECT and the work, nothing else. For callers that know the card's state beforehand.

They cost the arithmetic floor of APDUs: no identity, no features, no read-back. ``card init`` is for everybody else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..piv import commands
from ..piv.algorithms import Algorithm, PrivateKey, PublicKey
from ..piv.management_key import ManagementKey, authenticate
from ..piv.references import Slot
from ..piv.responses import parse_public_key
from ..piv.vendor import yubico
from ..program.items import Apdu, Batch, Group, Item, KeyItem, Program, SetPin, SetPuk, ask
from ..secret import Secret

STAGE = "bare"
Certifies = Callable[[Mapping[Slot, PublicKey]], Mapping[int, bytes]]
"""From the public keys that the card made to the values (inside 53) of further objects, by tag."""


@dataclass(frozen=True, slots=True)
class Personalization:
    """What a fresh card gets. ``objects`` by tag, as their codecs encode them."""

    management_key: ManagementKey
    new_management_key: ManagementKey
    puk: Secret
    new_puk: Secret
    objects: Mapping[int, bytes]
    generate: Mapping[Slot, Algorithm]
    imports: Mapping[Slot, PrivateKey] = field(default_factory=dict, repr=False)


def read(*tags: int) -> Program[dict[int, bytes]]:
    """SELECT, then GET DATA of each tag; absent objects are left out. Raises StatusError, TransportError."""
    groups = (
        Group((Apdu(commands.select()),), essential=True),
        *(Group((Apdu(commands.get_data(tag)),)) for tag in tags),
    )
    (selected,), *answers = yield Batch(groups, STAGE)
    selected.require("selecting the PIV application")
    return {tag: answer.data for tag, (answer,) in zip(tags, answers, strict=True) if answer.ok}


def select_and(item: KeyItem, doing: str) -> Program[None]:
    """SELECT, then one key item: verify, change or unblock the PIN. Raises StatusError, TransportError, NoPin."""
    selected, answer = yield from ask(Apdu(commands.select()), item, stage=STAGE, essential=True)
    selected.require("selecting the PIV application")
    answer.require(doing)


def personalize(work: Personalization, certify: Certifies) -> Program[dict[Slot, PublicKey]]:
    """The whole set-up of a card in factory state; the PIN changes last, from the custodian's old to its new.

    Raises ManagementKeyRefused, StatusError, TransportError, MalformedAnswer.
    """
    selected, = yield from ask(Apdu(commands.select()), stage=STAGE, essential=True)
    selected.require("selecting the PIV application")
    yield from authenticate(work.management_key, stage=STAGE)
    made = tuple(Apdu(commands.generate(slot, algorithm)) for slot, algorithm in work.generate.items())
    answers = yield from _all(*made)
    keys = {
        slot: parse_public_key(algorithm, data)
        for (slot, algorithm), data in zip(work.generate.items(), answers, strict=True)
    }
    contents = {**work.objects, **certify(keys)}
    yield from _all(
        *(Apdu(yubico.import_key(slot, key)) for slot, key in work.imports.items()),
        *(Apdu(commands.put_data(tag, content)) for tag, content in contents.items()),
        Apdu(yubico.set_management_key(work.new_management_key)),
        SetPuk(work.puk, work.new_puk),
        SetPin(),
    )
    return keys


def _all(*items: Item) -> Program[list[bytes]]:
    answers = yield from ask(*items, stage=STAGE, essential=True)
    return [answer.require("setting up the card") for answer in answers]
