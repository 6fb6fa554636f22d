"""From the documents of a plan and of the card it is for to the permit: what the workstation shows and then allows.

It reads the JSON forms that travel and that people are shown, with its own tables: no code of the planner is
shared. Whatever is not known here has no permit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from ..errors import CardwrightError
from . import constants as c
from . import operations as o
from .permit import Entry, Identity, Permit, digest_of
from .state import UNREAD

FORMAT: Final = 1
PUK_TRIES: Final = 4
"""Attempts with candidates for the PUK; the card's own counter and the tries guard may allow fewer."""
MANAGE_TRIES: Final = 4
"""Attempts with candidates for the management key, of each algorithm that it may have."""

_PIN_POLICIES: Final = {"default": 0, "never": 1, "once": 2, "always": 3, "match_once": 4, "match_always": 5}
_TOUCH_POLICIES: Final = {"default": 0, "never": 1, "always": 2, "cached": 3}
_NAMED: Final = {
    c.DISCOVERY: o.Act.DISCOVERY,
    c.PAIRING_CODE: o.Act.PAIRING_CODE,
    c.SM_SIGNER: o.Act.SM_SIGNER,
}
_WIPE, _LOCK = "reset-card", "lock-card"
_ALONE: Final = frozenset((_WIPE, _LOCK))
"""Steps of operations of their own, which hold nothing else. They need neither management key nor PIN."""
_SECRETS_OF_THE_PERSON: Final = frozenset(("set-puk", "set-pin"))
_FIRST: Final = _SECRETS_OF_THE_PERSON | {"set-retries", "generate-key"}
"""Steps that come before all others, in any order among themselves: keys are made while the server has nothing yet
to write, and a PIN is asked for when it is needed."""

Document = Mapping[str, Any]


class PreviewUnfit(CardwrightError):
    """A plan that cannot be shown, so cannot be permitted: unknown, for another card, or hiding what it does."""

    code = "PREVIEW_UNFIT"
    default_effect = "Nothing was sent to the card."
    default_advice = "Update both sides and start again. If it happens again, the server is defective or hostile."


