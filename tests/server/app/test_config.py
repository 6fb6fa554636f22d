"""The configuration: every key has a default, and a key that is none is refused by its path."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from cardwright_server.config import Configuration, ConfigurationRefused, load, names_of, parse
from cardwright_server.limits import Rate, Scope

DOCUMENTED = Path(__file__).parents[3] / "docs" / "server-operation.md"


def test_no_file_is_needed(tmp_path: Path) -> None:
    here = load(tmp_path)
    assert here.database == f"sqlite:///{tmp_path}/store.db"
    assert (here.vault, here.vault_sockets, here.tls) == (tmp_path / "vault", tmp_path / "run/vault", tmp_path / "tls")
    assert here.status_base == "http://127.0.0.1:7480"
    assert here.config.listen.metrics.startswith("127.0.0.1:")
    assert set(here.config.limits.rates()) == set(Scope)


def test_a_named_file_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationRefused):
        load(tmp_path, tmp_path / "other.toml")
    (tmp_path / "other.toml").write_text("[drain]\nseconds = 5\n")
    assert load(tmp_path, tmp_path / "other.toml").config.drain.seconds == 5


@pytest.mark.parametrize(
    "text, told",
    [
        ("[listen]\nports = 3\n", "listen.ports is no key"),
        ("[limits.person]\nburst = 1\nper_second = 1\nper_hour = 2\n", "limits.person.per_hour is no key"),
        ("tls = true\n", ": tls is no key"),
        ("[directory.server]\nuri = 'ldaps://a'\ntls = 'ldaps'\npassword = 'x'\n", "directory.server.password is no"),
        ("[database]\nurl = 5\n", "database.url: Expected `str`, got `int`"),
        ("[database]\npool = 1\n", "database: pool is 2 to 200"),
        ("[listen]\ncalls = 'here'\n", "'here' is no host:port"),
        ("[listen]\ncalls = ''\n", "calls is needed"),
        ("[listen]\nhttp = '127.0.0.1:99999'\n", "is no host:port"),
        ("[issuance]\nstatus_base = 'https://a'\n", "issuance: "),
        ("[issuance]\nsubject = 'nobody'\n", "issuance: subject 'nobody' is no name"),
        ("[database]\nurl = 'mysql://a/b'\n", "database: mysql is no database for the store"),
        ("[database]\nurl = 'sqlite://'\n", "database: SQLite needs the path of a file"),
        ("[database]\nurl = 'here'\n", "database: url is none like postgresql://user@host/name"),
        ("[vault]\nhsm_module = '/a'\n", "vault: hsm_module and hsm_token go together"),
        ("[mail]\nhost = 'a'\n", "mail: sender is needed"),
        ("[limits.address]\nburst = 0\nper_second = 1\n", "limits.address: "),
        ("[limits]\nsessions = 9000\n", "limits: sessions"),
        ("[drain]\nseconds = -1\n", "drain: "),
        ("[requests]\nunlock_minutes = 0\n", "requests: unlock_minutes"),
        ("[authentication]\ndirectory_failures = 0\n", "authentication: directory_failures"),
        ("[authentication]\ndirectory_minutes = 2000\n", "authentication: directory_minutes"),
        ("[listen\n", "is no TOML"),
        ("a = '\udcff'", "is no TOML"),
    ],
)
def test_what_is_wrong_is_named(text: str, told: str) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        parse(text.encode("utf-8", "surrogateescape"), "server.toml")
    assert told in str(refused.value) and str(refused.value).startswith("server.toml")


def test_too_large_a_file_is_refused() -> None:
    with pytest.raises(ConfigurationRefused):
        parse(b"#" * (256 * 1024 + 1), "server.toml")


def test_names_of_the_certificate() -> None:
    given = parse(b'[listen]\nnames = ["CMS.example.test", "192.0.2.7", "2001:db8::1", "cms"]\n', "x")
    assert names_of(given) == (("cms.example.test", "cms"), ("192.0.2.7", "2001:db8::1"))
    dns, addresses = names_of(parse(b"", "x"))
    assert "localhost" in dns and addresses == ("127.0.0.1",)


def test_limits_are_rates() -> None:
    rates = parse(b"[limits.person]\nburst = 7\nper_second = 0.5\n", "x").limits.rates()
    assert rates[Scope.PERSON] == Rate(7, 0.5)


def test_every_key_is_documented() -> None:
    text = DOCUMENTED.read_text()
    missing = [name for name in _keys(Configuration, "") if f"`{name}`" not in text]
    assert missing == []


def test_the_documented_example_is_accepted() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", DOCUMENTED.read_text(), re.DOTALL)
    parse(example.encode(), "example")


def _keys(kind: object, path: str) -> list[str]:
    """Dotted names of the document's keys; what other documents describe (a directory) is one key."""
    found = []
    assert isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    for one in msgspec.structs.fields(kind):
        name = f"{path}{one.name}"
        nested = one.type
        own = isinstance(nested, type) and issubclass(nested, msgspec.Struct)
        if own and nested.__module__ == Configuration.__module__ and nested.__name__ != "Bucket":
            found += _keys(nested, f"{name}.")
        else:
            found.append(name)
    return found
