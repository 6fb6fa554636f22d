"""A share of the faults in sessions on PKCS#11 tokens, the same each time; ``make faults`` tries all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.token_faults import JOBS, failures, make_token_faults

STEP = 21


@pytest.mark.parametrize("job", JOBS)
async def test_one_more_session_reaches_the_goal(
    job: str, tmp_path: Path, sqlite_template: Path, record_property: Callable[[str, object], None]
) -> None:
    faults = await make_token_faults(job, tmp_path, sqlite_template)
    cases = await faults.cases()
    record_property("share", f"{len(cases[::STEP])} of {len(cases)} cases")
    assert await failures(faults, cases[::STEP]) == {}
    faults.world.issuing.core.close()
