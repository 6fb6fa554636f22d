"""Where the passphrases of commands on the server's host come from."""

from __future__ import annotations

import sys

import pytest

from cardwright_clients.cli.server_place import PassphraseMissing, passphrase


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """No terminal, and no systemd."""
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


def test_the_vault_s_may_come_from_systemd() -> None:
    with pytest.raises(PassphraseMissing) as missing:
        passphrase(None)
    assert all(one in missing.value.advice for one in ("--passphrase-fd", "systemd"))


def test_the_backup_s_is_asked_for_by_the_option_that_takes_it() -> None:
    with pytest.raises(PassphraseMissing) as missing:
        passphrase(None, new=True, systemd=False, name="the vault in the backup", option="--backup-fd")
    assert missing.value.advice == "Type it at the prompt, or give --backup-fd."
