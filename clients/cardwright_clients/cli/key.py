"""``cardwright key``: keys in slots."""

from __future__ import annotations

from pathlib import Path

import click
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.iso7816.status import WrongData
from cardwright_cardops.piv import programs
from cardwright_cardops.piv.algorithms import Algorithm, PinPolicy, PrivateKey, TouchPolicy
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.piv.vendor.attestation import Attestation, verify_attestation

from .cards import Choice, OpenCard, card_options, the_cards
from .files import FileUnusable, read_bounded, require_writable, write_output
from .management import STAGE, Manager, look, management_options
from .output import json_option, say, show_fields, show_json
from .secrets import SecretSource

PIN_POLICIES = click.Choice([policy.name.lower() for policy in PinPolicy])
TOUCH_POLICIES = click.Choice([policy.name.lower() for policy in TouchPolicy])


class SlotOccupied(CardwrightError):
    """A key or certificate stands where another was to be written."""

    code = "SLOT_OCCUPIED"
    default_effect = "Nothing on the card was changed."
    default_advice = "Choose another slot, or say --overwrite: what is in the slot is then gone for good."


class KeyFileUnreadable(CardwrightError):
    """A private key file that is none, or is of a kind that no slot holds."""

    code = "KEY_FILE"
    default_effect = "Nothing on the card was changed."
    default_advice = "Give an unencrypted or password-protected private key in PEM, or DER PKCS #8."


@click.group("key")
def command() -> None:
    """Keys on a card: generate, import, attest."""


@command.command("generate")
@click.argument("slot")
@card_options
@click.option("--algorithm", default="p256", show_default=True, help="rsa2048, p256, p384, ed25519, …")
@click.option("--pin-policy", type=PIN_POLICIES, default="default", help="When the key wants the PIN.")
@click.option("--touch-policy", type=TOUCH_POLICIES, default="default", help="When the key wants a touch.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the public key (PEM) here.")
@click.option("--overwrite", is_flag=True, help="Replace the key that is in the slot.")
@management_options
def generate(
    slot: str, choice: Choice, algorithm: str, pin_policy: str, touch_policy: str, out: Path | None,
    overwrite: bool, ask_key: bool, management_key_file: Path | None, secrets_fd: int | None, pinentry: str | None,
) -> None:  # fmt: skip
    """Make a key on the card in SLOT and print its public key."""
    where, what = Slot.named(slot), Algorithm.named(algorithm)
    require_writable(out)
    with the_cards().open(choice) as card:
        source = SecretSource(descriptor=secrets_fd, pinentry=pinentry, act=f"make a key on {card.summary.name}")
        marks, inventory = look(card)
        _refuse_occupied(card, where, overwrite)
        say(f"Making a {what.label} key in slot {where.label}; do not pull the card.", err=True)
        work = programs.generate_key(
            where, what, PinPolicy[pin_policy.upper()], TouchPolicy[touch_policy.upper()], STAGE
        )
        public = Manager(card, source, management_key_file, ask=ask_key).run(work, marks, inventory)
    _hand_over(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), out, where)


def _hand_over(pem: bytes, out: Path | None, slot: Slot) -> None:
    """Write a public key that stands on the card by now; standard output gets it where ``out`` cannot take it."""
    try:
        write_output(out, pem)
    except FileUnusable as error:
        printed = out is not None and str(out) != "-"
        if printed:
            write_output(None, pem)
        raise FileUnusable(
            error.message,
            effect=f"The new key IS in slot {slot.label} of the card; one that was there before is gone.",
            advice=(
                "The public key is printed on standard output: keep it."
                if printed
                else f"'cardwright key attest {slot.label.lower()} --out FILE' writes a statement that has it."
            ),
        ) from error


