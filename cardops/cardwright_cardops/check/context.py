"""What all parts of one check share: the card, the question, the objects read so far, the findings."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from cryptography import x509

from ..piv.containers import CHUID, CONTAINERS, Container
from ..piv.objects import AnyObject, Chuid
from .model import CardData, Finding, Level, Severity
from .profiles import Policies
from .rules import RULES

T = TypeVar("T")


@dataclass(slots=True)
class Context:
    """One check under way. The parts run one after another and add to ``findings``.

    ``contents``: container to what its codec takes, for containers that are there and not empty.
    ``objects``: container to what was decoded. ``certificates``: certificate container to certificate.
    ``signers``: container to the certificate that signed it and is judged there.
    """

    data: CardData
    level: Level
    at: datetime
    policies: Policies | None
    pool: tuple[x509.Certificate, ...]
    contents: dict[Container, bytes] = field(default_factory=dict)
    objects: dict[Container, AnyObject] = field(default_factory=dict)
    certificates: dict[Container, x509.Certificate] = field(default_factory=dict)
    signers: dict[Container, x509.Certificate] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def report(self, code: str, container: Container | int | None, message: str) -> None:
        """Add a finding, unless its rule is silent at this level. ``message`` never holds personal content.

        ``container`` None: it is about the card as a whole.
        """
        rule = RULES[code]
        severity = rule.severity(self.level)
        if severity is None:
            return
        tag = container.tag if isinstance(container, Container) else container
        finding = Finding(code, severity, "" if tag is None else f"{tag:X}", message, rule.reference)
        if finding not in self.findings:
            self.findings.append(finding)

    def get(self, container: Container, kind: type[T]) -> T | None:
        """The decoded object of ``container``, None when it is absent or damaged."""
        seen = self.objects.get(container)
        return seen if isinstance(seen, kind) else None

    @property
    def chuid(self) -> Chuid | None:
        """The CHUID, if it could be read."""
        return self.get(CHUID, Chuid)

    def is_there(self, container: Container) -> bool:
        """Whether the card has the container with something inside, read or not."""
        tag = container.tag
        return container in self.contents or (tag in self.data.objects and self.data.objects[tag] is None)

    def sorted_findings(self) -> tuple[Finding, ...]:
        """By object in the order of the data model, then by severity, then as found."""
        order = {f"{tag:X}": place for place, tag in enumerate(CONTAINERS)}
        ranks = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}
        return tuple(sorted(self.findings, key=lambda each: (order.get(each.object, len(order)), ranks[each.severity])))
