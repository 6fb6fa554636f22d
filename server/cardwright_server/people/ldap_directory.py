"""A directory behind LDAP: who a login is, which groups they are in, and whether a password is theirs."""

from __future__ import annotations

import secrets
import struct
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import ldap
import ldap.dn
import msgspec
from ldap.filter import escape_filter_chars

from cardwright_cardops.secret import Secret

from ..condition import Condition
from .directory import (
    DirectoryAnswerRefused,
    DirectoryEntry,
    DirectoryError,
    DirectoryMisconfigured,
    EntryPage,
    NoSuchBranch,
    UnusableEntry,
)
from .ldap_client import NOT_RIGHT, LdapClient, Session
from .ldap_line import LdapServer
from .model import EMBEDDED
from .naming import BadName, branch_path

MOST_VALUES = 20
LONGEST_VALUE = 1000
MOST_GROUPS = 500
MOST_AT_ONCE = 200
"""Entries that are held at a time while everybody is read."""


class LdapDirectoryConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A directory and what its attributes mean here.

    ``entry_attribute`` is an id that survives renaming: ``entryUUID``, ``objectGUID``. ``attributes``: our name of an
    attribute to the directory's. Groups come from ``group_attribute`` of the person (``memberOf``), or, with
    ``group_base``, from a search there for ``group_member_attribute``.
    """

    name: str
    server: LdapServer
    base: str
    person_filter: str = "(objectClass=person)"
    login_attribute: str = "uid"
    entry_attribute: str = "entryUUID"
    name_attribute: str = "cn"
    mail_attribute: str = "mail"
    attributes: dict[str, str] = msgspec.field(default_factory=lambda: {"givenName": "givenName", "sn": "sn"})
    group_attribute: str = "memberOf"
    group_base: str = ""
    group_filter: str = "(objectClass=groupOfNames)"
    group_member_attribute: str = "member"
    page: int = 500

    def __post_init__(self) -> None:
        if not self.name or self.name == EMBEDDED:
            raise ValueError("a directory needs a name of its own")
        for text in (self.person_filter, self.group_filter):
            if not (text.startswith("(") and text.endswith(")")):
                raise ValueError(f"{text!r} is no filter in brackets")
        if not ldap.dn.is_dn(self.base) or not self.base:
            raise ValueError("base is no distinguished name")
        if not 0 < self.page <= 5000:
            raise ValueError("page is 1 to 5,000")


class LdapDirectory:
    """``Directory`` over LDAP. Each question is one session: connect, TLS, bind, ask."""

    def __init__(self, config: LdapDirectoryConfig, client: LdapClient | None = None) -> None:
        self._config = config
        self._client = client or LdapClient(config.server)

    @property
    def source(self) -> str:
        """See Directory."""
        return self._config.name

    @property
    def base(self) -> str:
        """See Directory."""
        return self._config.base

    async def find(self, login: str) -> DirectoryEntry | None:
        """See Directory."""
        if not _askable(login):
            return None
        found = await self._search(f"({self._config.login_attribute}={escape_filter_chars(login)})", 2)
        if len(found) > 1:
            raise DirectoryAnswerRefused("the directory has several entries of one login")
        return found[0] if found else None

    async def search(self, text: str, limit: int) -> list[DirectoryEntry]:
        """See Directory."""
        if not _askable(text):
            return []
        begins = escape_filter_chars(text)
        names = (self._config.login_attribute, self._config.name_attribute, "sn", self._config.mail_attribute)
        return await self._search("(|" + "".join(f"({name}={begins}*)" for name in names) + ")", limit)

    def pages(self, place: str, group: str = "") -> AsyncGenerator[EntryPage, None]:
        """See Directory. Members of a group's groups are not looked for."""
        return self._client.steps(lambda session: self._read(session, place, group))

    async def check_password(self, dn: str | None, password: Secret) -> bool:
        """See Directory. Raises ValueError for an empty password, which every directory would take for anonymous."""
        if not password:
            raise ValueError("an empty password is no proof")
        nobody = f"{self._config.login_attribute}={secrets.token_hex(8)},{self._config.base}"

        def work(session: Session) -> bool:
            try:
                session.bind(dn if dn is not None else nobody, password)
            except NOT_RIGHT:
                return False
            return dn is not None

        return await self._client.run(work)

    @property
    def condition(self) -> Condition:
        """How the directory stands: whether it answers, and takes our bind and base."""
        return self._client.condition

    async def check(self) -> None:
        """Ask, before anyone needs an answer, how the directory stands: ``condition`` knows. Raises nothing."""

        def work(session: Session) -> None:
            session.bind(self._config.server.bind_dn, self._own_password())
            session.look(self._config.base)

        with suppress(DirectoryError):
            await self._client.run(work)
            self.condition.good()

    def close(self) -> None:
        """End idle threads."""
        self._client.close()

    async def _search(self, condition: str, limit: int) -> list[DirectoryEntry]:
        config = self._config

        def work(session: Session) -> list[DirectoryEntry]:
            session.bind(config.server.bind_dn, self._own_password())
            found: list[DirectoryEntry] = []
            for page in session.pages(
                config.base, f"(&{config.person_filter}{condition})", self._wanted(), min(config.page, limit)
            ):
                for dn, values in page:
                    entry = self._entry(session, dn, _Values(values))
                    if entry is not None:
                        found.append(entry)
                if len(found) >= limit:
                    break
            return found[:limit]

        answer = await self._client.run(work)
        self.condition.good()
        return answer

    def _read(self, session: Session, place: str, group: str) -> Iterator[EntryPage]:
        config = self._config
        condition, inside = f"({config.login_attribute}=*)", _membership(group)
        if ldap.dn.is_dn(group) and group and not config.group_base:
            condition += f"({config.group_attribute}={escape_filter_chars(group)})"
        session.bind(config.server.bind_dn, self._own_password())
        try:
            for page in session.pages(
                place, f"(&{config.person_filter}{condition})", self._wanted(), min(config.page, MOST_AT_ONCE)
            ):
                read = [self._entry_or_why(session, dn, _Values(values)) for dn, values in page]
                yield [one for one in read if isinstance(one, UnusableEntry) or inside(one)]
        except ldap.NO_SUCH_OBJECT as error:
            if place == config.base:
                raise
            raise NoSuchBranch("the directory has no such place") from error

    def _wanted(self) -> list[str]:
        config = self._config
        return [
            config.login_attribute,
            config.entry_attribute,
            config.name_attribute,
            config.mail_attribute,
            *config.attributes.values(),
            *([] if config.group_base else [config.group_attribute]),
        ]

    def _entry_or_why(self, session: Session, dn: str, values: _Values) -> DirectoryEntry | UnusableEntry:
        login = values.first(self._config.login_attribute)
        shown = login if _askable(login) else ""
        try:
            entry = self._entry(session, dn, values)
        except DirectoryAnswerRefused as error:
            return UnusableEntry(dn, shown, error.code, error.message)
        if entry is None:
            return UnusableEntry(dn, shown, BadName.code, "the login is empty, too long, or has invisible characters")
        return entry

    def _entry(self, session: Session, dn: str, values: _Values) -> DirectoryEntry | None:
        config = self._config
        login = values.first(config.login_attribute)
        if not _askable(login):
            return None
        entry = values.identifier(config.entry_attribute)
        if not entry:
            raise DirectoryAnswerRefused(f"an entry of the directory has no {config.entry_attribute}")
        return DirectoryEntry(
            source=config.name,
            entry=entry,
            dn=dn,
            login=login,
            display_name=values.first(config.name_attribute)[:300] or login,
            mail=values.first(config.mail_attribute)[:320],
            attributes={
                ours: texts for ours, theirs in sorted(config.attributes.items()) if (texts := values.texts(theirs))
            },
            groups=self._groups(session, dn, values),
        )

    def _groups(self, session: Session, dn: str, values: _Values) -> tuple[tuple[str, str], ...]:
        config = self._config
        if config.group_base:
            condition = f"({config.group_member_attribute}={escape_filter_chars(dn)})"
            try:
                places = session.names(config.group_base, f"(&{config.group_filter}{condition})")
            except ldap.SIZELIMIT_EXCEEDED as error:
                raise DirectoryAnswerRefused("an entry of the directory is in more groups than it tells") from error
        else:
            places = list(values.texts(config.group_attribute, most=MOST_GROUPS + 1))
        if len(places) > MOST_GROUPS:
            raise DirectoryAnswerRefused(f"an entry of the directory is in more than {MOST_GROUPS} groups")
        return tuple(sorted((_group_name(place), place) for place in places))

    def _own_password(self) -> Secret:
        name = self._config.server.bind_password_file
        if not name:
            return Secret(b"")
        try:
            return Secret(Path(name).read_bytes().rstrip(b"\r\n"))
        except OSError as error:
            raise DirectoryMisconfigured(f"bind_password_file {name} cannot be read: {error.strerror}") from error


