"""One installation for all processes of a test run: founded by the first that wants one, and copied by all."""

from __future__ import annotations

import fcntl
import os
import shutil

import pytest

from tests.support.installation import Process, Site, founded_site


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """An installation that is not touched."""
    own = tmp_path_factory.getbasetemp()
    # Processes of pytest-xdist have folders of their own in one of the run.
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "original"
    with folder.with_name("original.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        credential = folder / "credential"
        if not credential.exists():
            shutil.rmtree(folder, ignore_errors=True)
            with founded_site() as made:
                shutil.copytree(made.data, folder / "data", ignore=shutil.ignore_patterns("run"))
            credential.write_text(made.credential)
    return Site.of(Process(folder / "data"), credential.read_text())
