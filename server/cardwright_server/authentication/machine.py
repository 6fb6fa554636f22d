"""The machine of one method of one person: enabled, locked after failures, to be set anew."""

from __future__ import annotations

from enum import StrEnum

from ..machine import Actor, Machine, Transition


class MethodState(StrEnum):
    """Whether attempts are taken."""

    ENABLED = "enabled"
    LOCKED = "locked"
    RESET_REQUIRED = "reset-required"
    """The old secret is gone; the person must set a new one, proved by another method."""


class MethodEvent(StrEnum):
    """What happens to a method."""

    BEGIN = "begin"
    EXHAUST = "exhaust"
    RECOVER = "recover"
    UNLOCK = "unlock"
    RESET = "reset"
    SET = "set"
    GIVE = "give"


_SERVER = frozenset({Actor.SERVER})
_TIMER = frozenset({Actor.TIMER})
_HELP = frozenset({Actor.HELP_DESK})
_USER = frozenset({Actor.USER})
_GIVERS = frozenset({Actor.ISSUANCE, Actor.HELP_DESK})

_E, _S = MethodEvent, MethodState

METHOD = Machine(
    "authentication method",
    MethodState,
    MethodEvent,
    [
        Transition(None, _E.BEGIN, _S.ENABLED, _SERVER, note="the first attempt"),
        Transition(_S.ENABLED, _E.EXHAUST, _S.LOCKED, _SERVER, note="too many failures; other methods go on"),
        Transition(_S.LOCKED, _E.RECOVER, _S.ENABLED, _TIMER, note="where the lock ends by itself"),
        Transition(_S.LOCKED, _E.UNLOCK, _S.ENABLED, _HELP, note="the secret stays: a directory's password"),
        Transition(_S.LOCKED, _E.RESET, _S.RESET_REQUIRED, _HELP, note="answers are removed"),
        Transition(_S.ENABLED, _E.RESET, _S.RESET_REQUIRED, _HELP, note="answers are removed"),
        Transition(_S.RESET_REQUIRED, _E.RESET, _S.RESET_REQUIRED, _HELP),
        Transition(_S.RESET_REQUIRED, _E.SET, _S.ENABLED, _USER),
        Transition(_S.LOCKED, _E.SET, _S.ENABLED, _USER, note="new answers, proved by the card"),
        Transition(_S.ENABLED, _E.SET, _S.ENABLED, _USER),
        Transition(_S.LOCKED, _E.GIVE, _S.ENABLED, _GIVERS, note="a new password replaces the locked one"),
        Transition(_S.ENABLED, _E.GIVE, _S.ENABLED, _GIVERS),
    ],
)
