"""Forms in which names are compared: logins, and places in a directory."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import ldap.dn

from cardwright_cardops.errors import CardwrightError

LONGEST_LOGIN = 200
LONGEST_DN = 2000
LONGEST_PATH = 4000
_SEPARATOR = "\x1f"


class BadName(CardwrightError):
    """A name that cannot be one: empty, too long, or with characters that are invisible."""

    code = "BAD_NAME"
    default_effect = "Nothing was changed."
    default_advice = "Correct the name."


def folded_login(login: str) -> str:
    """The form in which logins are unique and looked up: NFKC, case folded, no space around it.

    Raises BadName for an empty one, one that is longer than ``LONGEST_LOGIN``, or control and format characters.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", login).casefold()).strip()
    if not 0 < len(folded) <= LONGEST_LOGIN:
        raise BadName(f"a login has 1 to {LONGEST_LOGIN} characters")
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") for character in folded):
        raise BadName("a login has no invisible characters")
    return folded


@lru_cache(maxsize=4096)
def branch_path(dn: str) -> str:
    """A distinguished name (RFC 4514) from its root down, folded, each part ended by a separator.

    One entry lies at or below another exactly if its path begins with the other's. Attribute types and values are
    compared without case and with single spaces, as directories do for names of people and places. "" for "".
    Raises BadName for what is no distinguished name.
    """
    if not dn:
        return ""
    if len(dn) > LONGEST_DN:
        raise BadName("a distinguished name is too long")
    try:
        parts = ldap.dn.str2dn(dn)
    except (ldap.DECODING_ERROR, UnicodeEncodeError, ValueError) as error:
        raise BadName("that is no distinguished name") from error
    if not parts:
        raise BadName("that is no distinguished name")
    path = "".join(
        "+".join(sorted(f"{_folded(kind)}={_folded(value)}" for kind, value, _ in part)) + _SEPARATOR
        for part in reversed(parts)
    )
    if len(path) > LONGEST_PATH:
        raise BadName("a distinguished name is too long")
    return path


def _folded(text: str) -> str:
    cleaned = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    # These build the path; inside a value they must not be taken for structure.
    return cleaned.replace("\\", "\\5c").replace(_SEPARATOR, "\\1f").replace("+", "\\2b").replace("=", "\\3d")
