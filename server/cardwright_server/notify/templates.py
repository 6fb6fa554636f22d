"""Texts of mails: plain text with strict placeholders, shipped ones and an organization's own."""

from __future__ import annotations

import re
import string
import tomllib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import msgspec

from .errors import TemplateInvalid

COMMON = frozenset({"person", "organization", "portal", "about"})
"""Placeholders that every text may use; ``about`` is the id of the device, request or key that it is about."""
LONGEST_SUBJECT = 150
LONGEST_BODY = 8000
LONGEST_VALUE = 200


class _Text(string.Template):
    idpattern = r"(?a:[a-z][a-z_]*)"
    flags = re.RegexFlag(0)


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    data: list[str]
    subject: str
    body: str


@dataclass(frozen=True, slots=True)
class Template:
    """Text for one event. ``data``: placeholders that the event's data fills, besides ``COMMON``.

    Raises TemplateInvalid for text that could not be sent as it is.
    """

    event: str
    data: frozenset[str]
    subject: str
    body: str

    def __post_init__(self) -> None:
        for text, longest in ((self.subject, LONGEST_SUBJECT), (self.body, LONGEST_BODY)):
            parsed = _Text(text)
            if not parsed.is_valid():
                raise TemplateInvalid(f"{self.event}: a $ is not followed by a placeholder; write $$ for the sign")
            if unknown := set(parsed.get_identifiers()) - COMMON - self.data:
                raise TemplateInvalid(f"{self.event} has no {', '.join(sorted(unknown))}")
            if not 0 < len(text.strip()) <= longest:
                raise TemplateInvalid(f"{self.event}: subject or body is empty or longer than {longest} characters")
        if _one_line(self.subject) != self.subject or "=?" in self.subject:
            raise TemplateInvalid(f"{self.event}: the subject is not one line of text")
        if any(_is_control(character) and character != "\n" for character in self.body):
            raise TemplateInvalid(f"{self.event}: the body holds control characters")

    def filled(self, values: Mapping[str, str]) -> tuple[str, str]:
        """Subject and body. Values become one line each, without control characters, and are cut if very long.

        Raises TemplateInvalid if a placeholder has no value.
        """
        clean = {name: _one_line(value)[:LONGEST_VALUE] for name, value in values.items()}
        try:
            subject, body = _Text(self.subject).substitute(clean), _Text(self.body).substitute(clean)
        except KeyError as error:
            raise TemplateInvalid(f"{self.event}: there is no value for {error.args[0]}") from error
        # Python's email package decodes what looks like an encoded word (RFC 2047), line breaks in it included.
        return subject[:LONGEST_SUBJECT].replace("=?", "= ?"), body.strip() + "\n"


@cache
def shipped() -> Mapping[str, Template]:
    """The texts that come with the program, by event."""
    text = files(__package__).joinpath("templates.toml").read_text(encoding="utf-8")
    entries = msgspec.convert(tomllib.loads(text), dict[str, _Entry])
    return {
        event: Template(event, frozenset(entry.data), entry.subject, entry.body.strip())
        for event, entry in entries.items()
    }


def replaced(event: str, subject: str, body: str) -> Template:
    """An organization's own text for an event. Raises TemplateInvalid, also for an event that sends no mail."""
    known = shipped().get(event)
    if known is None:
        raise TemplateInvalid(f"no mail is sent for {event!r}")
    return Template(event, known.data, subject, body)


def _is_control(character: str) -> bool:
    # Categories Cc, Cf (among them the marks that turn the direction of text), Zl, Zp.
    return unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Cs")


def _one_line(text: str) -> str:
    return " ".join("".join(" " if _is_control(character) else character for character in text).split())
