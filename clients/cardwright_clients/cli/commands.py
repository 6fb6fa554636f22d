"""The commands, and the help that lists them. Nothing is imported for it: it has to be there at once."""

from __future__ import annotations

COMMANDS = {
    "agent": ("agent", "Notifications on the desktop: what is due, Start and Later"),
    "card": ("card", "See, set up and check cards"),
    "cert": ("cert", "Certificates on a card: import, export, delete"),
    "completion": ("completion", "Completion for bash, zsh or fish"),
    "daemon": ("daemon", "The workstation daemon, in the foreground; enrolment"),
    "escrow": ("escrow", "Keys that the server keeps: list, put back, download"),
    "demo": ("demo", "Show the main job: two cards from nothing to finished"),
    "key": ("key", "Keys on a card: generate, import, attest"),
    "pin": ("pin", "PIN and PUK: status, change, unblock"),
    "readers": ("readers", "List the readers and what is in them"),
    "report": ("report", "The workstation, for the help desk"),
    "server": ("server", "The card management server"),
    "sign-in": ("sign_in", "Prove with a card who you are, to the server or a portal"),
    "sim": ("sim", "Virtual cards for tests and trials"),
    "status": ("status", "The daemon, its cards, and what is due"),
    "unlock": ("unlock", "A new PIN with the help of the server"),
    "update": ("update", "What the server wants done: see it, start it, put it off"),
    "watch": ("watch", "Readers, cards and operations as they change"),
}
"""Module and short help of each command."""

ABOUT = """\
PIV smart cards that keep themselves current.

A card is chosen with --serial, --guid or --reader; with one card present no
choice is needed. PINs are asked for, or read from --secrets-fd; never give
one on the command line.

Exit codes: 0 done, 1 failed (or a check found errors), 2 wrong usage (or a
check could not run).
"""
"""Wrapped as click wraps it on 80 columns."""


def help_text() -> str:
    """What click says for ``--help`` on 80 columns."""
    about = "".join(f"  {line}".rstrip() + "\n" for line in ABOUT.splitlines())
    width = max(map(len, COMMANDS))
    rows = "".join(f"  {name:<{width}}  {text}\n" for name, (_, text) in sorted(COMMANDS.items()))
    return (
        f"Usage: cardwright [OPTIONS] COMMAND [ARGS]...\n\n{about}\n"
        "Options:\n"
        "  --version   Show the version and exit.\n"
        "  -h, --help  Show this message and exit.\n\n"
        f"Commands:\n{rows}"
    )
