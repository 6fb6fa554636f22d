"""Pages of listings in the order of ids, of a text and ids, or of moments and ids."""

from __future__ import annotations

from datetime import datetime
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


def after_text(page: read.Page) -> tuple[str, UUID] | None:
    """Beyond which text and id a page begins; None for the first one. Raises RequestMalformed."""
    return (page.after[0], read.identifier(page.after[1], "page_token")) if page.after else None


def after_moment(page: read.Page) -> tuple[datetime, UUID] | None:
    """Beyond which moment and id a page begins; None for the first one. Raises RequestMalformed."""
    if not page.after:
        return None
    try:
        moment = datetime.fromisoformat(page.after[0])
        if moment.tzinfo is None:
            raise ValueError
    except ValueError:
        raise read.RequestMalformed("page_token is none that this listing gave.") from None
    return moment, read.identifier(page.after[1], "page_token")
