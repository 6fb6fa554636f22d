"""The judge of a server's books and of the card they are about: a table of invariants, importing nothing it judges.

It looks at the raw memory of the virtual card, the raw rows of the store (which has the index of the CA in it), and
what the vault said: values of secrets by their names, and everything that it signed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from .books import Books, Row, SecretName
from .card import CERTIFICATES, CHUID, FACTORY_KEYS, FACTORY_PINS
from .card import _content as fields_of
from .card import _public as public_of
from .chain import judge_chain

KEY_HISTORY, SECURITY_OBJECT = 0x5FC10C, 0x5FC106
RETIRED = range(0x82, 0x96)
ENDED = frozenset({"done", "failed", "lost"})
USABLE = frozenset({"good", "held", "prepared"})


@dataclass(frozen=True)
class Told:
    """What the judge cannot read by itself.

    ``secrets``: values by name, as the vault makes them. ``archive``: public keys (SubjectPublicKeyInfo DER) by
    fingerprint, of the private keys that the vault unseals from the archive. ``signed``: every TBSCertificate that the
    vault signed. ``remembered``: what is on the second medium. ``request``: of the job, None where it had none.
    ``escrowed``: slots whose keys the policy has archived.
    """

    device: UUID
    pin: bytes
    now: datetime
    request: UUID | None = None
    escrowed: frozenset[int] = frozenset({0x9D})
    secrets: Mapping[SecretName, bytes] = field(default_factory=dict)
    archive: Mapping[str, bytes] = field(default_factory=dict)
    signed: tuple[bytes, ...] = ()
    remembered: frozenset[tuple[str, str]] = frozenset()
    audit: Mapping[str, ec.EllipticCurvePublicKey] = field(default_factory=dict)


@dataclass(frozen=True)
class Held:
    """A key in the card's memory. ``certificate`` is what stands beside it, None for nothing."""

    slot: int
    algorithm: int
    generated: bool
    public: bytes
    fingerprint: str
    certificate: bytes | None


class Scene:
    """One card and the books about it, read."""

    def __init__(self, snapshot: bytes, books: Books, told: Told) -> None:
        self.memory: dict[str, Any] = json.loads(snapshot)
        self.books = books
        self.told = told
        self.objects = {int(tag, 16): bytes.fromhex(raw) for tag, raw in self.memory["objects"].items()}

    @cached_property
    def device(self) -> Row:
        return self.books.of("device", id=self.told.device.hex)[0]

    @cached_property
    def keys(self) -> dict[int, Held]:
        found = {}
        for name, key in self.memory["keys"].items():
            slot = int(name, 16)
            public = _der(public_of(key["algorithm"], key["private"]))
            certificate = self.certificate(slot)
            found[slot] = Held(slot, key["algorithm"], key["generated"], public, _sha256(public), certificate)
        return found

    @cached_property
    def index(self) -> list[Row]:
        """Every certificate of the device in the CA's index."""
        return self.books.of("issued_certificate", holder=self.told.device.hex)

    def certificate(self, slot: int) -> bytes | None:
        return dict(fields_of(self.objects.get(CERTIFICATES[slot], b""))).get(0x70)


def _goal_card(scene: Scene) -> list[str]:
    wrong = [f"key {slot:02X} has no certificate" for slot, key in scene.keys.items() if key.certificate is None]
    for slot, tag in CERTIFICATES.items():
        if tag in scene.objects and slot not in scene.keys:
            wrong.append(f"the certificate in {slot:02X} has no key")
    for key in scene.keys.values():
        if key.certificate is None:
            continue
        certificate = x509.load_der_x509_certificate(key.certificate)
        if _der(certificate.public_key()) != key.public:
            wrong.append(f"the certificate in {key.slot:02X} is for another key")
        if key.slot not in RETIRED and not (
            certificate.not_valid_before_utc <= scene.told.now < certificate.not_valid_after_utc
        ):
            wrong.append(f"the certificate in {key.slot:02X} is not valid now")
    chuid = dict(fields_of(scene.objects.get(CHUID, b"")))
    if chuid.get(0x34, b"").hex() != scene.device["guid"]:
        wrong.append("the card UUID is not the one that the device has in the books")
    if (chuid.get(0x30) or b"").hex() != scene.device["fascn"]:
        wrong.append("the FASC-N is not the one that the device has in the books")
    return wrong


