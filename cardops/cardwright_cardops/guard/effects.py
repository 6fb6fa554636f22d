"""What an item changes in what the guard knows: when it is sent, when it succeeds, when its end is not known."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ..iso7816.tlv import MalformedTlv, parse_one, parse_unique
from ..program.items import INS_GET_METADATA, Block, Prove, SetPin, SetPuk, Unblock, VerifyPin
from . import constants as c
from . import intents as i
from .keys import Unreadable, fingerprint, made_key, template_key
from .permit import no_keys
from .rules import is_factory_puk
from .state import UNREAD, Application, State

NOT_FOUND: Final = 0x6A88
_REFUSED: Final = frozenset((0x67, 0x69, 0x6A, 0x6D, 0x6E))
"""SW1 of words by which a card says that it did nothing (ISO 7816-4 table 5)."""

_COUNTED: Final = (i.Select, i.Authenticate, i.Channel, VerifyPin, SetPin, Unblock, SetPuk, Block, Prove)
"""What costs a try, tells something or leaves another selection whatever the card answers."""


def sent(state: State, intent: i.Intent, entry: int | None) -> State:
    """The item goes to the card, whatever comes of it."""
    if entry is not None:
        state = state.spend(entry)
    match intent:
        case VerifyPin() | SetPin():
            return replace(state, pin=True)
        case Unblock(puk=puk) | SetPuk(old=puk) if is_factory_puk(puk) and c.PUK not in state.facts.factory:
            return replace(state, factory_tries=state.factory_tries + 1)
        case Prove(slot=c.CARD_AUTHENTICATION):
            return replace(state, proofs=state.proofs + 1)
        case i.Select():
            return replace(state, facts=replace(state.facts, application=Application.UNKNOWN))
        case _ if (slot := _changed_slot(intent)) is not None:
            # Until the card's answer tells the new key, no certificate is for it.
            return replace(state, facts=state.facts.with_key(slot, UNREAD))
    return state


def succeeded(state: State, intent: i.Intent, entry: int | None) -> State:
    """The card carried the item out. What only its answer can tell is ``learned``'s."""
    facts = state.facts
    if entry is not None:
        facts = replace(facts, done=(*facts.done[:entry], facts.done[entry] + 1, *facts.done[entry + 1 :]))
    match intent:
        case i.Select(aid=aid):
            application = Application.PIV if aid in c.PIV_AIDS else Application.DOMAIN
            return replace(state, facts=replace(facts, application=application), pin=False)
        case i.Generate(slot=slot):
            facts = replace(facts, made=facts.made | {slot})
        case i.Import(slot=slot, key=key):
            facts = replace(facts, made=facts.made - {slot}).with_key(slot, key)
        case i.Put(tag=tag, content=content):
            facts = replace(facts, written=facts.written | {tag})
            if tag == c.CHUID:
                state = replace(state, guids=frozenset((guid_of(content),)))
        case i.Move(source=source, target=target):
            moved = facts.keys.get(source, UNREAD)
            facts = replace(facts, made=facts.made - {source, target}).with_key(source, None)
            facts = facts.with_key(target, moved) if target is not None else facts
        case i.ResetAll():
            return _emptied(replace(state, facts=facts))
        case i.Retries():
            facts = replace(facts, factory=facts.factory | {c.PIN, c.PUK})
        case SetPuk():
            facts = replace(facts, factory=facts.factory - {c.PUK})
    return replace(state, facts=facts)


def _emptied(state: State) -> State:
    """The card was reset: it may be looked at, as which it shows nothing any more, and the permit is at its end."""
    facts = replace(state.facts, done=(), made=frozenset(), written=frozenset(), keys=no_keys())
    permit = replace(state.permit, entries=())
    guids: frozenset[bytes | None] = frozenset((None,))
    return replace(state, permit=permit, facts=facts, used=(), guids=guids, card_key=None, pin=False)


def nothing_happened(intent: i.Intent, sw: int) -> bool:
    """Whether ``sw``, not 9000, says that the card is as before and the item may be tried again."""
    return sw >> 8 in _REFUSED and not isinstance(intent, _COUNTED)


def doubted(state: State, intent: i.Intent) -> State:
    """Whether the card carried the item out is not known."""
    if isinstance(intent, i.Put) and intent.tag == c.CHUID:
        return replace(state, guids=state.guids | {guid_of(intent.content)})
    if isinstance(intent, i.ResetAll):
        return replace(state, lost="the card may have been reset; it needs a new preview")
    return _without_proof(state, intent)


def learned(state: State, intent: i.Intent, data: bytes) -> State:
    """What the data of a 9000 answer tells: new keys, keys that are there, factory values."""
    match intent:
        case i.Generate(slot=slot, algorithm=algorithm):
            try:
                spki = made_key(algorithm, data)
            except Unreadable:
                return _without_proof(state, intent)
            state = replace(state, facts=state.facts.with_key(slot, fingerprint(spki)))
            return replace(state, card_key=spki) if slot == c.CARD_AUTHENTICATION else state
        case i.Ask(ins=ins, reference=reference) if ins == INS_GET_METADATA:
            return _metadata(state, reference, data)
        case i.Sealed():
            return _without_proof(state, intent)
    return state


def absent(state: State, intent: i.Intent) -> State:
    """The card answered 6A88: there is nothing under that reference."""
    if isinstance(intent, i.Ask) and intent.ins == INS_GET_METADATA and intent.reference in c.SLOTS:
        return replace(state, facts=state.facts.with_key(intent.reference, None))
    return state


def guid_of(content: bytes) -> bytes | None:
    """The card UUID in the content of a CHUID, None where there is none."""
    try:
        return parse_unique(content).get(0x34)
    except MalformedTlv:
        return None


def chuid_guid(answer: bytes) -> bytes | None:
    """The card UUID in an answer of GET DATA for the CHUID, None where there is none."""
    try:
        return guid_of(parse_one(answer, 0x53).value)
    except MalformedTlv:
        return None


def _changed_slot(intent: i.Intent) -> int | None:
    match intent:
        case i.Generate(slot=slot) | i.Import(slot=slot):
            return slot
        case i.Sealed(ins=0x47 | 0xFE, p2=slot):
            return slot
    return None


def _without_proof(state: State, intent: i.Intent) -> State:
    """9E may hold a key that nobody here has seen: without it the card cannot prove itself any more."""
    if _changed_slot(intent) == c.CARD_AUTHENTICATION:
        return replace(state, lost="the card's own key changed unseen; it needs a new preview")
    return state


def _metadata(state: State, reference: int, data: bytes) -> State:
    facts = state.facts
    if reference in c.SLOTS:
        return replace(state, facts=facts.with_key(reference, _told_key(data)))
    factory = facts.factory - {reference}
    try:
        if parse_unique(data).get(0x05) == b"\x01":
            factory |= {reference}
    except MalformedTlv:
        pass
    return replace(state, facts=replace(facts, factory=factory))


def _told_key(data: bytes) -> bytes:
    """The fingerprint of the key in the metadata of a slot; UNREAD where it cannot be read."""
    try:
        parts = parse_unique(data)
        (algorithm,) = parts[0x01]
        return fingerprint(template_key(algorithm, parts[0x04]))
    except (MalformedTlv, Unreadable, KeyError, ValueError):
        return UNREAD
