"""What a directory is to us: someone who can find a person and judge a password. ``ldap_directory`` is the real one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.secret import Secret


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """A person as a directory shows them. ``entry`` is the id that survives renaming; ``groups`` are
    (name, distinguished name)."""

    source: str
    entry: str
    dn: str = field(repr=False)
    login: str
    display_name: str = field(repr=False)
    mail: str = field(repr=False)
    attributes: Mapping[str, tuple[str, ...]] = field(repr=False)
    groups: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class UnusableEntry:
    """An entry that nobody can be taken over from, and why: ``code`` is that of the error it would have been."""

    dn: str = field(repr=False)
    login: str
    code: str
    reason: str


EntryPage = list[DirectoryEntry | UnusableEntry]


class DirectoryError(CardwrightError):
    """Base of what goes wrong with a directory."""

    default_effect = "Nothing was changed; no attempt was counted."


class DirectoryUnavailable(DirectoryError):
    """The directory cannot be reached, is too slow, or was found so a moment ago."""

    code = "DIRECTORY_UNAVAILABLE"
    default_advice = "Try again later, or use another way to prove who you are."

    def __init__(self, message: str, retry_after: timedelta) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DirectoryMisconfigured(DirectoryError):
    """The directory answered, but not as configured: our own bind refused, no such base, an untrusted certificate."""

    code = "DIRECTORY_MISCONFIGURED"
    default_advice = "An administrator has to look at the configuration of the directory."


class DirectoryAnswerRefused(DirectoryError):
    """The directory's answer is not acceptable: too large, several persons for one login, no lasting id."""

    code = "DIRECTORY_ANSWER_REFUSED"
    default_advice = "An administrator has to look at the entries of the directory."


class NoSuchBranch(DirectoryError):
    """The directory has no such place, or it lies outside of what this server is to see of the directory."""

    code = "NO_SUCH_BRANCH"
    default_advice = "Give the distinguished name of an entry at or below the configured base."


class Directory(Protocol):
    """A directory of persons."""

    @property
    def source(self) -> str:
        """Its name here, ``Person.source``."""

    async def find(self, login: str) -> DirectoryEntry | None:
        """The person with exactly this login. Raises DirectoryError."""

    async def search(self, text: str, limit: int) -> list[DirectoryEntry]:
        """Persons whose names begin with a text. Raises DirectoryError."""

    async def check_password(self, dn: str | None, password: Secret) -> bool:
        """Whether this is the password of the entry; one bind, at most. None: do the same for nobody.

        Raises DirectoryError; then the password was not judged.
        """


class ReadableDirectory(Directory, Protocol):
    """A directory that can be read as a whole."""

    @property
    def base(self) -> str:
        """The distinguished name at or below which its persons are."""

    def pages(self, place: str, group: str = "") -> AsyncGenerator[EntryPage, None]:
        """Every person at or below a place, or those of them in a group (its name or distinguished name), some at a
        time. The next ones are asked for when they are. Raises DirectoryError, also in the middle."""
