"""SoftHSM2 tokens in folders of their own, a module that misbehaves on request, and certificates."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cardwright_cardops.pkcs11 import Deadlines, Module, Token
from tests.cardops.pkcs11.support import SO_PIN, SOFTHSM, USER_PIN, SoftHsm
from tests.support.fake_module import compiled


@pytest.fixture
def softhsm(tmp_path: Path) -> Iterator[SoftHsm]:
    """Two fresh tokens, ``first`` and ``second``, and the module over them."""
    if not SOFTHSM.exists() or shutil.which("softhsm2-util") is None:
        pytest.skip("SoftHSM2 is not installed (package softhsm2)")
    (tmp_path / "tokens").mkdir()
    configuration = tmp_path / "softhsm2.conf"
    configuration.write_text(
        f"directories.tokendir = {tmp_path / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    environment = {"SOFTHSM2_CONF": str(configuration)}
    for label in ("first", "second"):
        subprocess.run(
            [
                *("softhsm2-util", "--init-token", "--free", "--label", label),
                *("--pin", USER_PIN.reveal().decode(), "--so-pin", SO_PIN.reveal().decode()),
            ],
            env={**os.environ, **environment},
            check=True,
            capture_output=True,
        )
    with Module(SOFTHSM, environment=environment) as module:
        yield SoftHsm(module, environment)


@pytest.fixture
def token(softhsm: SoftHsm) -> Token:
    """The token ``first``, nobody logged in."""
    return softhsm.module.token(label="first")


@pytest.fixture(scope="session")
def fake_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """fake_module.c, compiled."""
    return compiled(tmp_path_factory.mktemp("fake"))


FakeModule = Callable[..., Module]


@pytest.fixture
def fake(fake_library: Path, tmp_path: Path) -> Iterator[FakeModule]:
    """Makes modules with one misbehaviour; ``tmp_path / "calls"`` notes the calls that carry a PIN."""
    with ExitStack() as stack:

        def make(behaviour: str, seconds: float = 20.0) -> Module:
            environment = {"FAKE_BEHAVIOUR": behaviour, "FAKE_LOG": str(tmp_path / "calls")}
            deadlines = Deadlines(load=20.0, read=seconds, operation=seconds, generation=seconds)
            return stack.enter_context(Module(fake_library, environment=environment, deadlines=deadlines))

        yield make
