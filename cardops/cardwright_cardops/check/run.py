"""The check as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509

from . import biometrics, certificates, identity, security_object, structure
from .context import Context
from .model import CardData, Level, Report
from .profiles import POLICIES, Policies


def check(
    card: CardData,
    *,
    level: Level = Level.BASIC,
    at: datetime,
    trust: Sequence[x509.Certificate] = (),
    crls: Sequence[bytes] = (),
    ocsp: Sequence[bytes] = (),
    policies: Policies | None = None,
) -> Report:
    """Check what is on a card against itself, the data model and the profiles of ``level``, as of ``at``.

    ``at`` carries a time zone. ``trust``: trust anchors (self-signed) and further certificates, CAs' and
    content signers', that help to find signers and paths. ``crls`` and ``ocsp``: DER. Nothing is fetched.
    ``policies`` overrides those of the level. One damaged object never hides the others.
    Raises ValueError for a time without zone, TrustUnreadable for revocation data that cannot be read.
    """
    if at.tzinfo is None:
        raise ValueError("the time of a check needs a time zone")
    context = Context(card, level, at, policies or POLICIES.get(level), tuple(trust))
    structure.check(context)
    identity.check_chuid(context)
    security_object.check(context)
    biometrics.check(context)
    certificates.check(context)
    identity.check_rest(context)
    if trust or crls or ocsp or level is not Level.BASIC:
        # Only here, because pyhanko-certvalidator takes longer to import than a whole check without paths.
        from . import paths

        paths.check(context, trust, crls, ocsp)
    return Report(level, at, context.sorted_findings(), tuple(f"{tag:X}" for tag in card.objects))
