"""Candidate paths from a certificate to the trust anchors, shortest first and never more than a check can try.

pyhanko-certvalidator walks every simple path there is, which among CAs that all certify each other grows with the
factorial of their number. Whoever wrote the certificates chose that number, so here it has a limit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from asn1crypto import x509 as asn1_x509
from pyhanko_certvalidator import ValidationContext
from pyhanko_certvalidator.authority import AuthorityWithCert, TrustAnchor
from pyhanko_certvalidator.errors import PathBuildingError
from pyhanko_certvalidator.path import ValidationPath
from pyhanko_certvalidator.util import CancelableAsyncIterator

MAX_CANDIDATES: Final = 64
"""Paths that reach an anchor."""
MAX_DEPTH: Final = 10
"""Certificates in a path, without the anchor's."""
MAX_STEPS: Final = 512
"""Beginnings of paths that are looked at, whether or not they reach an anchor."""


class CandidatePaths(CancelableAsyncIterator[ValidationPath]):
    """The candidate paths of ``certificate`` with the anchors and helpers of ``validation``.

    No path holds the same subject and key twice. ``emitted`` counts what was handed out; ``cut`` says that a limit
    left candidates out. Raises PathBuildingError at the end when there was none.
    """

    def __init__(self, certificate: asn1_x509.Certificate, validation: ValidationContext) -> None:
        self.emitted = 0
        self.cut = False
        self._builder = validation.path_builder
        self._paths = self._walk(certificate)

    def __aiter__(self) -> CandidatePaths:
        return self

    async def __anext__(self) -> ValidationPath:
        for path in self._paths:
            self.emitted += 1
            return path
        if not self.emitted:
            raise PathBuildingError("no path leads to a trust anchor")
        raise StopAsyncIteration

    async def cancel(self) -> None:
        """There is nothing under way."""

    def _walk(self, certificate: asn1_x509.Certificate) -> Iterator[ValidationPath]:
        trust = self._builder.trust_manager
        own = trust.as_trust_anchor(AuthorityWithCert(certificate))
        if own is not None:
            yield ValidationPath(own, [], None)
            return
        found = steps = 0
        begun: deque[tuple[asn1_x509.Certificate, ...]] = deque([(certificate,)])
        while begun:
            chain = begun.popleft()
            steps += 1
            seen = {_identity(each) for each in chain}
            for issuer in self._builder.registry.find_potential_issuers(chain[-1], trust):
                if isinstance(issuer, TrustAnchor):
                    if found == MAX_CANDIDATES:
                        self.cut = True
                        return
                    found += 1
                    yield ValidationPath(issuer, list(chain[:0:-1]), certificate)
                elif _identity(issuer) in seen:
                    continue
                elif len(chain) == MAX_DEPTH or steps + len(begun) >= MAX_STEPS:
                    self.cut = True
                else:
                    begun.append((*chain, issuer))


def _identity(certificate: asn1_x509.Certificate) -> tuple[bytes, bytes]:
    return certificate.subject.dump(), certificate.public_key.dump()
