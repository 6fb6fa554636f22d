"""The code of the tutorial runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

TUTORIAL = Path(__file__).parent.parent / "docs" / "tutorial-card-programs.md"


def test_every_block_of_the_tutorial_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    assert len(blocks) >= 5
    namespace: dict[str, object] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"block {number}", "exec"), namespace)
    assert {"chuid", "sign", "certificates", "executor"} <= set(namespace)
