"""The registry's members: one verifier for each method. A second factor is one more class of this shape."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from cardwright_cardops.secret import Secret

from ..people.directory import Directory, DirectoryEntry
from ..people.model import Person
from ..people.naming import BadName, folded_login
from ..store.unit import Unit
from . import store
from .answers import secret_of
from .errors import ProofRefused
from .hashing import Hasher
from .model import Method

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: what is read out over a telephone has no I, L, O or U."""
LONGEST_PASSWORD = 1000


@dataclass(frozen=True, slots=True)
class PasswordEvidence:
    """A password as typed, UTF-8."""

    password: Secret


@dataclass(frozen=True, slots=True)
class AnswersEvidence:
    """Answers as typed, by question."""

    answers: Mapping[UUID, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class CardEvidence:
    """What a card proved with; its form is known to who verifies it."""

    data: bytes


Evidence = PasswordEvidence | AnswersEvidence | CardEvidence


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came out: whether it was right, and whose it is where the evidence itself says so.

    ``entry``: the directory's record, if the person is to be taken over from it. ``spend``: a password that counts
    once. ``device``, ``request``: see Authentication.
    """

    right: bool
    person: UUID | None = None
    entry: DirectoryEntry | None = None
    device: UUID | None = None
    request: UUID | None = None
    spend: UUID | None = None


WRONG = Verdict(False)


class Verifier(Protocol):
    """One method."""

    @property
    def method(self) -> Method:
        """Which."""

    async def prepare(self, unit: Unit, org: UUID, person: Person | None) -> Any:
        """Read what evidence will be compared with. For nobody: something that costs the same to compare."""

    async def check(self, org: UUID, login: str, person: Person | None, prepared: Any, evidence: Evidence) -> Verdict:
        """Judge, outside any transaction; ``login`` is folded.

        Raises ProofRefused for evidence of another method, DirectoryError if there was no judgement.
        """


class GivenPassword:
    """A password that the server made and an operator handed over: initial, or for one emergency."""

    def __init__(self, method: Method, hasher: Hasher) -> None:
        self._method = method
        self._hasher = hasher

    @property
    def method(self) -> Method:
        """See Verifier."""
        return self._method

    async def prepare(self, unit: Unit, org: UUID, person: Person | None) -> Any:
        """See Verifier."""
        # The same statement for nobody, so that a stranger's attempt costs the same.
        return await store.password(unit, org, person.id if person is not None else UUID(int=0), self._method)

    async def check(self, org: UUID, login: str, person: Person | None, prepared: Any, evidence: Evidence) -> Verdict:
        """See Verifier."""
        if not isinstance(evidence, PasswordEvidence):
            raise ProofRefused("the evidence is not of this method")
        kept = prepared.hash if prepared is not None else None
        if not await self._hasher.matches([kept], [folded_password(evidence.password)]) or prepared is None:
            return WRONG
        spend = prepared.id if prepared.single_use else None
        return Verdict(True, person=prepared.person, request=prepared.request, spend=spend)


class SecurityAnswers:
    """Answers to all questions that the organization asks."""

    method = Method.SECURITY_ANSWERS

    def __init__(self, hasher: Hasher) -> None:
        self._hasher = hasher

    async def prepare(self, unit: Unit, org: UUID, person: Person | None) -> Any:
        """See Verifier."""
        asked = [row.id for row in await store.questions(unit, org)]
        given = await store.answers(unit, org, person.id if person is not None else UUID(int=0))
        return [(question, given.get(question)) for question in asked]

    async def check(self, org: UUID, login: str, person: Person | None, prepared: Any, evidence: Evidence) -> Verdict:
        """See Verifier."""
        if not isinstance(evidence, AnswersEvidence):
            raise ProofRefused("the evidence is not of this method")
        hashes = [kept for _, kept in prepared]
        texts = [secret_of(evidence.answers.get(question, "")) for question, _ in prepared]
        right = await self._hasher.matches(hashes, texts)
        if not right or person is None or evidence.answers.keys() != {question for question, _ in prepared}:
            return WRONG
        return Verdict(True, person=person.id)


class DirectoryPassword:
    """The password of a person's directory: found by login, then one bind."""

    method = Method.LDAP_PASSWORD

    def __init__(self, directories: Mapping[UUID, Directory]) -> None:
        """``directories``: of each organization that has one."""
        self._directories = directories

    async def prepare(self, unit: Unit, org: UUID, person: Person | None) -> Any:
        """See Verifier."""
        return None

    async def check(self, org: UUID, login: str, person: Person | None, prepared: Any, evidence: Evidence) -> Verdict:
        """See Verifier. A person who is not here yet is taken over, if the directory knows the login."""
        if not isinstance(evidence, PasswordEvidence):
            raise ProofRefused("the evidence is not of this method")
        directory = self._directories.get(org)
        if directory is None:
            raise ProofRefused("this organization has no directory")
        entry = await directory.find(login)
        if entry is not None and not _same(login, person, entry):
            entry = None
        # An empty password would be an anonymous bind, which succeeds (RFC 4513 section 5.1.2).
        usable = 0 < len(evidence.password) <= LONGEST_PASSWORD
        attempt = evidence.password if usable else Secret(secrets.token_bytes(16))
        right = await directory.check_password(entry.dn if entry is not None else None, attempt)
        return Verdict(True, entry=entry) if right and usable and entry is not None else WRONG


class CardProver(Protocol):
    """Who can tell whether a card proved itself: the domain of devices."""

    async def verify(self, org: UUID, evidence: bytes) -> tuple[UUID, UUID] | None:
        """(person, device) of an issued, unsuspended card whose PIN was given; None if it is not proved."""


class Card:
    """A key of an issued card. The card itself says whose it is."""

    method = Method.CARD

    def __init__(self, prover: CardProver) -> None:
        self._prover = prover

    async def prepare(self, unit: Unit, org: UUID, person: Person | None) -> Any:
        """See Verifier."""
        return None

    async def check(self, org: UUID, login: str, person: Person | None, prepared: Any, evidence: Evidence) -> Verdict:
        """See Verifier."""
        if not isinstance(evidence, CardEvidence):
            raise ProofRefused("the evidence is not of this method")
        found = await self._prover.verify(org, evidence.data)
        return Verdict(True, person=found[0], device=found[1]) if found is not None else WRONG


def new_password(groups: int) -> str:
    """A password to be handed over: ``groups`` of four characters, 20 bits each."""
    return "-".join("".join(secrets.choice(ALPHABET) for _ in range(4)) for _ in range(groups))


def folded_password(password: Secret) -> Secret:
    """The form in which given passwords are compared: case, spaces, hyphens and look-alikes do not count."""
    raw = password.reveal()
    if len(raw) > LONGEST_PASSWORD:
        return Secret(b"\xff")
    text = raw.decode("utf-8", "replace").upper().replace("O", "0").replace("I", "1").replace("L", "1")
    return Secret("".join(character for character in text if character in ALPHABET).encode("ascii"))


def _same(login: str, person: Person | None, entry: DirectoryEntry) -> bool:
    """Whether what the directory found is what was counted: its idea of equal logins is wider than ours."""
    if person is not None and (person.source, person.entry) != (entry.source, entry.entry):
        return False
    try:
        return folded_login(entry.login) == login
    except BadName:
        return False
