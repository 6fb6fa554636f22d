"""A running server for the tests of workstation and server together."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.installation import Site, copied, founded_site


@pytest.fixture(scope="session")
def original() -> Iterator[Site]:
    """An installation that is not touched."""
    with founded_site() as made:
        yield made


@pytest.fixture(scope="module")
def here(original: Site) -> Iterator[Site]:
    """A running installation; the tests of a module leave it running."""
    with copied(original) as made:
        made.process.start()
        yield made
