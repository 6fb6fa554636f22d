"""``cardwright daemon``: the workstation daemon, in the foreground; and making it known to a server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.piv.pins import NoPin

from .daemon_line import daemon_runs, run
from .files import read_bounded, write_output
from .output import json_option, say, show_json
from .secrets import SecretSource, on_terminal

if TYPE_CHECKING:
    from cardwright_daemon.link.credentials import Credentials

MAX_TOKEN: Final = 512

config_option = click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="Configuration file (TOML)."
)


class OtherServerConfigured(CardwrightError):
    """The daemon's configuration names another server than the one to enrol with."""

    code = "OTHER_SERVER_CONFIGURED"
    default_effect = "Nothing was sent to any server."
    default_advice = "Take the [server] section out of the configuration first, if the workstation is to move."


@click.group("daemon", invoke_without_command=True)
@config_option
@json_option
@click.pass_context
def command(context: click.Context, config: Path | None, as_json: bool) -> None:
    """Run the workstation daemon until interrupted. One runs for each user.

    It watches the readers, asks for PINs, and does what the server wants done on cards once you agree. The commands
    that need it find it by its socket.
    """
    if context.invoked_subcommand is not None:
        if config is not None or as_json:
            raise click.UsageError(f"Options come after '{context.invoked_subcommand}'.")
        return
    from cardwright_daemon.config import load
    from cardwright_daemon.start import serve

    def ready(socket: Path) -> None:
        if as_json:
            show_json({"socket": str(socket)}, indent=None)
        else:
            say(f"The daemon listens at {socket}. Ctrl-C ends it.")

    serve(load(config), ready)


@command.command("enrol")
@click.option("--server", "address", metavar="HOST:PORT", required=True, help="The server's address for workstations.")
@click.option("--entry", metavar="HOST:PORT", required=True, help="Its address for newcomers.")
@click.option("--host", default="", metavar="NAME", help="The name that the token was made for; else this machine's.")
@click.option("--token-fd", type=click.IntRange(0, 0x7FFFFFFF), metavar="N",
              help="Read the token from file descriptor N.")  # fmt: skip
@config_option
@json_option
def enrol(
    address: str, entry: str, host: str, token_fd: int | None, config: Path | None, as_json: bool
) -> None:
    """Make this workstation known to a server, by a token that an administrator made for it.

    The token is asked for, or read from --token-fd. The key is made here and stays here. The daemon's
    configuration gets a [server] section if it has none.
    """
    from cardwright_daemon.config import Server, default_file, load, parse
    from cardwright_daemon.link import credentials
    from cardwright_daemon.link.enrolment import Token, enrol, place_of

    for place in (address, entry):
        place_of(place)
    configured = load(config).server
    if configured is not None and configured.address != address:
        raise OtherServerConfigured(f"The daemon is configured for the server at {configured.address}.")
    folder = Path(configured.folder) if configured is not None and configured.folder else credentials.default_folder()
    token = Token.parse(_token_text(token_fd))
    made: Credentials = run(enrol(folder, entry, token, host))
    written = config or default_file()
    if configured is None:
        text = read_bounded(written) if written.exists() else b""
        added = text + (b"" if not text or text.endswith(b"\n") else b"\n") + _section(address)
        assert parse(added, str(written)).server == Server(address)
        written.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_output(written, added)
    ends = made.ends.isoformat()
    if as_json:
        show_json({"server": address, "credentials": str(folder / credentials.FILE), "until": ends,
                   "config": str(written), "config_changed": configured is None})  # fmt: skip
        return
    say(f"This workstation is known to the server at {address}, until {made.ends:%Y-%m-%d}; it renews that by itself.")
    if configured is None:
        say(f"The server is in {written} now.")
    if daemon_runs():
        say("Restart the daemon that runs, so that it uses the server: systemctl --user restart cardwright-daemon.")


def _token_text(descriptor: int | None) -> str:
    """What was typed or piped in. Raises NoPin, UsageError."""
    if descriptor is None:
        if not on_terminal():
            raise click.UsageError("There is no terminal to ask for the token on: give --token-fd.")
        source = SecretSource(descriptor=None, pinentry=None, act="enrol this workstation")
        return source.password("enrolment token").reveal().decode("utf-8", "replace")
    try:
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.readline(MAX_TOKEN).decode("utf-8", "replace")
    except OSError as error:
        raise NoPin(f"File descriptor {descriptor} cannot be read: {error.strerror}.") from error


def _section(address: str) -> bytes:
    """The [server] section of daemon.toml; an address holds nothing that TOML would read otherwise."""
    return f'\n[server]\naddress = "{address}"\n'.encode()
