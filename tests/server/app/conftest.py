"""Installations: copies of one that was founded before, for founding one takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.installation import Site, copied


@pytest.fixture(scope="module")
def here(original: Site) -> Iterator[Site]:
    """A running installation; the tests of a module leave it running."""
    with copied(original) as made:
        made.process.start()
        yield made


@pytest.fixture
def alone(original: Site) -> Iterator[Site]:
    """An installation of one test, not started."""
    with copied(original) as made:
        yield made
