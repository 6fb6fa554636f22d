"""The guard: what a relayed batch may do to a card, judged against what the person saw and agreed to.

It shares no code with the programs it judges: it has its own constants, its own readers and its own arithmetic.
The rules are in docs/guard.md.
"""

from .executor import GuardedExecutor, GuardRefused
from .judge import Allowed, begin, judge, observe
from .operations import Act, Operation
from .permit import Entry, Identity, Permit, covers, digest_of, in_order
from .present import present_identity
from .state import State
from .verdict import Deny, Rule

__all__ = [
    "Act",
    "Allowed",
    "Deny",
    "Entry",
    "GuardRefused",
    "GuardedExecutor",
    "Identity",
    "Operation",
    "Permit",
    "Rule",
    "State",
    "begin",
    "covers",
    "digest_of",
    "in_order",
    "judge",
    "observe",
    "present_identity",
]
