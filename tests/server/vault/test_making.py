"""A vault that cannot be made says why, once: by the code of what is wrong, not by that of a process that ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from cardwright_cardops.secret import Secret
from cardwright_server.config import Installation, load
from cardwright_server.opening import has_vault, make_folders, make_vault
from cardwright_server.vault.errors import HsmUnusable, VaultError, VaultExists, VaultUnlockRefused
from tests.support.softhsm import LABEL, SOFTHSM, SoftHsm
from tests.support.vault import PASSPHRASE, run


def installation(folder: Path, module: Path, label: str = LABEL) -> Installation:
    (folder / "server.toml").write_text(f'[vault]\nhsm_module = "{module}"\nhsm_token = "{label}"\n')
    folder.chmod(0o700)
    made = load(folder, None)
    make_folders(made)
    return made


@pytest.mark.parametrize(
    "wrong, error, told",
    [
        ("pin", VaultUnlockRefused, "the PIN"),
        ("module", HsmUnusable, "none.so"),
        ("label", HsmUnusable, "'another'"),
        ("configuration", HsmUnusable, LABEL),
    ],
)
def test_what_is_wrong_with_an_hsm_is_said_once(
    tmp_path: Path,
    softhsm: SoftHsm,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    wrong: str,
    error: type[VaultError],
    told: str,
) -> None:
    missing = str(tmp_path / "none.conf")
    monkeypatch.setenv("SOFTHSM2_CONF", missing if wrong == "configuration" else str(softhsm.configuration))
    module = tmp_path / "none.so" if wrong == "module" else SOFTHSM
    data = tmp_path / "data"
    data.mkdir()
    here = installation(data, module, "another" if wrong == "label" else LABEL)
    pin = Secret(b"000000" if wrong == "pin" else softhsm.pin.reveal())
    with pytest.raises(error, match=told) as caught:
        run(make_vault(here, pin, None))
    assert type(caught.value) is error and caught.value.advice
    assert here.vault is not None and not has_vault(here.vault)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_vault_is_not_made_over_another(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    here = load(tmp_path, None)
    make_folders(here)
    run(make_vault(here, PASSPHRASE, 1024))
    with pytest.raises(VaultExists):
        run(make_vault(here, PASSPHRASE, 1024))
