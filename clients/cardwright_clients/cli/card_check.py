"""``cardwright card check``: conformance of a card or an image."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from cardwright_cardops.check import (
    CardData,
    Level,
    Report,
    Severity,
    check,
    load_certificates,
    load_crls,
    load_image,
    load_ocsp,
)
from cardwright_cardops.check.live import read_card
from cardwright_cardops.errors import CardwrightError

from .cards import Choice, NoPins, card_options, the_cards
from .output import json_option, say, show_json
from .secrets import AskedPins, SecretSource, secret_options

COULD_NOT_RUN = 2


class NotATime(CardwrightError):
    """A time that cannot be read."""

    code = "TIME_UNREADABLE"
    default_effect = "Nothing was checked."
    default_advice = "Give a time like 2026-11-22T12:00:00Z."


@click.command("check")
@card_options
@click.option("--image", type=click.Path(path_type=Path), help="Check this card image (JSON) instead of a card.")
@click.option("--level", type=click.Choice([level.value for level in Level]), default="basic", show_default=True)
@click.option("--at", "moment", help="As of this time, ISO 8601; now without.")
@click.option("--trust", type=click.Path(path_type=Path), multiple=True,
              help="Trust anchors and further certificates, a PEM bundle.")  # fmt: skip
@click.option("--crl", type=click.Path(path_type=Path), multiple=True, help="CRLs, a PEM bundle.")
@click.option("--ocsp", type=click.Path(path_type=Path), multiple=True, help="An OCSP response, DER.")
@click.option("--with-pin", is_flag=True, help="Verify the PIN, read what it protects and try every key.")
@secret_options
@json_option
def command(
    choice: Choice, image: Path | None, level: str, moment: str | None, trust: tuple[Path, ...],
    crl: tuple[Path, ...], ocsp: tuple[Path, ...], with_pin: bool, secrets_fd: int | None,
    pinentry: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Check the data on a card, or in an image, against the standards.

    Exit codes: 0 good, 1 there are findings of severity error, 2 the check could not run.
    """
    try:
        anchors = [one for path in trust for one in load_certificates(path)]
        lists = [one for path in crl for one in load_crls(path)]
        responses = [one for path in ocsp for one in load_ocsp(path)]
        at = _time(moment)
        data = load_image(image) if image is not None else _live(choice, with_pin, secrets_fd, pinentry)
        report = check(data, level=Level(level), at=at, trust=anchors, crls=lists, ocsp=responses)
    except CardwrightError as error:
        error.exit_code = COULD_NOT_RUN  # type: ignore[attr-defined]
        raise
    if as_json:
        show_json(report.to_json())
    else:
        _show(report)
    raise click.exceptions.Exit(0 if report.good else 1)


def _live(choice: Choice, with_pin: bool, secrets_fd: int | None, pinentry: str | None) -> CardData:
    with the_cards().open(choice) as card:
        name = card.summary.name
        pins = AskedPins(SecretSource(descriptor=secrets_fd, pinentry=pinentry, act=f"check {name}"))
        return card.run(read_card(with_pin=with_pin, name=name), pins if with_pin else NoPins())


def _show(report: Report) -> None:
    marks = {Severity.ERROR: "error  ", Severity.WARNING: "warning", Severity.INFO: "info   "}
    for finding in report.findings:
        say(f"{marks[finding.severity]} {finding.object:<7} {finding.code}: {finding.message}")
        say(f"                {finding.reference}")
    counts = ", ".join(f"{len(report.of(severity))} {severity.value}s" for severity in Severity)
    verdict = "good" if report.good else "not good"
    say(f"{verdict} at level {report.level.value} as of {report.at:%Y-%m-%d %H:%M} ({counts})")


def _time(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise NotATime(f"'{text}' is not a time.") from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
