"""Certificate profiles: versioned documents in TOML that say what a certificate of each kind holds.

A profile chooses within a rule of the vault (``rule``), the outer fence that only the passphrase holder moves. An
installation may put documents of its own over the shipped ones: a folder with files of the same form.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from cardwright_cardops.check.profiles import ANY_EXTENDED
from cardwright_cardops.piv.algorithms import Algorithm

from .errors import CertificateRefused, ProfileMalformed
from .model import HolderKind, Purpose

MAX_DOCUMENT = 64 * 1024
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=60, pattern=r"^[a-z0-9][a-z0-9-]*\Z")]
Oid = Annotated[str, msgspec.Meta(max_length=100, pattern=r"^[0-2](\.(0|[1-9][0-9]*))+\Z")]
NameKind = Literal["fascn", "card-uuid", "holder-uuid", "upn", "email", "principal", "dns", "ip", "uri"]
Usage = Literal[
    "digital_signature", "content_commitment", "key_encipherment", "key_agreement", "key_cert_sign", "crl_sign"
]
KeyName = Literal["rsa2048", "rsa3072", "rsa4096", "p256", "p384"]


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One document.

    ``civ`` names the profile that takes this one's place under policies that do not claim FIPS 201-3. ``subject``: of
    whom the name is made: ``person``, ``card`` (serial number only, no name of a person), ``machine``, or ``key`` (the
    subject that the vault's key has). ``policies`` are asserted; those in ``hardware`` only with proof that the key is
    in hardware (S1): without it the request is refused. ``within_signer``: the certificate does not outlive the
    content signer; ``within_card``: nor the card.
    """

    name: Name
    version: Annotated[int, msgspec.Meta(ge=1)]
    rule: Name
    purpose: Purpose
    holders: Annotated[tuple[HolderKind, ...], msgspec.Meta(min_length=1)]
    title: str = ""
    civ: Name | None = None
    subject: Literal["person", "card", "machine", "key"] = "person"
    days: Annotated[int, msgspec.Meta(ge=1, le=7320)]
    algorithms: Annotated[tuple[KeyName, ...], msgspec.Meta(min_length=1)]
    usage: tuple[Usage, ...] = ()
    usage_rsa: tuple[Usage, ...] = ()
    usage_ec: tuple[Usage, ...] = ()
    extended: tuple[Oid, ...] = ()
    extended_critical: bool = False
    policies: tuple[Oid, ...] = ()
    hardware: tuple[Oid, ...] = ()
    names_required: tuple[NameKind, ...] = ()
    names_allowed: tuple[NameKind, ...] = ()
    sid: bool = False
    no_check: bool = False
    ocsp: bool = True
    within_card: bool = True
    within_signer: bool = False

    def __post_init__(self) -> None:
        if bool(self.usage) == bool(self.usage_rsa or self.usage_ec):
            raise ValueError("either usage, or usage_rsa and usage_ec")
        if not set(self.hardware) <= set(self.policies):
            raise ValueError("hardware names policies that are not asserted")
        if self.extended_critical and (not self.extended or ANY_EXTENDED in self.extended):
            raise ValueError("a critical extended key usage needs purposes of its own")
        if set(self.names_required) & set(self.names_allowed):
            raise ValueError("a name is required or allowed, not both")

    @property
    def validity(self) -> timedelta:
        """The longest a certificate lives."""
        return timedelta(days=self.days)

    def usages(self, algorithm: Algorithm) -> frozenset[str]:
        """Key usages for a key. Raises CertificateRefused if keys of this kind are not meant."""
        chosen = self.usage or (self.usage_rsa if algorithm.label.startswith("rsa") else self.usage_ec)
        if not chosen or algorithm.label not in self.algorithms:
            raise CertificateRefused("algorithm", f"Profile {self.name} has no {algorithm.label} keys.")
        return frozenset(chosen)


class Profiles:
    """The profiles of an installation, by name."""

    def __init__(self, profiles: Iterable[Profile]) -> None:
        """Raises ProfileMalformed for two of one name, or a ``civ`` that is not there or nowhere else."""
        self._by_name: dict[str, Profile] = {}
        for one in profiles:
            if self._by_name.setdefault(one.name, one) is not one:
                raise ProfileMalformed(f"two profiles are called {one.name}")
        for one in self._by_name.values():
            if one.civ is not None and (one.civ not in self._by_name or self._by_name[one.civ].civ is not None):
                raise ProfileMalformed(f"profile {one.name}: there is no profile {one.civ} to take its place")

    def __iter__(self) -> Iterator[Profile]:
        return iter(self._by_name.values())

    def pick(self, name: str, *, strict: bool = True) -> Profile:
        """The profile of this name, or for a policy that is not strict the one in its place.

        Raises CertificateRefused.
        """
        found = self._by_name.get(name)
        if found is None:
            raise CertificateRefused("profile", f"There is no certificate profile '{name}'.")
        return found if strict or found.civ is None else self._by_name[found.civ]


def load(folder: Path | None = None) -> Profiles:
    """The shipped profiles; documents in ``folder`` add to them or replace those of the same name.

    Raises ProfileMalformed, OSError.
    """
    texts: dict[str, str] = {}
    shipped = resources.files(__package__) / "shipped"
    for entry in shipped.iterdir():
        if entry.name.endswith(".toml"):
            texts[entry.name] = entry.read_text("utf-8")
    for path in sorted(folder.glob("*.toml")) if folder is not None else ():
        texts[path.name] = path.read_text("utf-8")
    return Profiles(read(text, source=name) for name, text in sorted(texts.items()))


def read(text: str, *, source: str) -> Profile:
    """One document. Raises ProfileMalformed."""
    if len(text) > MAX_DOCUMENT:
        raise ProfileMalformed(f"{source} is too large")
    try:
        profile = msgspec.toml.decode(text, type=Profile)
    except (msgspec.MsgspecError, ValueError) as cause:
        raise ProfileMalformed(f"{source}: {cause}") from cause
    if f"{profile.name}.toml" != source:
        raise ProfileMalformed(f"{source} holds the profile {profile.name}: file and profile share a name")
    return profile


def policies_of(profiles: Iterable[Profile], purpose: Purpose) -> tuple[str, ...]:
    """Every policy that an authority's certificates may assert: what its own certificate names."""
    return tuple(sorted({oid for one in profiles if one.purpose is purpose for oid in one.policies}))


def longest(profiles: Mapping[str, Profile] | Iterable[Profile], purpose: Purpose) -> timedelta:
    """The longest life of a certificate of cards, workstations or servers that is nobody's own."""
    rows = profiles.values() if isinstance(profiles, Mapping) else profiles
    return max(one.validity for one in rows if one.purpose is purpose and HolderKind.CONTENT_SIGNER not in one.holders)
