"""Which values a PIN, PUK or management key may have, in which order they are tried, and when to stop.

A factory value is used only when the card itself says that it is set, when an earlier session of ours recorded
that it was being replaced, or once for a card without CHUID that tells nothing.
"""

from __future__ import annotations

from ..errors import CardwrightError
from .capabilities import Backend
from .inventory import Inventory, SecretState
from .records import DEFAULT, FACTORY, Candidates

GIVEN = "given"
"""The name of a value that the person gave for this session."""
_FOREIGN = frozenset((DEFAULT, GIVEN))


class ManagementKeyUnknown(CardwrightError):
    """No candidate is left for the management key."""

    code = "MANAGEMENT_KEY_UNKNOWN"
    default_effect = "Nothing on the card was changed."
    default_advice = "Give the key that was set when the card was made; 'card init' wrote it to its secrets file."

    def __init__(self) -> None:
        super().__init__("The management key of this card is not the factory's, and no other is known.")


class PukUnknown(CardwrightError):
    """The PUK has to be used, and no candidate may be tried."""

    code = "PUK_UNKNOWN"
    default_effect = "Nothing on the card was changed."
    default_advice = "Give the PUK that was set when the card was made."

    def __init__(self) -> None:
        super().__init__("The PUK of this card is not the factory's, and no other is known.")


class PukBlocked(CardwrightError):
    """The PUK has no tries left, so neither it nor the PIN can be set."""

    code = "PUK_BLOCKED"
    default_effect = "Nothing on the card was changed."
    default_advice = "The card has to be reset to its factory state, which erases it, or go back to its issuer."

    def __init__(self) -> None:
        super().__init__("The PUK of this card is blocked.")


def secret_is_due(state: SecretState, bound: bool, in_flight: bool, settled: bool, only_default_before: bool) -> bool:
    """Whether a secret has still to be changed from its factory value.

    What the card says comes first; then what was recorded; a silent card without CHUID is taken for fresh.
    """
    if state.is_default:
        return True
    if in_flight:
        return not (state.is_default is False and only_default_before)
    if settled or state.is_default is False:
        return False
    return not bound


def management_key_is_due(state: SecretState, bound: bool, recorded: Candidates) -> bool:
    """Whether the management key has still to be changed. ``recorded`` may name the value that worked last."""
    own = [name for name in recorded.names if name not in _FOREIGN]
    if state.is_default is None:
        return (not own and (bool(recorded.names) or not bound)) or (recorded.in_flight and bool(own))
    if state.is_default or not own:
        return state.is_default
    return recorded.in_flight and not set(recorded.names[1:]) <= {DEFAULT}


def management_candidates(
    inventory: Inventory, recorded: Candidates, backend: Backend, *, given: bool
) -> tuple[str, ...]:
    """Names of the values to try, first the likeliest. Raises ManagementKeyUnknown when there is none."""
    state = inventory.management_key
    names = _with_given(recorded, given)
    if state.is_default:
        names = (DEFAULT,)
    elif state.is_default is False:
        names = tuple(name for name in names if name != DEFAULT)
    elif not inventory.is_bound and not given and DEFAULT not in names:
        names += (DEFAULT,)
    guessed = state.is_default is None and set(recorded.names) <= {DEFAULT} and not recorded.settled
    if guessed and DEFAULT in recorded.refused:
        names = tuple(name for name in names if name != DEFAULT)
    if not names:
        raise ManagementKeyUnknown
    # What was refused once comes last: an answer can be damaged on its way, and this key has no try counter.
    return tuple(sorted(names, key=lambda name: name in recorded.refused))[: backend.management_attempts]


def puk_candidates(
    inventory: Inventory, recorded: Candidates, *, given: bool, target: str, factory: bool = False
) -> tuple[str, ...]:
    """Names of the values to try, first the newest. Raises PukBlocked, PukUnknown.

    ``target`` is the name of the PUK that shall be set. The person chose it, so it may be the one that is set
    already, if the card says that it is no longer the factory's. ``factory``: a card that came with a value of its own
    says that it has the maker's now, which is then the only one it can be.
    """
    state = inventory.puk
    if state.is_blocked:
        raise PukBlocked
    names = tuple(name for name in _with_given(recorded, given) if name != FACTORY)
    if state.is_default:
        names = (FACTORY if factory else DEFAULT,)
    elif state.is_default is False:
        names = tuple(name for name in names if name != DEFAULT) or (target,)
    elif not inventory.is_bound and not names:
        names = (DEFAULT,)
    if not names:
        raise PukUnknown
    return names


def _with_given(recorded: Candidates, given: bool) -> tuple[str, ...]:
    """The recorded names, with the one that the person gave where it was recorded, else first."""
    if not given:
        return tuple(name for name in recorded.names if name != GIVEN)
    return recorded.names if GIVEN in recorded.names else (GIVEN, *recorded.names)
