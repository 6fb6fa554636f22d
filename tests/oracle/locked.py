"""The judge of a card that was locked, and of the books about it; imports nothing that it judges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from uuid import UUID

from .books import Books
from .server import ENDED, Scene, Told, _archive, _chain, _goal_card, _medium, _recorded, _secrets, _signed

PIN, PUK = "80", "81"


def _locked(scene: Scene) -> list[str]:
    references = scene.memory["references"]
    wrong = [f"the PIN has {references[PIN]['tries']} tries"] if references[PIN]["tries"] else []
    if references[PUK]["tries"] != references[PUK]["maximum"]:
        wrong.append(f"the PUK has {references[PUK]['tries']} of {references[PUK]['maximum']} tries")
    return wrong


def _held(scene: Scene) -> list[str]:
    states = sorted({row["state"] for row in scene.index})
    return [] if states == ["held"] else [f"certificates are {states}"]


def _states(scene: Scene) -> list[str]:
    """The device is suspended and known to be locked, nothing is to be done, nobody works on it."""
    wrong, device = [], scene.device
    if (device["state"], device["session"], bool(device["card_locked"])) != ("suspended", None, True):
        wrong.append(f"the device is {device['state']}, locked: {device['card_locked']}")
    if any(row["what"] in ("lock", "unlock") for row in scene.books.of("device_due", device=device["id"])):
        wrong.append("it is still due")
    if [row["reason"] for row in scene.books.of("device_hold", device=device["id"])] != ["operator"]:
        wrong.append("the hold is another one")
    sessions = scene.books.of("card_session", device=device["id"])
    if sessions[-1]["state"] != "done" or any(row["state"] not in ENDED for row in sessions):
        wrong.append(f"the sessions are {[row['state'] for row in sessions]}")
    for row in scene.books.of("lease", name=f"card:{UUID(device['id'])}"):
        if datetime.fromisoformat(row["until"]).replace(tzinfo=UTC) > scene.told.now:
            wrong.append("the card is still held by a session")
    actions = [row["action"] for row in scene.books.of("audit_entry", target=device["id"])]
    if actions.count("device.card-locked") != 1:
        wrong.append("the audit does not say once that the card was locked")
    return wrong


INVARIANTS: Mapping[str, Callable[[Scene], list[str]]] = {
    "the PIN is blocked, and the PUK lost no try": _locked,
    "keys, certificates and names on the card fit together": _goal_card,
    "PIN, PUK and management key are those that they were": _secrets,
    "every certificate is on hold": _held,
    "nothing is signed that was not recorded before": _signed,
    "nothing on the card is missing from the archive": _archive,
    "nothing grave is missing on the second medium": _medium,
    "what is on the card is recorded": _recorded,
    "the device is suspended and locked, and nobody works on it": _states,
    "the audit chain is valid": _chain,
}


def judge_locked(snapshot: bytes, books: Books, told: Told) -> list[str]:
    """Everything that is wrong, in words; nothing for a good end."""
    scene = Scene(snapshot, books, told)
    return [f"{name}: {text}" for name, rule in INVARIANTS.items() for text in rule(scene)]


def tried_too_early(before: bytes, now: bytes, books: Books, device: UUID) -> list[str]:
    """What is wrong at a moment of the way: no try of the PIN may go before the books say that the card may be locked,
    and nothing else of the card may ever be another.
    """
    told = Told(device, b"", datetime.now(UTC))
    old, new = Scene(before, books, told), Scene(now, books, told)
    wrong = []
    names = ("management", "keys", "objects")
    same = all(old.memory[name] == new.memory[name] for name in names)
    if not same or old.memory["references"][PUK] != new.memory["references"][PUK]:
        wrong.append("something else than the PIN is another")
    if old.memory["references"][PIN] != new.memory["references"][PIN] and not new.device["card_locked"]:
        wrong.append("the books do not say that the card may be locked")
    return wrong
