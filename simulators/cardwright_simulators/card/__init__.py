"""A virtual smart card with the PIV application, complete enough that other people's tools take it for a real one.

``VirtualCard(profile).transmit(command)`` is the whole card edge. Profiles are data (``PROFILES``); the persistent
state lives in a ``Store``; ``card.log`` is an independent witness of what happened inside.
"""

from .card import UnknownProfile, VirtualCard, WrongProfile
from .keypool import KeyPool
from .log import KeyUse, ManagementAuthentication, ProtectedRead, Record, Selected, Verify, Write
from .profiles import PROFILES, Profile
from .state import CardState, StateDamaged
from .store import FileStore, MemoryStore, Store
from .timing import DURATIONS, Durations, Timing

__all__ = [
    "DURATIONS",
    "PROFILES",
    "CardState",
    "Durations",
    "FileStore",
    "KeyPool",
    "KeyUse",
    "ManagementAuthentication",
    "MemoryStore",
    "Profile",
    "ProtectedRead",
    "Record",
    "Selected",
    "StateDamaged",
    "Store",
    "Timing",
    "UnknownProfile",
    "Verify",
    "VirtualCard",
    "Write",
    "WrongProfile",
]
