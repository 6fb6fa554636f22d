"""The server's configuration: one TOML document, every key with a default, unknown keys refused with their path.

Nothing secret stands in it: passwords are in files of their own that it names, the vault's passphrase is in none.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import ssl
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

import msgspec
from cryptography import x509

from cardwright_cardops.errors import CardwrightError

from .authentication.counters import POLICIES, LockPolicy
from .authentication.model import Method
from .issuance.tbs import Places
from .limits import Rate, Scope
from .people.ldap_directory import LdapDirectoryConfig
from .people.mapping import CertificateMapping
from .store.engine import parse_url

MAX_DOCUMENT = 256 * 1024
FILE = "server.toml"


class ConfigurationRefused(CardwrightError):
    """The configuration is malformed, or names what does not exist. The message has the key's path."""

    code = "CONFIGURATION_REFUSED"
    default_effect = "Nothing was started."
    default_advice = "Correct the file; docs/server-operation.md lists every key."


def host_and_port(text: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port``. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not (colon and host.strip("[]") and port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError(f"{text!r} is no host:port")
    return host.strip("[]"), int(port)


class Listen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the server listens: ``host:port``, "" for not at all; port 0 takes a free one.

    ``calls``: gRPC for workstations, operators and services, by client certificate. ``entry``: gRPC for those who
    have none yet: enrolment. ``http``: CRL, OCSP and certificates of authorities, plain HTTP. ``metrics``: Prometheus
    and health; this host only unless set otherwise. ``names``: DNS names and IP addresses by which clients know the
    server, for its TLS certificate.
    """

    calls: str = "127.0.0.1:7443"
    entry: str = "127.0.0.1:7444"
    http: str = "127.0.0.1:7480"
    metrics: str = "127.0.0.1:7490"
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("calls", "entry", "http", "metrics"):
            text = getattr(self, name)
            if text:
                host_and_port(text)
        if not self.calls:
            raise ValueError("calls is needed")


class DatabaseSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``url``: ``postgresql://user@host/name`` or ``sqlite:///path``; "" is SQLite in the data folder."""

    url: str = ""
    pool: int = 10
    second_medium: str = ""
    """Folder of the second medium; it belongs on another disk than the database."""

    def __post_init__(self) -> None:
        if not 2 <= self.pool <= 200:
            raise ValueError("pool is 2 to 200")
        if self.url:
            parse_url(self.url)


class VaultSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the vault is. Without ``sockets`` the server starts one of its own, which ends with it.

    ``sockets`` and ``uid``: one that runs under another user. ``hsm_module``, ``hsm_token``: keys in a PKCS#11 token.
    """

    directory: str = ""
    sockets: str = ""
    uid: int | None = None
    hsm_module: str = ""
    hsm_token: str = ""

    def __post_init__(self) -> None:
        if bool(self.hsm_module) != bool(self.hsm_token):
            raise ValueError("hsm_module and hsm_token go together")


class Issuance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``status_base``: the address in certificates, under which ``http`` is reached; no slash at its end.

    ``subject``: the part of subjects that all certificates share (RFC 4514). ``profiles``: a folder of certificate
    profiles over the shipped ones. ``card_makers``: a PEM file of roots and intermediates of makers of cards.
    """

    status_base: str = ""
    subject: str = "O=Cardwright"
    profiles: str = ""
    card_makers: str = ""
    printed_issuer: str = ""

    def __post_init__(self) -> None:
        if self.status_base:
            Places(self.status_base)
        try:
            x509.Name.from_rfc4514_string(self.subject)
        except ValueError as error:
            raise ValueError(f"subject {self.subject!r} is no name like 'O=Example,C=US'") from error


class Numbers(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The issuer's part of FASC-N (``devices.numbering.Issuer``), decimal digits; 9999 is no agency."""

    agency_code: str = "9999"
    system_code: str = "9999"
    organizational_category: str = "1"
    organizational_identifier: str = "0000"
    person_association: str = "1"


class Mail(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where mail goes; with no ``host`` none is sent, and none is queued."""

    host: str = ""
    port: int = 587
    sender: str = ""
    sender_name: str = "cardwright"
    security: Literal["none", "starttls", "tls"] = "starttls"
    username: str = ""
    password_file: str = ""
    ca_file: str = ""
    portal: str = ""
    organization: str = ""

    def __post_init__(self) -> None:
        if self.host and "@" not in self.sender:
            raise ValueError("sender is needed: an address")


class Bucket(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``burst`` calls at once, refilled by ``per_second``."""

    burst: float
    per_second: float

    def __post_init__(self) -> None:
        Rate(self.burst, self.per_second)


class LimitsSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Calls of one caller, and how much is done at once. ``address``: for callers who show no certificate."""

    workstation: Bucket = Bucket(burst=60, per_second=10)
    operator: Bucket = Bucket(burst=200, per_second=50)
    person: Bucket = Bucket(burst=30, per_second=2)
    address: Bucket = Bucket(burst=30, per_second=1)
    sessions: int = 500
    """Card sessions at the same time."""
    streams: int = 5000
    """Open streams at the same time, card sessions among them."""
    waiting: float = 5.0
    """Seconds that due-checks wait until they are taken up before further ones are turned away."""

    def __post_init__(self) -> None:
        if not 1 <= self.sessions <= self.streams:
            raise ValueError("sessions is at least 1, and at most streams")
        if not 0 < self.waiting <= 60:
            raise ValueError("waiting is above 0, and at most 60 seconds")

    def rates(self) -> dict[Scope, Rate]:
        """As ``limits.Limits`` wants them."""
        return {scope: Rate(*msgspec.structs.astuple(getattr(self, scope.value))) for scope in Scope}


class RequestsSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``unlock_minutes``: how long a request to unlock waits, and the emergency password for it."""

    unlock_minutes: int = 10

    def __post_init__(self) -> None:
        if not 1 <= self.unlock_minutes <= 1440:
            raise ValueError("unlock_minutes is 1 to 1440")

    @property
    def unlock(self) -> timedelta:
        """The same."""
        return timedelta(minutes=self.unlock_minutes)


class AuthenticationSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``directory_failures`` wrong passwords of the directory within ``directory_minutes`` lock the method for as long:
    tighter than the directory's own lock-out, so that nobody is locked out of it through this server.
    """

    directory_failures: int = 3
    directory_minutes: int = 30

    def __post_init__(self) -> None:
        if not 1 <= self.directory_failures <= 50:
            raise ValueError("directory_failures is 1 to 50")
        if not 1 <= self.directory_minutes <= 1440:
            raise ValueError("directory_minutes is 1 to 1440")

    @property
    def lock_outs(self) -> Mapping[Method, LockPolicy]:
        """When which method locks."""
        period = timedelta(minutes=self.directory_minutes)
        return {**POLICIES, Method.LDAP_PASSWORD: LockPolicy(self.directory_failures, period, period)}


class Drain(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``seconds`` that card sessions have to end when the server is stopped."""

    seconds: float = 60.0

    def __post_init__(self) -> None:
        if not 0 <= self.seconds <= 3600:
            raise ValueError("seconds is 0 to 3600")


class Configuration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole document."""

    listen: Listen = Listen()
    database: DatabaseSection = DatabaseSection()
    vault: VaultSection = VaultSection()
    issuance: Issuance = Issuance()
    numbers: Numbers = Numbers()
    directory: LdapDirectoryConfig | None = None
    certificate_fields: CertificateMapping = CertificateMapping()
    mail: Mail = Mail()
    authentication: AuthenticationSection = AuthenticationSection()
    requests: RequestsSection = RequestsSection()
    limits: LimitsSection = LimitsSection()
    drain: Drain = Drain()


@dataclass(frozen=True, slots=True)
class Installation:
    """A configuration, and where everything of it lies. ``vault`` is None for a vault that somebody else runs."""

    config: Configuration
    data: Path
    database: str
    second_medium: Path
    vault: Path | None
    vault_sockets: Path
    tls: Path
    run: Path

    @property
    def local_socket(self) -> Path:
        """The host's own gRPC socket."""
        return self.run / "server.sock"

    @property
    def backups(self) -> Path:
        """Where backups go that are asked for by a call."""
        return self.data / "backups"

    @property
    def lock(self) -> Path:
        """Locked by the process that serves from this folder."""
        return self.run / "lock"

    @property
    def listening(self) -> Path:
        """Addresses of the running server (JSON)."""
        return self.run / "listening.json"

    @property
    def status_base(self) -> str:
        """The address in certificates."""
        return self.config.issuance.status_base or f"http://{self.config.listen.http or 'localhost'}"


def load(data: Path | None = None, file: Path | None = None) -> Installation:
    """The installation in a data folder; ``file`` takes the place of its ``server.toml``, which need not exist.

    Raises ConfigurationRefused.
    """
    folder = (data or default_data()).absolute()
    source = file or folder / FILE
    try:
        text = source.read_bytes()[: MAX_DOCUMENT + 1]
    except FileNotFoundError:
        if file is not None:
            raise ConfigurationRefused(f"{file} does not exist") from None
        text = b""
    except OSError as error:
        raise ConfigurationRefused(f"{source} cannot be read: {error.strerror}") from error
    return _installation(parse(text, str(source)), folder)


def parse(text: bytes, source: str) -> Configuration:
    """Read a document. Raises ConfigurationRefused."""
    if len(text) > MAX_DOCUMENT:
        raise ConfigurationRefused(f"{source} is too large")
    try:
        document = tomllib.loads(text.decode())
        return msgspec.convert(document, Configuration)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationRefused(f"{source} is no TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise ConfigurationRefused(f"{source}: {_path_first(str(error))}") from error


def names_of(config: Configuration) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """DNS names and IP addresses for the server's TLS certificate."""
    given = config.listen.names or (socket.gethostname(), "localhost", "127.0.0.1")
    addresses = tuple(name for name in given if _is_address(name))
    return tuple(dict.fromkeys(name.lower() for name in given if name not in addresses)), addresses


def secret_file(path: str, key: str = "mail.password_file") -> bytes:
    """The first line of a file with a password, b"" for no file. ``key`` names it. Raises ConfigurationRefused."""
    if not path:
        return b""
    try:
        return Path(path).read_bytes()[:4096].partition(b"\n")[0]
    except OSError as error:
        raise ConfigurationRefused(f"{key}: {path} cannot be read: {error.strerror}") from error


def require_files(config: Configuration) -> None:
    """That files which are needed only later can be used: passwords, and authorities of directory and mail server.

    Raises ConfigurationRefused.
    """
    authorities = {"mail.ca_file": config.mail.ca_file}
    secret_file(config.mail.password_file)
    if config.directory is not None:
        server = config.directory.server
        authorities["directory.server.ca_file"] = server.ca_file
        secret_file(server.bind_password_file, "directory.server.bind_password_file")
    for key, path in authorities.items():
        try:
            if path:
                ssl.create_default_context(cafile=path)
        except OSError as error:  # ssl.SSLError too
            raise ConfigurationRefused(f"{key}: {path} has no certificates in PEM: {error.strerror}") from error


def makers_of(config: Configuration) -> tuple[x509.Certificate, ...]:
    """Certificates of makers of cards. Raises ConfigurationRefused."""
    path = config.issuance.card_makers
    if not path:
        return ()
    try:
        return tuple(x509.load_pem_x509_certificates(Path(path).read_bytes()))
    except (OSError, ValueError) as error:
        raise ConfigurationRefused(f"issuance.card_makers: {path} has no certificates in PEM") from error


def _installation(config: Configuration, data: Path) -> Installation:
    vault = config.vault
    own = data / "vault" if not vault.directory else Path(vault.directory)
    run = data / "run"
    return Installation(
        config,
        data,
        config.database.url or f"sqlite:///{data / 'store.db'}",
        Path(config.database.second_medium) if config.database.second_medium else data / "second-medium",
        None if vault.sockets else own,
        Path(vault.sockets) if vault.sockets else run / "vault",
        data / "tls",
        run,
    )


def _path_first(message: str) -> str:
    """``listen.call is no key`` out of what msgspec says."""
    text, _, place = message.partition(" - at `$")
    place = place.rstrip("`").removeprefix(".")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", text)
    if unknown is not None:
        return f"{place}.{unknown[1]} is no key" if place else f"{unknown[1]} is no key"
    return f"{place}: {text}" if place else text


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def default_data() -> Path:
    """``$XDG_DATA_HOME/cardwright/server``."""
    base = os.environ.get("XDG_DATA_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".local/share") / "cardwright" / "server"