def _secrets(scene: Scene) -> list[str]:
    wrong, references = [], scene.memory["references"]
    pin, puk = (bytes.fromhex(references[name]["value"]) for name in ("80", "81"))
    if pin != scene.told.pin.ljust(8, b"\xff"):
        wrong.append("the PIN is not the person's")
    if puk in FACTORY_PINS or pin in FACTORY_PINS:
        wrong.append("PIN or PUK is the factory's")
    key = bytes.fromhex(scene.memory["management"]["value"])
    if key in FACTORY_KEYS:
        wrong.append("the management key is the factory's")
    names = scene.books.secrets(scene.told.device)
    for kind, value in (("puk", puk), ("management_key", key)):
        mine = [name for name in names if name.kind == kind]
        if not mine or scene.told.secrets[mine[-1]] != value:
            known = [name for name in mine if scene.told.secrets[name] == value]
            wrong.append(f"the {kind} on the card is generation {known}, the newest in the books is {mine[-1:]}")
    return wrong


def _tries(scene: Scene) -> list[str]:
    return [
        f"reference {name} has {one['tries']} of {one['maximum']} tries"
        for name, one in scene.memory["references"].items()
        if one["tries"] != one["maximum"]
    ]


def _index(scene: Scene) -> list[str]:
    """No valid certificate without its key on the card; none on the card that the index does not hold as good."""
    wrong = []
    for row in scene.index:
        slot = int(row["holder_part"], 16)
        here = scene.keys.get(slot)
        on_card = here is not None and here.fingerprint == row["key"]
        if row["state"] == "good" and not on_card:
            wrong.append(f"a good certificate for {slot:02X} has no key on the card")
        if row["state"] in ("held", "prepared"):
            wrong.append(f"a certificate for {slot:02X} is left {row['state']}")
        if row["state"] in ("good", "held") and not row["certificate"]:
            wrong.append(f"a certificate for {slot:02X} counts without a signature")
    for slot, key in scene.keys.items():
        if slot in RETIRED or key.certificate is None:
            continue
        states = [row["state"] for row in scene.index if row["certificate"] == key.certificate]
        if states != ["good"]:
            wrong.append(f"the certificate in {slot:02X} is {states or 'not'} in the index")
    return wrong


def _signed(scene: Scene) -> list[str]:
    """The index knows all that the vault signed, and nothing with a serial number twice."""
    wrong = []
    known = {bytes(row["tbs"]) for row in scene.books.of("issued_certificate")}
    if lost := [one for one in set(scene.told.signed) if one not in known]:
        wrong.append(f"{len(lost)} certificates were signed that the index does not know")
    for row in scene.index:
        if row["certificate"]:
            certificate = x509.load_der_x509_certificate(row["certificate"])
            authority = scene.books.of("issuing_authority", id=row["authority"])[0]
            key = load_der_public_key(authority["public_key"])
            assert isinstance(key, ec.EllipticCurvePublicKey)
            hashed = certificate.signature_hash_algorithm
            assert hashed is not None
            key.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(hashed))
            if certificate.tbs_certificate_bytes != row["tbs"] or certificate.serial_number != int(row["serial"], 16):
                wrong.append(f"a certificate for {row['holder_part']} is not what was recorded before it")
    return wrong


def _archive(scene: Scene) -> list[str]:
    """Every key that came from outside can be had again, with its certificate, and its way to the card is recorded."""
    wrong = []
    for slot, key in scene.keys.items():
        if key.generated:
            if slot in RETIRED or slot in scene.told.escrowed:
                wrong.append(f"the key in {slot:02X} was made by the card")
            continue
        rows = scene.books.of("escrowed_key", fingerprint=key.fingerprint, person=scene.device["person"])
        if len(rows) != 1 or scene.told.archive.get(key.fingerprint) != key.public:
            wrong.append(f"the key in {slot:02X} is not in the archive")
            continue
        if rows[0]["certificate"] != key.certificate:
            wrong.append(f"the archive has another certificate for the key in {slot:02X}")
        if not scene.books.of("escrow_release", key=rows[0]["id"], device=scene.told.device.hex, slot=slot):
            wrong.append(f"it is not recorded that the key in {slot:02X} left the archive for this card")
    current = scene.books.of("escrowed_key", device=scene.told.device.hex)
    counted = [row["fingerprint"] for row in current if row["certificate"] and row["superseded_at"] is None]
    here = {key.fingerprint for key in scene.keys.values()}
    if absent := [row for row in current if row["certificate"] and row["fingerprint"] not in here]:
        wrong.append(f"{len(absent)} keys of this card, with certificates, are not on it: the next session brings them")
    held = scene.keys.get(0x9D)
    if held is not None and not held.generated and counted != [held.fingerprint]:
        wrong.append("the archive takes another key than that in 9D for the present one")
    return wrong


