"""The daemon's configuration: one TOML file, every value optional, unknown names refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from cardwright_cardops.errors import CardwrightError

MAX_OCTETS: Final = 1 << 16


class ConfigInvalid(CardwrightError):
    """The configuration file cannot be read, or says something that is not known."""

    code = "DAEMON_CONFIG_INVALID"
    default_effect = "The daemon was not started."
    default_advice = "Correct the file; docs/daemon.md lists what it may hold."


class Pins(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How PINs are asked for.

    ``pinentry``: the program; "" is pinentry where there is one, else the system's dialog. ``headless``: calls of the
    local API may carry PINs. ``seconds``: for a person to type.
    """

    pinentry: str = ""
    headless: bool = False
    seconds: float = 300.0


class Pkcs11Module(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A PKCS#11 module whose tokens are devices: its absolute path, and what its process finds in the environment.

    ``look_seconds``: between looks for tokens that came or went; 0: only when somebody asks.
    """

    path: str
    environment: dict[str, str] = {}
    look_seconds: float = 10.0


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The server: ``address`` is HOST:PORT; ``folder`` holds the workstation's key and certificates."""

    address: str
    folder: str = ""


class Updates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``spread``: seconds over which checks after an insertion are spread. ``check_seconds``: for the server to
    answer one. ``at_insertion``: whether the server is asked when a card comes in."""

    at_insertion: bool = True
    spread: float = 60.0
    check_seconds: float = 5.0


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything. ``folder`` holds the socket; "" is the place where clients look. ``pcsc``: watch PC/SC readers."""

    folder: str = ""
    pcsc: bool = True
    reflection: bool = True
    log_level: str = "info"
    pins: Pins = Pins()
    pkcs11: tuple[Pkcs11Module, ...] = ()
    server: Server | None = None
    updates: Updates = Updates()


def default_file() -> Path:
    """Where the file is looked for: XDG's place for configuration."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "cardwright" / "daemon.toml"


def load(path: Path | None = None) -> Config:
    """The configuration in ``path``; the defaults where no path is given and no file is there. Raises ConfigInvalid."""
    place = path or default_file()
    try:
        with place.open("rb") as file:
            text = file.read(MAX_OCTETS + 1)
    except FileNotFoundError:
        if path is None:
            return Config()
        raise ConfigInvalid(f"There is no file {place}.") from None
    except OSError as error:
        raise ConfigInvalid(f"{place} cannot be read: {error.strerror}.") from error
    if len(text) > MAX_OCTETS:
        raise ConfigInvalid(f"{place} is longer than {MAX_OCTETS} octets.")
    return parse(text, str(place))


def parse(text: bytes, name: str) -> Config:
    """The configuration in ``text``. Raises ConfigInvalid, naming the file ``name``."""
    try:
        made = msgspec.toml.decode(text, type=Config)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"{name}: {error}.") from error
    if not (0 <= made.updates.spread <= 86400 and 0 < made.updates.check_seconds <= 60):
        raise ConfigInvalid(f"{name}: updates.spread is 0 to 86400 seconds, updates.check_seconds at most 60.")
    if not 1 <= made.pins.seconds <= 3600:
        raise ConfigInvalid(f"{name}: pins.seconds is 1 to 3600 seconds.")
    if made.log_level not in ("debug", "info", "warning", "error"):
        raise ConfigInvalid(f"{name}: log_level is debug, info, warning or error.")
    if any(not Path(module.path).is_absolute() for module in made.pkcs11):
        raise ConfigInvalid(f"{name}: the path of a PKCS#11 module is absolute.")
    if any(module.look_seconds and not 1 <= module.look_seconds <= 86400 for module in made.pkcs11):
        raise ConfigInvalid(f"{name}: look_seconds of a PKCS#11 module is 1 to 86400 seconds, or 0.")
    return made