def _membership(group: str) -> Callable[[DirectoryEntry], bool]:
    """Whether an entry is in a group, by its name or distinguished name; everybody is in "". Raises BadName."""
    if not group:
        return lambda entry: True
    if ldap.dn.is_dn(group):
        place = branch_path(group)
        return lambda entry: any(_is_place(dn, place) for _, dn in entry.groups)
    return lambda entry: any(name.casefold() == group.casefold() for name, _ in entry.groups)


def _is_place(dn: str, place: str) -> bool:
    try:
        return branch_path(dn) == place
    except BadName:
        return False


class _Values:
    """Attributes of an entry; their names are compared without case (RFC 4512 section 2.5)."""

    def __init__(self, values: Mapping[str, list[bytes]]) -> None:
        self._values = {name.partition(";")[0].lower(): found for name, found in values.items()}

    def texts(self, name: str, most: int = MOST_VALUES) -> tuple[str, ...]:
        """Values as text; what is not, is too long or is beyond ``most`` is left out."""
        special = _DECODERS.get(name.lower())
        found = (
            special(value) if special is not None and not _is_text(value) else _text(value)
            for value in self._values.get(name.lower(), [])[:most]
        )
        return tuple(text for text in found if 0 < len(text) <= LONGEST_VALUE)

    def first(self, name: str) -> str:
        """The first value, or ""."""
        return next(iter(self.texts(name)), "")

    def identifier(self, name: str) -> str:
        """The only value of an id, or ""."""
        found = self.texts(name)
        return found[0][:200] if len(found) == 1 else ""