def _medium(scene: Scene) -> list[str]:
    """What must outlive a restore stands on the second medium."""
    wrong = []
    for kind, table in (("issue", "issued_certificate"), ("escrow", "escrowed_key")):
        rows = scene.books.of(table)
        missing = [row for row in rows if (kind, row["id"]) not in scene.told.remembered]
        if missing:
            wrong.append(f"{len(missing)} rows of {table} are not on the second medium")
    if any(row["certificate"] and ("signed", row["id"]) not in scene.told.remembered for row in scene.index):
        wrong.append("a signature is not on the second medium")
    names = [row for row in scene.books.of("card_record") if row["kind"] in ("card", "puk", "management_key")]
    names += scene.books.of("card_key")
    if lost := [row for row in names if ("generation", row["id"]) not in scene.told.remembered]:
        wrong.append(f"{len(lost)} records of the card, its keys and its secrets are not on the second medium")
    if any(row["state"] == "good" and ("hold", row["id"]) not in scene.told.remembered for row in scene.index):
        wrong.append("a release is not on the second medium")
    certified = [row for row in scene.books.of("escrowed_key") if row["certificate"]]
    if any(("bound", row["id"]) not in scene.told.remembered for row in certified):
        wrong.append("the certificate of an archived key is not on the second medium")
    revoked = [row for row in scene.index if row["state"] == "revoked"]
    if any(("revoke", row["id"]) not in scene.told.remembered for row in revoked):
        wrong.append("a revocation is not on the second medium")
    return wrong


def _recorded(scene: Scene) -> list[str]:
    """Where the card's keys came from, and what was written to it, is in the books as it is on the card."""
    wrong, device = [], scene.told.device.hex
    for slot, key in scene.keys.items():
        if slot in RETIRED:
            continue
        if not scene.books.of("card_key", device=device, slot=slot, fingerprint=key.fingerprint):
            wrong.append(f"the books do not say where the key in {slot:02X} came from")
    for row in scene.books.of("card_object", device=device):
        raw = scene.objects.get(row["tag"], b"")
        if not raw.endswith(row["content"]) or not row["content"]:
            wrong.append(f"object {row['tag']:X} is not what was recorded of it")
    seen = [row for row in scene.books.of("card_record", device=device, kind="puk") if "." in row["reference"]]
    open_to = [row for row in seen[-1:] if not scene.books.of("card_session", id=row["session"])[0]["trusted"]]
    if open_to and not scene.books.of("device_due", device=device, what="secrets"):
        wrong.append("a workstation of a user saw the PUK, and it is not due to be changed")
    written = {row["tag"] for row in scene.books.of("card_object", device=device)}
    for tag in (CHUID, KEY_HISTORY, SECURITY_OBJECT):
        if tag in scene.objects and tag not in written:
            wrong.append(f"object {tag:X} is not recorded")
    return wrong


def _states(scene: Scene) -> list[str]:
    """Device, request and sessions agree; nobody works on the card, nothing is due."""
    wrong, device = [], scene.device
    if (device["state"], device["session"]) != ("issued", None):
        wrong.append(f"the device is {device['state']}, session {device['session']}")
    open_ones = [row for row in scene.books.of("device_request", device=device["id"]) if row["closed_at"] is None]
    if open_ones:
        wrong.append(f"requests are left {[row['state'] for row in open_ones]}")
    if scene.told.request is not None:
        state = scene.books.of("device_request", id=scene.told.request.hex)[0]["state"]
        if state != "done":
            wrong.append(f"the request is {state}")
    sessions = scene.books.of("card_session", device=device["id"])
    if left := [row["state"] for row in sessions if row["state"] not in ENDED]:
        wrong.append(f"sessions are left {left}")
    if not sessions or sessions[-1]["state"] != "done":
        wrong.append("the last session is not done")
    for row in scene.books.of("lease", name=f"card:{UUID(device['id'])}"):
        if datetime.fromisoformat(row["until"]).replace(tzinfo=UTC) > scene.told.now:
            wrong.append("the card is still held by a session")
    return wrong


