"""The PKCS#11 module of a few lines of C that tests have for what real ones do not do when asked."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "cardops" / "pkcs11" / "fake_module.c"


def compiled(folder: Path) -> Path:
    """The module, compiled into ``folder``. Skips where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    library = folder / "fake_module.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", str(library), str(SOURCE)], check=True)
    return library
