"""One running installation for each module that asks for it: founding one takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.installation import Site, site


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    """A running installation; tests leave it running."""
    with site() as made:
        yield made
