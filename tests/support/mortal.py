"""A database whose server dies at a commit."""

from __future__ import annotations

from typing import Any

from cardwright_server.store.unit import Database


class Killed(Exception):
    """The server's process is gone."""


class Mortal(Database):
    """A database whose server dies at its ``fatal``-th commit, before or after it; counts from 1, 0 is never."""

    fatal = 0
    after = False
    commits = 0

    async def transact(self, work: Any, **options: Any) -> Any:
        """As ``Database.transact``, until it is dead."""
        if self.fatal and self.commits >= self.fatal:
            raise Killed
        self.commits += 1
        if self.commits == self.fatal and not self.after:
            raise Killed
        result = await super().transact(work, **options)
        if self.commits == self.fatal:
            raise Killed
        return result
