"""The rules: what each intent needs, deny by default. Pure functions of the state and the intent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from ..program.items import Apdu, Block, Prove, SetPin, SetPuk, SignIn, SignRequest, Unblock, UseKey, VerifyPin, Want
from ..secret import Secret
from . import constants as c
from . import intents as i
from . import operations as o
from .keys import Unreadable, certified_key, fingerprint
from .state import UNREAD, Application, State
from .verdict import Allow, Decision, Deny, Rule

MAX_FREE_PROOFS: Final = 16
"""Proofs of 9E that a session may ask for without any permission."""

_MATCHES: Final = frozenset((c.MATCH_ONCE, c.MATCH_ALWAYS))
_PIN_STRENGTH: Final = {c.PIN_NEVER: 0, c.PIN_ONCE: 1, c.PIN_ALWAYS: 2}
_TOUCH_STRENGTH: Final = {c.TOUCH_NEVER: 0, c.TOUCH_CACHED: 1, c.TOUCH_ALWAYS: 2}


def decide(state: State, intent: i.Intent, item: object) -> Decision:
    """Whether ``intent``, the meaning of ``item``, is allowed now."""
    if state.lost:
        return Deny(Rule.PLAN, state.lost)
    if not isinstance(intent, (i.Select, i.Channel, i.Sealed)) and state.facts.application is not Application.PIV:
        return Deny(Rule.FLOOR, "the PIV application is not certain to be selected")
    return _RULES[type(intent)](state, intent, item)


# -------------------------------------------------------------------------------------------- finding the entry


def _pay(state: State, wanted: Callable[[Any], bool], what: str, rule: Rule = Rule.ITEM) -> Decision:
    """The entry that pays for an item: of the right content, not used up, and its turn."""
    reason = f"{what}: the preview showed no such thing"
    open_rank = state.open_rank()
    for index, entry in enumerate(state.permit.entries):
        if not wanted(entry.operation):
            continue
        if state.used[index] >= entry.times or (entry.rank is not None and state.facts.done[index]):
            reason = f"{what}: as often as the preview showed it was already done"
        elif not _its_turn(state, entry.rank, open_rank):
            reason = f"{what}: it is not its turn"
        elif (act := o.act_of(entry.operation)) is not None and act not in state.permit.confirmed:
            return Deny(Rule.FLOOR, f"{what}: nobody typed the confirmation for it")
        else:
            return Allow(index, proof=True)
    return Deny(rule, reason)


def _its_turn(state: State, rank: int | None, open_rank: int | None) -> bool:
    """Whether all of lower ranks is done and nothing of a higher one was begun."""
    if rank is None:
        return True
    begun = (entry.rank for entry, used in zip(state.permit.entries, state.used, strict=True) if used)
    return (open_rank is None or rank <= open_rank) and all(other is None or other <= rank for other in begun)


def _operations(state: State, kind: type[o.Operation]) -> Iterator[Any]:
    return (entry.operation for entry in state.permit.entries if isinstance(entry.operation, kind))


# ------------------------------------------------------------------------------------------ selecting, reading


def _select(state: State, intent: i.Select, item: object) -> Decision:
    if intent.aid in c.PIV_AIDS:
        return Allow()
    if intent.aid in state.domains and any(_operations(state, o.OpenChannel)):
        return Allow()
    return Deny(Rule.FLOOR, "only the PIV application and configured security domains are selected")


def _read(state: State, intent: i.Read, item: object) -> Decision:
    if intent.tag in c.READABLE:
        return Allow()
    if intent.tag not in c.PROTECTED:
        return Deny(Rule.FLOOR, f"object {intent.tag:X} is none that is read for a server")
    if intent.tag not in state.facts.written:
        return Deny(Rule.FLOOR, "an object behind the PIN does not leave the workstation")
    if isinstance(item, Apdu) and item.want is Want.DATA:
        return Deny(Rule.FLOOR, "an object behind the PIN is read back as its SHA-256 only")
    return Allow()


def _free(state: State, intent: i.Intent, item: object) -> Decision:
    return Allow()


def _statement(state: State, intent: i.Statement, item: object) -> Decision:
    if intent.slot in state.facts.made:
        return Allow(proof=True)
    return _pay(state, lambda one: one == o.Attest(intent.slot), "attestation of a key", Rule.KEY)


# -------------------------------------------------------------------------------------------- administration


def _authenticate(state: State, intent: i.Authenticate, item: object) -> Decision:
    decision = _pay(state, lambda one: one == o.Manage(intent.algorithm), "management-key authentication")
    # The question alone takes nothing from the permit; the answer does.
    return decision if intent.answers or isinstance(decision, Deny) else Allow(proof=True)


def _generate(state: State, intent: i.Generate, item: object) -> Decision:
    if _is_lost_unasked(state, intent.slot):
        return Deny(Rule.FLOOR, "nobody typed the confirmation for the key that is left to the archive")
    if isinstance(item, Apdu) and item.want is not Want.DATA:
        return Deny(Rule.ITEM, "the guard does not see the key that is made")

    def shown(one: o.Operation) -> bool:
        return isinstance(one, o.MakeKey) and _fits(one, intent) and _may_replace(state, one.slot, one.replaces)

    return _pay(state, shown, "making a key of this kind over what is in the slot")


def _import(state: State, intent: i.Import, item: object) -> Decision:
    if _is_lost_unasked(state, intent.slot):
        return Deny(Rule.FLOOR, "nobody typed the confirmation for the key that is left to the archive")
    if intent.slot not in c.IMPORT_SLOTS:
        return Deny(Rule.FLOOR, "keys from outside go to 9D and the retired slots only")

    def shown(one: o.Operation) -> bool:
        return (
            isinstance(one, o.ImportKey)
            and _fits(one, intent)
            and one.key in (None, intent.key)
            and _may_replace(state, one.slot, one.replaces)
        )

    return _pay(state, shown, "importing this key over what is in the slot")


def _fits(shown: o.MakeKey | o.ImportKey, asked: i.Generate | i.Import) -> bool:
    return (
        (shown.slot, shown.algorithm) == (asked.slot, asked.algorithm)
        and _no_weaker_pin(asked.slot, shown.pin_policy, asked.pin_policy)
        and _no_weaker_touch(shown.touch_policy, asked.touch_policy)
    )


def _no_weaker_pin(slot: int, shown: int, asked: int) -> bool:
    shown, asked = (one or c.default_pin_policy(slot) for one in (shown, asked))
    if shown in _MATCHES or asked in _MATCHES:
        return shown == asked
    return shown in _PIN_STRENGTH and asked in _PIN_STRENGTH and _PIN_STRENGTH[asked] >= _PIN_STRENGTH[shown]


def _no_weaker_touch(shown: int, asked: int) -> bool:
    shown, asked = (one or c.TOUCH_NEVER for one in (shown, asked))
    return shown in _TOUCH_STRENGTH and asked in _TOUCH_STRENGTH and _TOUCH_STRENGTH[asked] >= _TOUCH_STRENGTH[shown]


def _is_lost_unasked(state: State, slot: int) -> bool:
    """Whether the preview said that the key in ``slot`` leaves the card for good, and nobody confirmed it."""
    return o.Act.LEAVE_KEY not in state.permit.confirmed and any(
        lost.slot == slot for lost in _operations(state, o.LoseKey)
    )


def _may_replace(state: State, slot: int, shown: bytes | None) -> bool:
    """Whether the key that would be lost in ``slot`` is the one that the preview named as lost."""
    return state.facts.keys.get(slot) == shown and shown != UNREAD


def _put(state: State, intent: i.Put, item: object) -> Decision:
    if not intent.content:
        return _pay(state, lambda one: one == o.Clear(intent.tag), "emptying an object")
    named = _NAMED.get(intent.tag)
    digest = hashlib.sha256(intent.content).digest()
    if named is not None:
        return _pay(state, lambda one: one == o.PutNamed(named, digest), f"writing the {named.value}", Rule.FLOOR)
    slot = _SLOT_OF.get(intent.tag)
    if slot is not None:
        return _put_certificate(state, slot, intent.content, digest)
    if intent.tag not in c.WRITABLE:
        return Deny(Rule.FLOOR, f"object {intent.tag:X} is none that is written for a server")
    return _pay(state, lambda one: one == o.PutObject(intent.tag, digest), "writing an object with this content")


def _put_certificate(state: State, slot: int, content: bytes, digest: bytes) -> Decision:
    try:
        certified = fingerprint(certified_key(content))
    except Unreadable:
        return Deny(Rule.ITEM, "this is no certificate in the form of PIV")
    if state.facts.keys.get(slot) != certified:
        return Deny(Rule.ITEM, "the certificate is not for the key in the slot")

    def shown(one: o.Operation) -> bool:
        return isinstance(one, o.PutCertificate) and one.slot == slot and one.digest in (None, digest)

    return _pay(state, shown, "writing this certificate")


def _manager(state: State, intent: i.Manager, item: object) -> Decision:
    if intent.factory:
        return Deny(Rule.PIN, "no management key is set to its factory value")

    def shown(one: o.Operation) -> bool:
        return (
            isinstance(one, o.SetManagementKey)
            and one.algorithm == intent.algorithm
            and (intent.touch or not one.touch)
        )

    return _pay(state, shown, "setting a management key of this kind")


def _move(state: State, intent: i.Move, item: object) -> Decision:
    def shown(one: o.Operation) -> bool:
        if isinstance(one, o.MoveKey):
            ends = (one.source, one.target) == (intent.source, intent.target)
            return ends and _may_replace(state, one.target, one.replaces)
        return (
            isinstance(one, o.DeleteKey)
            and (one.slot, None) == (intent.source, intent.target)
            and _may_replace(state, one.slot, one.replaces)
        )

    return _pay(state, shown, "moving or deleting this key", Rule.FLOOR)


def _retries(state: State, intent: i.Retries, item: object) -> Decision:
    wanted = o.SetRetries(intent.pin, intent.puk)
    return _pay(state, lambda one: one == wanted, "setting these counters", Rule.FLOOR)


def _reset(state: State, intent: i.ResetAll, item: object) -> Decision:
    return _pay(state, lambda one: one == o.Reset(), "resetting the card", Rule.FLOOR)


# --------------------------------------------------------------------------------------------- secure channel


def _channel(state: State, intent: i.Channel, item: object) -> Decision:
    if state.facts.application is Application.UNKNOWN:
        return Deny(Rule.FLOOR, "no known application is certain to be selected")
    decision = _pay(state, lambda one: one == o.OpenChannel(), "opening a secure channel")
    return decision if intent.answers or isinstance(decision, Deny) else Allow(proof=True)


def _sealed(state: State, intent: i.Sealed, item: object) -> Decision:
    if not state.permit.sealed or state.facts.application is Application.UNKNOWN:
        return Deny(Rule.ITEM, "the preview showed no sealed part, or no known application is selected")
    if state.facts.application is Application.DOMAIN:
        if intent.ins != 0xD8:
            return Deny(Rule.FLOOR, "in a security domain only keys of the channel are set")
        return _pay(state, lambda one: one == o.ChangeChannelKeys(), "changing channel keys", Rule.FLOOR)
    if intent.ins in (0x47, 0xFE) and _is_lost_unasked(state, intent.p2):
        return Deny(Rule.FLOOR, "nobody typed the confirmation for the key that is left to the archive")
    rule = _SEALED.get(intent.ins)
    if rule is None:
        return Deny(Rule.FLOOR, f"instruction {intent.ins:02X} is not sealed")
    return rule(state, intent)


def _sealed_read(state: State, intent: i.Sealed) -> Decision:
    if state.pin:
        return Deny(Rule.FLOOR, "a sealed read after the PIN could be of an object behind the PIN")
    return Allow() if (intent.p1, intent.p2) == (0x3F, 0xFF) else Deny(Rule.ITEM, "no such read")


def _sealed_generate(state: State, intent: i.Sealed) -> Decision:
    def shown(one: o.Operation) -> bool:
        slot = isinstance(one, o.MakeKey) and (0, one.slot) == (intent.p1, intent.p2)
        return slot and _may_replace(state, intent.p2, one.replaces)  # type: ignore[union-attr]

    return _pay(state, shown, "making a key in this slot")


def _sealed_import(state: State, intent: i.Sealed) -> Decision:
    if intent.p2 not in c.IMPORT_SLOTS:
        return Deny(Rule.FLOOR, "keys from outside go to 9D and the retired slots only")

    def shown(one: o.Operation) -> bool:
        slot = isinstance(one, o.ImportKey) and (one.algorithm, one.slot) == (intent.p1, intent.p2)
        return slot and _may_replace(state, intent.p2, one.replaces)  # type: ignore[union-attr]

    return _pay(state, shown, "importing a key into this slot")


def _sealed_put(state: State, intent: i.Sealed) -> Decision:
    if (intent.p1, intent.p2) != (0x3F, 0xFF):
        return Deny(Rule.ITEM, "no such write")
    return _pay(state, lambda one: isinstance(one, (o.PutObject, o.PutCertificate)), "writing another object")


def _sealed_manager(state: State, intent: i.Sealed) -> Decision:
    def shown(one: o.Operation) -> bool:
        return isinstance(one, o.SetManagementKey) and (intent.p2 == 0xFE or not one.touch)

    return _pay(state, shown, "setting a management key")


_SEALED: Final[dict[int, Callable[[State, i.Sealed], Decision]]] = {
    0xCB: _sealed_read,
    0x47: _sealed_generate,
    0xFE: _sealed_import,
    0xDB: _sealed_put,
    0xFF: _sealed_manager,
}


# -------------------------------------------------------------------------------------------- PIN, PUK and keys


def _pin(kind: type[o.EnterPin] | type[o.ChangePin], what: str) -> Callable[[State, Any, object], Decision]:
    def rule(state: State, intent: VerifyPin | SetPin, item: object) -> Decision:
        if intent.reference not in c.PIN_REFERENCES:
            return Deny(Rule.PIN, "there is no such PIN")
        return _pay(state, lambda one: one == kind(intent.reference), what, Rule.PIN)

    return rule


def _unblock(state: State, intent: Unblock, item: object) -> Decision:
    if (wrong := _puk_trouble(state, intent.puk)) is not None:
        return wrong
    return _pay(state, lambda one: one == o.UnblockPin(), "unblocking the PIN", Rule.PIN)


def _set_puk(state: State, intent: SetPuk, item: object) -> Decision:
    if (wrong := _puk_trouble(state, intent.old)) is not None:
        return wrong
    if len(intent.new) != c.PUK_OCTETS or is_factory_puk(intent.new):
        return Deny(Rule.PIN, "the new PUK has another size, or is the factory value")
    return _pay(state, lambda one: one == o.ChangePuk(), "replacing the PUK", Rule.PIN)


def _block(state: State, intent: Block, item: object) -> Decision:
    # A lock pays for the PIN alone: with the PUK gone too, nothing but erasing would bring the card back.
    paying = (o.Block(intent.reference), o.Lock()) if intent.reference == c.PIN else (o.Block(intent.reference),)
    return _pay(state, lambda one: one in paying, "blocking the PIN or PUK", Rule.FLOOR)


def is_factory_puk(value: Secret) -> bool:
    """Whether ``value`` is what PUKs are delivered with."""
    return value == Secret(c.FACTORY_PUK)


def _puk_trouble(state: State, value: Secret) -> Deny | None:
    if len(value) != c.PUK_OCTETS:
        return Deny(Rule.PIN, "a PUK has 8 octets")
    if not is_factory_puk(value) or c.PUK in state.facts.factory:
        return None
    if state.identity.guid is None and state.factory_tries == 0:
        return None
    return Deny(Rule.PIN, "the factory PUK is tried where the card says it is set, or once on a card without CHUID")


def _prove(state: State, intent: Prove, item: object) -> Decision:
    if intent.slot not in c.PROVING_SLOTS:
        return Deny(Rule.KEY, "only keys that authenticate or sign prove anything")
    if intent.slot != c.CARD_AUTHENTICATION:
        return _pay(state, lambda one: one == o.ProveKey(intent.slot), "proving this key", Rule.KEY)
    if state.proofs >= MAX_FREE_PROOFS:
        return Deny(Rule.KEY, "the card proved itself often enough in this session")
    return Allow()


def _sign_request(state: State, intent: SignRequest, item: object) -> Decision:
    if intent.slot not in state.facts.made:
        return Deny(Rule.KEY, "no key was made in that slot in this session")
    return _pay(state, lambda one: one == o.RequestCertificate(intent.slot), "signing a request", Rule.KEY)


def _sign_in(state: State, intent: SignIn, item: object) -> Decision:
    return _pay(state, lambda one: one == o.SignIn(intent.audience), "signing in there", Rule.KEY)


def _use_key(state: State, intent: UseKey, item: object) -> Decision:
    return Deny(Rule.KEY, "card keys are not used freely, neither to sign nor to decrypt nor to agree")


_NAMED: Final = {
    c.DISCOVERY: o.Act.DISCOVERY,
    c.PAIRING_CODE: o.Act.PAIRING_CODE,
    c.SM_SIGNER: o.Act.SM_SIGNER,
}
_SLOT_OF: Final = {tag: slot for slot, tag in c.CERTIFICATES.items()}

_RULES: Final[dict[type[Any], Callable[[State, Any, object], Decision]]] = {
    i.Select: _select,
    i.Read: _read,
    i.Ask: _free,
    i.Forget: _free,
    i.Authenticate: _authenticate,
    i.Generate: _generate,
    i.Import: _import,
    i.Put: _put,
    i.Manager: _manager,
    i.Move: _move,
    i.Retries: _retries,
    i.ResetAll: _reset,
    i.Statement: _statement,
    i.Channel: _channel,
    i.Sealed: _sealed,
    VerifyPin: _pin(o.EnterPin, "entering the PIN"),
    SetPin: _pin(o.ChangePin, "changing the PIN"),
    Unblock: _unblock,
    SetPuk: _set_puk,
    Block: _block,
    Prove: _prove,
    SignRequest: _sign_request,
    SignIn: _sign_in,
    UseKey: _use_key,
}
"""The table: every intent has its rule, and the readers of ``intents`` make no other."""