def _audited(scene: Scene) -> list[str]:
    """Who worked on the card, what was certified for it, and which keys left the archive."""
    said = {(row["action"], row["target"]) for row in scene.books.of("audit_entry")}
    wrong = []
    if ("session.opened", scene.told.device.hex) not in said:
        wrong.append("no session is in the audit")
    shown = [row["facts"] for row in scene.books.of("audit_entry", action="device.secret-shown")]
    told = {json.loads(facts)["generation"] if isinstance(facts, str) else facts["generation"] for facts in shown}
    names = scene.books.secrets(scene.told.device)
    if any(f"{name.generation}.{name.master}" not in told for name in names):
        wrong.append("it is not in the audit which workstation saw a secret")
    if any(("certificate.issue", row["id"]) not in said for row in scene.index if row["certificate"]):
        wrong.append("a certificate is not in the audit")
    for row in scene.books.of("escrow_release", device=scene.told.device.hex):
        if not {("escrow.archived", row["key"]), ("escrow.released", row["key"])} & said:
            wrong.append("a key left the archive, which is not in the audit")
    return wrong


def _chain(scene: Scene) -> list[str]:
    return judge_chain(scene.books, scene.told.audit)


INVARIANTS: Mapping[str, Callable[[Scene], list[str]]] = {
    "keys, certificates and names on the card fit together": _goal_card,
    "no default secrets; PUK and management key are of the newest generation that is recorded": _secrets,
    "PIN and PUK tries are intact": _tries,
    "no valid certificate without its key on the card": _index,
    "nothing is signed that was not recorded before": _signed,
    "nothing on the card is missing from the archive": _archive,
    "nothing grave is missing on the second medium": _medium,
    "what is on the card is recorded": _recorded,
    "device, request and session are where they should be": _states,
    "what happened is in the audit": _audited,
    "the audit chain is valid": _chain,
}


def judge(snapshot: bytes, books: Books, told: Told) -> list[str]:
    """Everything that is wrong, in words; nothing for a good end."""
    scene = Scene(snapshot, books, told)
    return [f"{name}: {text}" for name, rule in INVARIANTS.items() for text in rule(scene)]


def picture(snapshot: bytes, books: Books, told: Told) -> dict[str, Any]:
    """Card and books as they are, but for values of keys, serial numbers, names of rows and dates.

    Two ends of the same job have the same picture, whatever happened before them.
    """
    scene = Scene(snapshot, books, told)
    memory, device = scene.memory, scene.device
    return {
        "references": {
            name: (one["tries"], one["maximum"], one["default"]) for name, one in memory["references"].items()
        },
        "management": (memory["management"]["algorithm"], memory["management"]["default"]),
        "keys": {name: {**key, "private": len(key["private"])} for name, key in memory["keys"].items()},
        "certificates": {
            f"{slot:02X}": _likeness(key.certificate, device["guid"])
            for slot, key in scene.keys.items()
            if key.certificate
        },
        "objects": {
            f"{tag:X}": [field for field, _ in fields_of(raw)] if tag != KEY_HISTORY else raw.hex()
            for tag, raw in scene.objects.items()
        },
        "device": {name: device[name] for name in ("kind", "state", "reason", "temporary", "life", "card_locked")},
        "holds": [row["reason"] for row in books.of("device_hold", device=device["id"])],
        "due": sorted(row["what"] for row in books.of("device_due", device=device["id"])),
        "index": sorted((row["holder_part"], row["state"]) for row in scene.index if row["state"] in USABLE),
    }


def _likeness(der: bytes, guid: str | None) -> Any:
    certificate = x509.load_der_x509_certificate(der)
    subject = certificate.subject.rfc4514_string().replace(str(UUID(guid)) if guid else "-", "GUID")
    extensions = [(one.oid.dotted_string, one.critical) for one in certificate.extensions]
    return certificate.issuer.rfc4514_string(), subject, extensions


def _der(public: Any) -> bytes:
    der: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der


def _sha256(octets: bytes) -> str:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(octets)
    return digest.finalize().hex()
