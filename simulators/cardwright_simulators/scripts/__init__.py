"""Declarative card scripts: what to send to a card and what has to come back, as data.

``run_script(script, connection, secrets)`` runs one on a virtual card or on any other; ``conformance()`` is the
card-edge conformance suite. docs/card-scripts.md describes the format.
"""

from __future__ import annotations

from .deviations import Deviation, deviations
from .model import Script, conformance, load, parse
from .runner import Connect, Result, ScriptChangesCard, ScriptNeedsInterface, StepResult, run_script
from .template import ScriptMalformed, ScriptValueMissing

__all__ = [
    "Connect",
    "Deviation",
    "Result",
    "Script",
    "ScriptChangesCard",
    "ScriptMalformed",
    "ScriptNeedsInterface",
    "ScriptValueMissing",
    "StepResult",
    "conformance",
    "deviations",
    "load",
    "parse",
    "run_script",
]