def _askable(text: str) -> bool:
    """Directories drop what is invisible, or end at it, and would find others than were asked for."""
    return bool(text) and len(text) <= LONGEST_VALUE and text.isprintable()


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return ""


def _is_text(value: bytes) -> bool:
    return value.isascii() and value.decode("ascii").isprintable() and len(value) > 16


def sid_text(value: bytes) -> str:
    """A binary security identifier as S-1-... ([MS-DTYP] section 2.4.2); "" if it is none."""
    if len(value) < 8 or value[0] != 1 or len(value) != 8 + 4 * value[1]:
        return ""
    authority = int.from_bytes(value[2:8], "big")
    return "-".join(["S", "1", str(authority), *(str(part) for part in struct.unpack(f"<{value[1]}I", value[8:]))])


def _guid_text(value: bytes) -> str:
    return str(UUID(bytes_le=value)) if len(value) == 16 else ""


_DECODERS: Mapping[str, Callable[[bytes], str]] = {"objectsid": sid_text, "objectguid": _guid_text}
"""Attributes that Active Directory gives in binary."""


def _group_name(dn: str) -> str:
    try:
        name = str(ldap.dn.str2dn(dn)[0][0][1])
    except (ldap.DECODING_ERROR, IndexError) as error:
        raise DirectoryAnswerRefused("a group's name in the directory is no distinguished name") from error
    return name[:200]
