"""The configuration file: everything has a default, nothing unknown passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cardwright_daemon.config import Config, ConfigInvalid, default_file, load, parse


def test_without_a_file_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_file() == tmp_path / "cardwright/daemon.toml"
    assert load() == Config()
    assert not Config().pins.headless
    assert Config().server is None


def test_a_file_says_what_it_says(tmp_path: Path) -> None:
    file = tmp_path / "daemon.toml"
    file.write_text(
        'log_level = "warning"\n[pins]\npinentry = "/usr/bin/pinentry-curses"\nheadless = true\n'
        '[[pkcs11]]\npath = "/usr/lib/x.so"\nenvironment = {A = "b"}\n[server]\naddress = "cms.example:8443"\n'
    )
    found = load(file)
    assert found.pins.headless and found.pins.pinentry == "/usr/bin/pinentry-curses"
    assert found.pkcs11[0].environment == {"A": "b"}
    assert found.server is not None and found.server.address == "cms.example:8443"


@pytest.mark.parametrize(
    "text",
    [
        "unknown = 1",
        "[pins]\nheadles = true",
        "[pins]\nheadless = 1",
        "[pins]\nseconds = 0",
        "[updates]\nspread = -1",
        "[updates]\ncheck_seconds = 3600",
        '[[pkcs11]]\npath = "relative.so"',
        '[[pkcs11]]\npath = "/lib/module.so"\nlook_seconds = 0.5',
        'log_level = "loud"',
        "[server]",
        "= broken",
        "\xff",
    ],
)
def test_what_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(ConfigInvalid):
        parse(text.encode("latin-1"), "daemon.toml")


def test_a_named_file_has_to_be_there_and_bounded(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid):
        load(tmp_path / "absent.toml")
    with pytest.raises(ConfigInvalid):
        load(tmp_path)
    long = tmp_path / "long.toml"
    long.write_text("#" * 70_000)
    with pytest.raises(ConfigInvalid):
        load(long)
