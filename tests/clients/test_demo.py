"""The demo as a stranger runs it: a process of its own, and what it leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PATIENCE = 280


def test_demo_does_the_main_job_and_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from cardwright_clients.cli.main import main; main()", "demo", "--json"]
    before = set(Path("/tmp").glob("cardwright-demo-*"))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["operations"]
    trips = {(row["operation"], row["card"]): row["round_trips"] for row in rows}
    assert [row["operation"] for row in rows] == ["issuance", "issuance", "check", "update", "unlock", "recover"]
    assert trips["issuance", "20261101"] == trips["issuance", "20261102"] == 5
    assert trips["check", "20261102"] == 1
    assert all(row["apdus"] > 0 and row["seconds"] > 0 for row in rows)
    assert set(Path("/tmp").glob("cardwright-demo-*")) <= before
    assert list(tmp_path.iterdir()) == []
