"""In which part a caller moves a machine: from the permission that authorization gave."""

from __future__ import annotations

from .authentication.authorize import Permission
from .authentication.principal import PrincipalKind
from .machine import Actor, E, IllegalTransition, Machine, S
from .people.model import Role

ACTORS = {
    Role.ISSUANCE: Actor.ISSUANCE,
    Role.HELP_DESK: Actor.HELP_DESK,
    Role.SECURITY_OFFICER: Actor.SECURITY_OFFICER,
    Role.ADMINISTRATOR: Actor.ADMINISTRATOR,
}
"""Parts of the roles that move machines; auditors only look."""


def parts(permission: Permission) -> tuple[Actor, ...]:
    """Every part that the caller may act in, for this call; empty for one who only looks."""
    match permission.principal.kind:
        case PrincipalKind.SYSTEM:
            return (Actor.SERVER,)
        case PrincipalKind.SERVICE:
            return (Actor.SERVICE,)
        case PrincipalKind.OPERATOR:
            held = {ACTORS[grant.role] for grant in permission.grants if grant.role in ACTORS}
            return tuple(actor for actor in Actor if actor in held)
        case _:
            return (Actor.USER,) if permission.own is not None else ()


def part_for(machine: Machine[S, E], state: S | None, event: E, permission: Permission) -> Actor:
    """The first part of the caller's that the machine has a row for. Raises IllegalTransition."""
    mine = parts(permission)
    for actor in mine:
        try:
            machine.candidates(state, event, actor)
        except IllegalTransition:
            continue
        return actor
    if mine:
        machine.candidates(state, event, mine[0])
    who = permission.principal.kind
    raise IllegalTransition(
        machine.name, state, event, who, known=any(row.event == event for row in machine.transitions)
    )
