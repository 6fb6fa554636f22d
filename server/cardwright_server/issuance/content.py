"""Signing what the issuer signs on a card, by the content signer of now (SP 800-73-5 part 1 section 3.1.2, 3.1.7).

A new signer comes first of those whose certificate ends last; objects by an older one stay valid until it ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from cryptography import x509

from cardwright_cardops.piv.content_signing import sign_chuid, sign_security_object
from cardwright_cardops.piv.objects.chuid import Chuid
from cardwright_cardops.piv.objects.security_object import SecurityObject
from cardwright_cardops.piv.signed import Signer

from ..store.unit import Unit
from ..vault.model import ContentKind
from ..vault.protocol import Vault
from ..vault.signing import VaultKey, build_content
from . import store
from .errors import NoSuchAuthority
from .model import Certificate, CertificateState, HolderKind, Purpose
from .service import active_authority


async def current_signer(unit: Unit, org: UUID, *, outlives: datetime | None = None) -> Certificate:
    """The certificate of the content signer to use now: of those in their time, the one that ends last.

    It must outlive ``outlives``, the end of the card's 9E certificate. Raises NoSuchAuthority.
    """
    authority = await active_authority(unit, org, Purpose.CARDS)
    found = await store.certificates_of_holder(unit, org, HolderKind.CONTENT_SIGNER, authority.id)
    end = outlives or unit.now
    for one in found:
        if one.state is CertificateState.GOOD and one.not_before <= unit.now and one.not_after >= end:
            return one
    raise NoSuchAuthority("there is no content signer that outlives the certificates of the card")


class ContentSigner:
    """Signs by one signer. Raises what the vault raises."""

    def __init__(self, vault: Vault, signer: Certificate) -> None:
        self._vault = vault
        self._name = signer.holder.part
        self.certificate: x509.Certificate = signer.x509

    async def chuid(self, chuid: Chuid) -> Chuid:
        """The CHUID with a signature that carries the signer's certificate."""
        return await build_content(
            self._vault, self._name, ContentKind.CHUID, lambda key: sign_chuid(chuid, self._signer(key))
        )

    async def security_object(self, answers: Mapping[int, bytes]) -> SecurityObject:
        """The Security Object over GET DATA answers by tag. Raises ValueError, MalformedTlv besides."""
        return await build_content(
            self._vault,
            self._name,
            ContentKind.SECURITY_OBJECT,
            lambda key: sign_security_object(answers, self._signer(key)),
        )

    def _signer(self, key: VaultKey) -> Signer:
        return Signer(self.certificate, key)