@command.command("import")
@click.argument("slot")
@click.argument("file", type=click.Path(path_type=Path))
@card_options
@click.option("--pin-policy", type=PIN_POLICIES, default="default", help="When the key wants the PIN.")
@click.option("--touch-policy", type=TOUCH_POLICIES, default="default", help="When the key wants a touch.")
@click.option("--overwrite", is_flag=True, help="Replace the key that is in the slot.")
@management_options
def import_key(
    slot: str, file: Path, choice: Choice, pin_policy: str, touch_policy: str, overwrite: bool,
    ask_key: bool, management_key_file: Path | None, secrets_fd: int | None, pinentry: str | None,
) -> None:  # fmt: skip
    """Write the private key in FILE to SLOT.

    A password of the file is read first from --secrets-fd, or asked for.
    """
    where = Slot.named(slot)
    with the_cards().open(choice) as card:
        source = SecretSource(descriptor=secrets_fd, pinentry=pinentry, act=f"import a key into {card.summary.name}")
        key = load_private_key(read_bounded(file), source)
        Algorithm.of(key.public_key())
        marks, inventory = look(card)
        _refuse_occupied(card, where, overwrite)
        work = programs.import_key(where, key, PinPolicy[pin_policy.upper()], TouchPolicy[touch_policy.upper()], STAGE)
        Manager(card, source, management_key_file, ask=ask_key).run(work, marks, inventory)
        say(f"The key is in slot {where.label} of {card.summary.name}.")


@command.command("attest")
@click.argument("slot")
@card_options
@click.option("--root", "roots", type=click.Path(path_type=Path), multiple=True,
              help="Roots that are trusted (PEM); may be given several times.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Write the statement and its signer (PEM) here.")
@json_option
def attest(slot: str, choice: Choice, roots: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Have the card state that it made the key of SLOT itself, and check the statement.

    Without --root the signatures are checked and the roots are not: the output says "trusted: no".
    """
    where = Slot.named(slot)
    require_writable(out)
    trusted = [certificate for root in roots for certificate in _certificates(read_bounded(root))]
    with the_cards().open(choice) as card:
        try:
            statement, signer = card.run(programs.attestation(where))
        except WrongData as error:
            error.advice = "A card attests only what it made itself: this slot is empty, or its key was imported."
            raise
    result = verify_attestation(statement, signer, trusted)
    if out is not None:
        chain = [statement, *([signer] if signer is not None else [])]
        write_output(out, b"".join(one.public_bytes(Encoding.PEM) for one in chain))
    if as_json:
        show_json(_attested(result))
    else:
        show_fields((name.replace("_", " "), _word(value)) for name, value in _attested(result).items())


def _attested(result: Attestation) -> dict[str, object]:
    return {
        "slot": result.slot.label if result.slot is not None else None,
        "algorithm": result.algorithm.label,
        "serial": result.serial,
        "firmware": result.firmware,
        "pin_policy": result.pin_policy.name.lower() if result.pin_policy is not None else None,
        "touch_policy": result.touch_policy.name.lower() if result.touch_policy is not None else None,
        "trusted": result.trusted,
    }


def _word(value: object) -> str:
    if value is None:
        return "-"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _refuse_occupied(card: OpenCard, slot: Slot, overwrite: bool) -> None:
    if overwrite:
        return
    key = card.run(programs.slot_key(slot))
    certificate = card.run(programs.read_certificate(slot))
    if key is not None or certificate is not None:
        what = "key" if key is not None else "certificate"
        raise SlotOccupied(f"Slot {slot.label} of {card.summary.name} already has a {what}.")


def _certificates(raw: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(raw)
    except (ValueError, x509.InvalidVersion) as error:
        raise programs.MalformedCertificate("The file with roots is no PEM bundle of certificates.") from error


def load_private_key(raw: bytes, source: SecretSource) -> PrivateKey:
    """A private key in PEM or DER; its password comes from ``source``. Raises KeyFileUnreadable."""
    load = load_pem_private_key if raw.lstrip().startswith(b"-----") else load_der_private_key
    try:
        try:
            key = load(raw, None)
        except TypeError:
            key = load(raw, source.password("password of the key file").reveal())
    except UnsupportedAlgorithm as error:
        raise KeyFileUnreadable("No slot holds a key of this kind or curve.") from error
    except (ValueError, TypeError) as error:
        raise KeyFileUnreadable("The private key cannot be read: damaged, or the password is wrong.") from error
    try:
        Algorithm.of(key.public_key())  # type: ignore[arg-type]
    except CardwrightError as error:
        raise KeyFileUnreadable(f"No slot holds such a key. {error.message}") from error
    return key  # type: ignore[return-value]
