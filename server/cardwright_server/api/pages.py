"""Pages of listings in the order of ids."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from . import reading as read


class Listed(Protocol):
    """An entry of such a listing."""

    @property
    def id(self) -> UUID:
        """Its id."""


def after(page: read.Page) -> UUID | None:
    """Beyond which id a page begins; None for the first one. Raises RequestMalformed."""
    return read.identifier(page.after[0], "page_token") if page.after else None


def token(last: Listed | None) -> str:
    """``next_page_token``, after the last entry that is shown; None if nothing follows."""
    return "" if last is None else read.page_token(str(last.id))
