"""Is this card good? Findings with code, severity, object and the standard's section.

``check(load_image(path), level=Level.PIV, at=..., trust=..., crls=...)`` gives a Report; docs/findings.md
lists what it can say. It reads what it is given, talks to no card and fetches nothing.
"""

from __future__ import annotations

from .bundle import TrustUnreadable, load_certificates, load_crls, load_ocsp
from .image import ImageUnreadable, load_image, parse_image, same_key
from .model import CardData, Finding, Level, Proof, Report, Severity
from .profiles import POLICIES, Policies
from .rules import RULES, Rule
from .run import check

__all__ = [
    "POLICIES",
    "RULES",
    "CardData",
    "Finding",
    "ImageUnreadable",
    "Level",
    "Policies",
    "Proof",
    "Report",
    "Rule",
    "Severity",
    "TrustUnreadable",
    "check",
    "load_certificates",
    "load_crls",
    "load_image",
    "load_ocsp",
    "parse_image",
    "same_key",
]