def identity_of(inventory: Document) -> Identity:
    """Who the card is, by the document of an inventory that this workstation read. Raises PreviewUnfit."""
    try:
        told = inventory["identity"]
        key = next((row for row in inventory["keys"] if int(row["slot"], 16) == c.CARD_AUTHENTICATION), None)
        return Identity(
            None if told["guid"] is None else UUID(told["guid"]).bytes,
            int(told["serial"]) if told["serial"] else None,
            (bytes.fromhex(key["public_key"]) or None) if key is not None else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PreviewUnfit("This inventory cannot be read.") from error


def permit_for(
    plan: Document,
    inventory: Document,
    *,
    contents: Mapping[int, bytes] = MappingProxyType({}),
    confirmed: frozenset[o.Act] = frozenset(),
    wipes: bool = False,
    locks: bool = False,
) -> Permit:
    """The permit for the plan of one card.

    ``inventory`` is what this workstation read from that card. ``contents`` has the SHA-256 of the content of every
    object that the plan writes, by tag, as the preview shows it. ``confirmed`` are the acts that the person has typed
    the confirmation for; ``Permit.acts`` says which there are. ``wipes``: an operation was asked for that erases the
    card and does nothing else; ``locks``: one that locks it. No other may hold a step that does. Raises PreviewUnfit.
    """
    try:
        if plan["format"] != FORMAT or inventory["format"] != FORMAT:
            raise PreviewUnfit("The plan or the inventory is of another format.")
        if plan["card"] != inventory["identity"]:
            raise PreviewUnfit("The plan is for another card than the one in the reader.")
        keys = {
            int(row["slot"], 16): bytes.fromhex(row["fingerprint"]) or UNREAD
            for row in inventory["keys"]
        }
        card = _Card(keys, {int(row["slot"], 16): row["key"] for row in inventory["certificates"]})
        steps = list(plan["steps"])
        kinds = [step["kind"] for step in steps]
        for alone, wanted, done in ((_WIPE, wipes, "erased"), (_LOCK, locks, "locked")):
            if not (kinds in ([], [alone]) if wanted else alone not in kinds):
                raise PreviewUnfit(f"A card is {done} in an operation of its own, and nothing else is done in that.")
        ranked = [
            entry
            for place, step in enumerate(steps)
            for entry in _entries(step, 0 if step["kind"] in _FIRST else 1 + place, card, contents)
        ]
        free = list(_free(steps, inventory["management_key"]["algorithm"]))
        return Permit(digest_of(plan), (*ranked, *free), MappingProxyType(keys), confirmed)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PreviewUnfit("The plan or the inventory cannot be read.") from error


class _Card:
    """Keys and certified keys of the card, by slot."""

    def __init__(self, keys: Mapping[int, bytes], certified: Mapping[int, str]) -> None:
        self.keys = keys
        self.certified = certified

    def replaced(self, slot: int, named: str) -> bytes | None:
        """The fingerprint of the key that goes. Raises PreviewUnfit where the plan does not name it.

        A key without a certificate is in nobody's use: it is overwritten without being named.
        """
        there = self.keys.get(slot)
        if there is None:
            if named:
                raise PreviewUnfit(f"The plan overwrites a key in slot {slot:02X} that is not there.")
            return None
        if there == UNREAD:
            raise PreviewUnfit(f"The key in slot {slot:02X} cannot be read, so it is not overwritten.")
        in_use = self.certified.get(slot) == there.hex()
        if named != there.hex() and (named or in_use):
            raise PreviewUnfit(f"The plan does not name the key in slot {slot:02X} that it overwrites.")
        return there


def _entries(step: Document, rank: int, card: _Card, contents: Mapping[int, bytes]) -> Iterator[Entry]:
    """The entries of one step."""
    known = _STEPS.get(step["kind"])
    if known is None or step.keys() != {"kind", *known[1]}:
        raise PreviewUnfit("The plan has a step of a kind that this workstation does not know.")
    yield from known[0](step, rank, card, contents)


def _set_puk(step: Document, rank: int, card: _Card, contents: Mapping[int, bytes]) -> Iterator[Entry]:
    yield Entry(o.ChangePuk(), rank, PUK_TRIES)


def _set_pin(step: Document, rank: int, card: _Card, contents: Mapping[int, bytes]) -> Iterator[Entry]:
    yield Entry(o.UnblockPin(), rank, PUK_TRIES)


def _set_retries(step: Document, rank: int, card: _Card, contents: Mapping[int, bytes]) -> Iterator[Entry]:
    yield Entry(o.SetRetries(int(step["pin"]), int(step["puk"])), rank)
    yield Entry(o.ChangePuk(), rank)
    yield Entry(o.UnblockPin(), rank)


def _set_management_key(step: Document, rank: int, card: _Card, contents: Mapping[int, bytes]) -> Iterator[Entry]:
    yield Entry(o.SetManagementKey(int(step["algorithm"], 16), bool(step["touch"])), rank)


def _generate_key(step: Document, rank: int, card: _Card, contents: Mapping[int, bytes]) -> Iterator[Entry]:
    slot, algorithm, pin, touch = _key(step)
    yield Entry(o.MakeKey(slot, algorithm, pin, touch, card.replaced(slot, step["replaces"])), rank)


def _import_key(step: Document, rank: int, card: _Card, contents: Mapping[int, bytes]) -> Iterator[Entry]:
    slot, algorithm, pin, touch = _key(step)
    key = bytes.fromhex(step["key"]) or None
    yield Entry(o.ImportKey(slot, algorithm, pin, touch, card.replaced(slot, step["replaces"]), key), rank)


def _write_certificate(step: Document, rank: int, card: _Card, contents: Mapping[int, bytes]) -> Iterator[Entry]:
    # It may be pending when the session ends, and then the steps after it are done without it.
    yield Entry(o.PutCertificate(_slot(step)), rank, optional=True)


def _write_object(step: Document, rank: int, card: _Card, contents: Mapping[int, bytes]) -> Iterator[Entry]:
    tag = int(step["tag"], 16)
    digest = contents.get(tag)
    if digest is None:
        raise PreviewUnfit(f"The plan writes object {tag:X} without saying what.")
    act = _NAMED.get(tag)
    yield Entry(o.PutObject(tag, digest) if act is None else o.PutNamed(act, digest), rank)


def _delete_key(step: Document, rank: int, card: _Card, contents: Mapping[int, bytes]) -> Iterator[Entry]:
    slot = _slot(step)
    if (gone := card.replaced(slot, step["key"])) is None:
        raise PreviewUnfit(f"The plan deletes a key in slot {slot:02X} that is not there.")
    yield Entry(o.DeleteKey(slot, gone), rank)


def _leave_key(step: Document, rank: int, card: _Card, contents: Mapping[int, bytes]) -> Iterator[Entry]:
    slot, key = _slot(step), bytes.fromhex(step["key"])
    if not key or card.keys.get(slot) != key:
        raise PreviewUnfit(f"The plan leaves a key to the archive that is not in slot {slot:02X}.")
    yield Entry(o.LoseKey(slot, key), None)


def _reset_card(step: Document, rank: int, card: _Card, contents: Mapping[int, bytes]) -> Iterator[Entry]:
    yield Entry(o.Block(c.PIN), rank)
    yield Entry(o.Block(c.PUK), rank)
    yield Entry(o.Reset(), rank)


def _lock_card(step: Document, rank: int, card: _Card, contents: Mapping[int, bytes]) -> Iterator[Entry]:
    yield Entry(o.Lock(), rank)


_Reader = Callable[[Document, int, _Card, Mapping[int, bytes]], Iterator[Entry]]
_KEY_FIELDS: Final = ("slot", "algorithm", "pin_policy", "touch_policy", "replaces")
_STEPS: Final[dict[str, tuple[_Reader, tuple[str, ...]]]] = {
    "set-puk": (_set_puk, ()),
    "set-pin": (_set_pin, ()),
    "set-retries": (_set_retries, ("pin", "puk")),
    "set-management-key": (_set_management_key, ("algorithm", "touch")),
    "generate-key": (_generate_key, _KEY_FIELDS),
    "import-key": (_import_key, (*_KEY_FIELDS, "key")),
    "write-certificate": (_write_certificate, ("slot", "algorithm", "profile", "key")),
    "write-object": (_write_object, ("tag",)),
    "delete-key": (_delete_key, ("slot", "key")),
    "leave-key": (_leave_key, ("slot", "key")),
    _WIPE: (_reset_card, ()),
    _LOCK: (_lock_card, ()),
}
"""The steps that can be shown, each with all its fields."""


def _free(steps: list[Document], algorithm: str | None) -> Iterator[Entry]:
    """What the steps need at no fixed place: management key, PIN, requests of the keys that are made."""
    kinds = {step["kind"] for step in steps}
    if kinds - _SECRETS_OF_THE_PERSON - _ALONE:
        algorithms = c.BLOCK_OCTETS if algorithm is None else (int(algorithm, 16),)
        yield from (Entry(o.Manage(one), None, MANAGE_TRIES) for one in algorithms)
    written = {_slot(step) for step in steps if step["kind"] == "write-certificate"}
    made = [_key(step) for step in steps if step["kind"] == "generate-key"]
    to_sign = [(slot, pin or c.default_pin_policy(slot)) for slot, _, pin, _ in made if slot in written]
    yield from (Entry(o.RequestCertificate(slot), None) for slot, _ in to_sign)
    each = sum(pin in (c.PIN_ALWAYS, c.MATCH_ALWAYS) for _, pin in to_sign)
    # A PIN that the card keeps is verified before a key is made over another, whenever that one will want it.
    kept = not kinds & {"set-puk", "set-pin", "set-retries"}
    once = any(pin in (c.PIN_ONCE, c.MATCH_ONCE) for _, pin in to_sign) or (kept and each > 0)
    pins = each + once + ("set-retries" in kinds)
    if pins:
        yield Entry(o.EnterPin(), None, pins)


def _slot(step: Document) -> int:
    slot = int(step["slot"], 16)
    if slot not in c.SLOTS:
        raise PreviewUnfit(f"There is no slot {slot:02X}.")
    return slot


def _key(step: Document) -> tuple[int, int, int, int]:
    """Slot, algorithm, PIN policy, touch policy."""
    pin, touch = _PIN_POLICIES[step["pin_policy"]], _TOUCH_POLICIES[step["touch_policy"]]
    return _slot(step), int(step["algorithm"], 16), pin, touch
