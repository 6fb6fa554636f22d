"""``cardwright cert``: certificates in slots."""

from __future__ import annotations

from pathlib import Path

import click
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.iso7816.status import NoSpace
from cardwright_cardops.piv import programs
from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.program.items import Program

from .cards import Choice, card_options, the_cards
from .files import read_bounded, require_writable, write_output
from .key import SlotOccupied
from .management import STAGE, Manager, look, management_options
from .output import say
from .secrets import SecretSource


class NoCertificate(CardwrightError):
    """The slot has no certificate."""

    code = "NO_CERTIFICATE"
    default_effect = "Nothing on the card was changed."
    default_advice = "'cardwright card show' lists what is on the card."


class KeyMismatch(CardwrightError):
    """A certificate for another key than the slot's."""

    code = "KEY_MISMATCH"
    default_effect = "Nothing on the card was changed."
    default_advice = "Give the certificate of the key that is in the slot."


@click.group("cert")
def command() -> None:
    """Certificates on a card: import, export, delete."""


@command.command("export")
@click.argument("slot")
@card_options
@click.option("--out", type=click.Path(path_type=Path), help="Write it here; standard output without.")
@click.option("--der", is_flag=True, help="DER instead of PEM.")
def export(slot: str, choice: Choice, out: Path | None, der: bool) -> None:
    """Print the certificate of SLOT. No PIN is needed."""
    where = Slot.named(slot)
    require_writable(out)

    def program() -> Program[x509.Certificate]:
        yield from programs.read_marks("read")
        found = yield from programs.read_certificate(where, "read")
        if found is None:
            raise NoCertificate(f"Slot {where.label} has no certificate.")
        return programs.load_certificate(found.der)

    with the_cards().open(choice) as card:
        certificate = card.run(program())
    write_output(out, certificate.public_bytes(Encoding.DER if der else Encoding.PEM))


@command.command("import")
@click.argument("slot")
@click.argument("file", type=click.Path(path_type=Path))
@card_options
@click.option("--compress", is_flag=True, help="Store it gzip-compressed.")
@click.option("--overwrite", is_flag=True, help="Replace the certificate that is in the slot.")
@management_options
def import_certificate(
    slot: str, file: Path, choice: Choice, compress: bool, overwrite: bool,
    ask_key: bool, management_key_file: Path | None, secrets_fd: int | None, pinentry: str | None,
) -> None:  # fmt: skip
    """Write the certificate in FILE (PEM or DER) to SLOT.

    Where the card tells its keys, a certificate of another key is refused.
    """
    where = Slot.named(slot)
    certificate = load_any_certificate(read_bounded(file))
    _require_usable_key(certificate)
    with the_cards().open(choice) as card:
        source = SecretSource(
            descriptor=secrets_fd, pinentry=pinentry, act=f"write a certificate to {card.summary.name}"
        )
        marks, inventory = look(card)
        key = card.run(programs.slot_key(where))
        if key is not None and key != certificate.public_key():
            raise KeyMismatch(f"This certificate is not for the key in slot {where.label}.")
        if not overwrite and card.run(programs.read_certificate(where)) is not None:
            raise SlotOccupied(f"Slot {where.label} of {card.summary.name} already has a certificate.")
        content = programs.certificate_content(certificate, compress=compress)
        doing = f"writing the certificate of slot {where.label}"
        work = programs.write_object(where.certificate_tag, content, doing, STAGE)
        try:
            Manager(card, source, management_key_file, ask=ask_key).run(work, marks, inventory)
        except NoSpace as error:
            if not compress:
                error.advice += " With --compress it may fit."
            raise
        say(f"The certificate is in slot {where.label} of {card.summary.name}.")


@command.command("delete")
@click.argument("slot")
@card_options
@click.option("--attestation", is_flag=True, help="Delete even that of slot F9, which only the card's maker can issue.")
@management_options
def delete(
    slot: str, choice: Choice, attestation: bool, ask_key: bool, management_key_file: Path | None,
    secrets_fd: int | None, pinentry: str | None,
) -> None:  # fmt: skip
    """Delete the certificate of SLOT. Its key stays."""
    where = Slot.named(slot)
    if where is Slot.ATTESTATION and not attestation:
        raise click.UsageError(
            "Slot F9 has the certificate of the card's maker, which cannot be made again: say --attestation as well."
        )
    with the_cards().open(choice) as card:
        source = SecretSource(
            descriptor=secrets_fd, pinentry=pinentry, act=f"delete a certificate of {card.summary.name}"
        )
        marks, inventory = look(card)
        if card.run(programs.read_certificate(where)) is None:
            raise NoCertificate(f"Slot {where.label} has no certificate.")
        doing = f"deleting the certificate of slot {where.label}"
        work = programs.write_object(where.certificate_tag, b"", doing, STAGE)
        Manager(card, source, management_key_file, ask=ask_key).run(work, marks, inventory)
        say(f"Slot {where.label} of {card.summary.name} has no certificate any more.")


def _require_usable_key(certificate: x509.Certificate) -> None:
    """Refuse a certificate of a key that no slot holds. Raises MalformedCertificate, UnsupportedAlgorithm."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise programs.MalformedCertificate("The certificate's key is damaged, or of a kind nobody knows.") from error
    Algorithm.of(key)  # type: ignore[arg-type]


def load_any_certificate(raw: bytes) -> x509.Certificate:
    """One certificate in PEM or DER. Raises MalformedCertificate."""
    if raw.lstrip().startswith(b"-----"):
        try:
            return x509.load_pem_x509_certificate(raw)
        except (ValueError, x509.InvalidVersion) as error:
            raise programs.MalformedCertificate("The file holds no PEM certificate that can be read.") from error
    return programs.load_certificate(raw)
