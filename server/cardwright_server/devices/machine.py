"""The machine of devices, as one table."""

from __future__ import annotations

from ..machine import Actor, Machine, Transition
from .model import WITH_CREDENTIALS, DeviceEvent, DeviceState

_Row = Transition[DeviceState, DeviceEvent]
_S, _E = DeviceState, DeviceEvent

USER = frozenset({Actor.USER})
DESK = frozenset({Actor.HELP_DESK, Actor.ISSUANCE, Actor.SERVICE})
ISSUER = frozenset({Actor.ISSUANCE, Actor.SERVICE})
SERVER = frozenset({Actor.SERVER})
TIMER = frozenset({Actor.TIMER})

_END = ("revoke_credentials", "close_requests", "forget_due")
_OUT_OF_USE = ("hold_credentials", "withdraw_unlock")
_BACK = ("release_credentials", "give_card_back")
_OVER = (*_END, "tell_that_it_is_over")
"""A card of which somebody may still have hopes: its holder is told when it is inserted."""

ROWS: tuple[_Row, ...] = (
    _Row(None, _E.REGISTER, _S.STOCK, ISSUER),
    _Row(_S.STOCK, _E.BIND, _S.ASSIGNED, ISSUER | USER, guard="may_be_bound"),
    _Row(_S.ASSIGNED, _E.UNBIND, _S.STOCK, ISSUER | SERVER, effects=("close_requests",)),
    _Row(_S.STOCK, _E.DISPOSE, _S.DISPOSED, ISSUER, note="defective before it was anybody's"),
    # Production.
    _Row(_S.ASSIGNED, _E.START, _S.IN_PRODUCTION, ISSUER | USER, guard="request_is_executing"),
    _Row(
        _S.IN_PRODUCTION,
        _E.START,
        _S.IN_PRODUCTION,
        ISSUER | USER,
        guard="request_goes_on",
        note="a new session goes on where the lost one ended",
    ),
    _Row(_S.FAILED, _E.START, _S.IN_PRODUCTION, ISSUER | USER, guard="request_is_executing", note="retry"),
    _Row(_S.IN_PRODUCTION, _E.INTERRUPT, _S.IN_PRODUCTION, SERVER | TIMER),
    _Row(
        _S.IN_PRODUCTION,
        _E.ISSUE,
        _S.ISSUED,
        SERVER,
        guard="read_back_matches",
        effects=("activate_credentials", "settle_due", "settle_replacement"),
    ),
    _Row(
        _S.IN_PRODUCTION,
        _E.PRODUCE,
        _S.PRODUCED,
        SERVER,
        guard="read_back_matches",
        effects=("settle_due", "ask_for_activation"),
        note="where the policy wants that its holder activates it, and it was written by another",
    ),
    _Row(_S.IN_PRODUCTION, _E.FAIL, _S.FAILED, SERVER | TIMER, effects=("revoke_new_credentials",)),
    _Row(
        _S.PRODUCED,
        _E.ACTIVATE,
        _S.ISSUED,
        USER,
        effects=("activate_credentials", "settle_activation", "settle_replacement"),
    ),
    _Row(_S.PRODUCED, _E.LAPSE, _S.TERMINATED, TIMER, guard="not_activated_in_time", effects=_OVER),
    # Suspension: one hold for each reason.
    _Row(_S.ISSUED, _E.SUSPEND, _S.SUSPENDED, DESK | SERVER, effects=("add_hold", *_OUT_OF_USE, "order_lock")),
    _Row(_S.UPDATING, _E.SUSPEND, _S.SUSPENDED, DESK | SERVER, effects=("add_hold", *_OUT_OF_USE, "order_lock")),
    _Row(_S.SUSPENDED, _E.SUSPEND, _S.SUSPENDED, DESK | SERVER, effects=("add_hold", *_OUT_OF_USE, "order_lock")),
    _Row(_S.INVALID, _E.SUSPEND, _S.INVALID, DESK | SERVER, effects=("add_hold", *_OUT_OF_USE, "order_lock")),
    _Row(
        _S.SUSPENDED,
        _E.RESUME,
        _S.ISSUED,
        DESK | SERVER,
        guard="is_the_last_hold",
        effects=("remove_hold", *_BACK),
    ),
    _Row(_S.SUSPENDED, _E.RESUME, _S.SUSPENDED, DESK | SERVER, guard="is_held_so", effects=("remove_hold",)),
    _Row(_S.INVALID, _E.RESUME, _S.INVALID, DESK | SERVER, guard="is_held_so", effects=("remove_hold",)),
    # Updates.
    _Row(_S.ISSUED, _E.START_UPDATE, _S.UPDATING, DESK | USER, guard="request_is_executing"),
    _Row(_S.UPDATING, _E.START_UPDATE, _S.UPDATING, DESK | USER, guard="request_goes_on", note="as in production"),
    _Row(_S.UPDATING, _E.INTERRUPT, _S.UPDATING, SERVER | TIMER),
    _Row(
        _S.UPDATING,
        _E.UPDATE,
        _S.ISSUED,
        SERVER,
        guard="read_back_matches",
        effects=("activate_credentials", "settle_due"),
    ),
    _Row(_S.UPDATING, _E.FAIL_UPDATE, _S.ISSUED, SERVER | TIMER, guard="card_is_consistent"),
    _Row(
        _S.UPDATING,
        _E.FAIL_UPDATE,
        _S.INVALID,
        SERVER | TIMER,
        effects=("revoke_new_credentials", *_OUT_OF_USE),
        note="reason failed; the help desk is told",
    ),
    # Incidents and replacement.
    *(
        _Row(state, _E.REPORT_INCIDENT, _S.INVALID, DESK | USER, effects=(*_OUT_OF_USE, "revoke_in_time"))
        for state in (_S.ISSUED, _S.UPDATING, _S.SUSPENDED)
    ),
    _Row(
        _S.INVALID,
        _E.REPORT_INCIDENT,
        _S.INVALID,
        DESK | USER,
        guard="is_graver",
        effects=(*_OUT_OF_USE, "revoke_in_time"),
        note="forgotten turns out to be lost",
    ),
    _Row(
        _S.INVALID,
        _E.RESTORE,
        _S.ISSUED,
        DESK | USER | SERVER,
        guard="may_return",
        effects=_BACK,
    ),
    _Row(
        _S.INVALID,
        _E.RESTORE,
        _S.SUSPENDED,
        DESK | USER | SERVER,
        guard="may_return_held",
        note="it was suspended before, and still is",
    ),
    *(
        _Row(
            state,
            _E.EXPIRE,
            _S.TERMINATED,
            TIMER,
            guard="temporary_has_expired",
            effects=(*_OVER, "restore_original"),
        )
        for state in (_S.ISSUED, _S.UPDATING, _S.SUSPENDED)
    ),
    *(
        _Row(state, _E.EXPIRE, _S.INVALID, TIMER, guard="has_expired", effects=_OUT_OF_USE)
        for state in (_S.ISSUED, _S.UPDATING, _S.SUSPENDED)
    ),
    *(
        _Row(state, _E.REPLACE, _S.TERMINATED, SERVER, effects=_OVER, note="its permanent replacement is issued")
        for state in (_S.ISSUED, _S.UPDATING, _S.SUSPENDED, _S.INVALID)
    ),
    _Row(
        _S.INVALID,
        _E.REVOKE,
        _S.TERMINATED,
        TIMER,
        guard="revocation_cannot_wait",
        effects=_OVER,
        note="compliance = piv: within 18 hours of the report (FIPS 201-3 section 2.9.4)",
    ),
    # The end.
    *(
        _Row(
            state,
            _E.TERMINATE,
            _S.TERMINATED,
            frozenset({Actor.HELP_DESK, Actor.SERVICE, Actor.SERVER}),
            guard="second_person_agrees",
            effects=(*_OVER, "restore_original"),
        )
        for state in DeviceState
        if state in WITH_CREDENTIALS
    ),
    _Row(
        _S.FAILED,
        _E.RECYCLE,
        _S.STOCK,
        ISSUER | SERVER,
        effects=(*_END, "forget_holds"),
        note="somebody wiped it elsewhere",
    ),
    _Row(
        _S.FAILED,
        _E.START_RECYCLE,
        _S.TERMINATED,
        ISSUER | SERVER,
        guard="recycle_is_executing",
        effects=_END,
        note="what is on the card goes now; it is not issued as it is any more",
    ),
    _Row(
        _S.TERMINATED,
        _E.START_RECYCLE,
        _S.TERMINATED,
        ISSUER | SERVER,
        guard="recycle_is_executing",
        effects=("revoke_credentials",),
        note="its certificates are revoked before anything is erased",
    ),
    _Row(_S.TERMINATED, _E.INTERRUPT, _S.TERMINATED, SERVER | TIMER),
    _Row(
        _S.TERMINATED,
        _E.RECYCLE,
        _S.STOCK,
        ISSUER | SERVER,
        guard="may_be_used_again",
        effects=("close_requests", "forget_due", "forget_holds"),
    ),
    _Row(
        _S.TERMINATED,
        _E.DISPOSE,
        _S.DISPOSED,
        ISSUER,
        guard="nobody_works_on_it",
        effects=("close_requests", "forget_due"),
    ),
)

DEVICE = Machine("device", DeviceState, DeviceEvent, ROWS)
