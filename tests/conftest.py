"""What every test may use: the shared data folder, hypothesis profiles, and one queue for the pcscd socket."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

pytest_plugins = ["tests.support.pcscd", "tests.support.databases", "tests.support.sites"]

REPOSITORY = Path(__file__).resolve().parents[1]

# A shared machine can stall any example, so wall-clock deadlines only make tests flaky; pytest-timeout stops hangs.
settings.register_profile("dev", deadline=None)
settings.register_profile(
    "ci", deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
# For mutation tests (scripts/mutants): whether an example fails is all that counts, not how small it can be made.
settings.register_profile(
    "mutants", settings.get_profile("ci"), max_examples=30, phases=[Phase.explicit, Phase.generate]
)
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the published vectors, card images and tables, which are not part of this repository.

    ``CARDWRIGHT_SHARED_DATA`` names it, else it is looked for beside the repository; without it the test is skipped.
    """
    named = os.environ.get("CARDWRIGHT_SHARED_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        if named:
            pytest.fail(f"CARDWRIGHT_SHARED_DATA names {folder}, which is not a folder")
        pytest.skip(f"published vectors and card images are not here: no folder {folder}")
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests of a share recorded of it."""
    passed = terminalreporter.getreports("passed")
    if said := [str(text) for one in passed for name, text in one.user_properties if name == "share"]:
        terminalreporter.section("shares")
        for text in sorted(said):
            terminalreporter.write_line(text)
