"""``cardwright server policy|user|device|request`` against a server in this process, over TLS."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cardwright_cardops.secret import Secret
from cardwright_clients.cli import server_admin_link
from cardwright_clients.cli.server_admin_link import address_in, operator_file
from cardwright_clients.sdk import OperatorFile, OperatorFileUnusable
from cardwright_server.api.calling import Calls
from cardwright_server.api.operators import OperatorServicer
from cardwright_server.authentication.principal import Principal
from cardwright_server.devices.model import DeviceState
from cardwright_server.issuance.card_keys import IssuedKeys
from cardwright_server.issuance.model import Purpose
from cardwright_server.joins.certificates import OperatorCertificates
from cardwright_server.joins.connecting import OperatorConnections
from cardwright_server.people.model import Role
from cardwright_server.people.operators import OperatorService
from cardwright_server.policies.document import shipped
from cardwright_server.store.unit import Database
from cardwright_server.vault.calls import LocalVault
from cardwright_server.vault.model import Authorization
from tests.support import issuance
from tests.support.command_line import Desk, Ran
from tests.support.issuance import ON_SQLITE
from tests.support.lifecycles import World, make_world
from tests.support.managed import ToldContacts, servicers
from tests.support.operator_line import Authority, OperatorLine, operator_line
from tests.support.people import authorizer, make_operator
from tests.support.vault import make_core


@dataclass
class Shop:
    """A world behind a TLS port, and its operators."""

    world: World
    line: OperatorLine
    vault: LocalVault
    administrator: Principal

    async def run(self, *arguments: str, by: Principal | None = None) -> Ran:
        return await self.line.run(by or self.world.issuer, *arguments)

    async def done(self, *arguments: str, by: Principal | None = None) -> Ran:
        ran = await self.run(*arguments, by=by)
        assert ran.code == 0, ran.err
        return ran


@pytest.fixture
async def shop(database: Database, tmp_path: Path) -> AsyncIterator[Shop]:
    world = await make_world(database)
    core = make_core(tmp_path / "vault", lambda: datetime.now(UTC).timestamp())
    vault = LocalVault(core)
    administrator = await make_operator(database, world.org, Role.ADMINISTRATOR)
    async with operator_line(
        database, tmp_path / "operators", lambda calls: servicers(calls, world, vault, ToldContacts())
    ) as line:
        yield Shop(world, line, vault, administrator)
    core.close()


@ON_SQLITE
async def test_a_policy_from_draft_to_assignment(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "developer.toml"
    path.write_text(shipped("developer"))
    draft = (await shop.done("policy", "draft", str(path), "--json", by=shop.administrator)).json
    assert (draft["name"], draft["number"], draft["state"], draft["published_at"]) == ("developer", 1, "draft", None)
    own = await shop.run("policy", "publish", "developer", "--json", by=shop.administrator)
    assert (own.code, own.json["error"]["code"]) == (1, "ACCESS_DENIED")
    made = (await shop.done("policy", "publish", "developer", "--json", by=shop.world.officer)).json
    assert (made["id"], made["state"]) == (draft["id"], "published")
    await shop.done("policy", "assign", "developer", "staff", by=shop.administrator)
    shown = (await shop.done("policy", "show", "developer@1", "--json")).json
    assert (shown["groups"], shown["text"]) == ([str(shop.world.group)], shipped("developer"))
    assert "developer" in (await shop.done("policy", "show", "developer")).out
    await shop.done("policy", "draft", "--shipped", "developer", by=shop.administrator)
    listed = (await shop.done("policy", "list", "--name", "developer", "--json")).json["versions"]
    assert [(one["number"], one["state"]) for one in listed] == [(1, "published"), (2, "draft")]
    gone = await shop.done("policy", "draft", "--discard", "developer", "--json", by=shop.administrator)
    assert gone.json["state"] == "discarded"
    table = (await shop.done("policy", "list", "--state", "published")).out.splitlines()
    assert table[0].split() == ["NAME", "VERSION", "STATE", "PUBLISHED", "ID"]
    assert [row.split()[:3] for row in table[1:]] == [["civ", "1", "published"], ["developer", "1", "published"]]


@ON_SQLITE
async def test_users_and_groups(shop: Shop) -> None:
    by = shop.administrator
    await shop.done("user", "add-group", "makers", by=by)
    ada = (
        await shop.done(
            "user", "add", "ada", "--name", "Ada Lovelace", "--mail", "ada@example.org", "--attribute",
            "upn=ada@example.org", "--group", "makers", "--json", by=by,
        )
    ).json  # fmt: skip
    assert ada["attributes"] == [{"name": "upn", "values": ["ada@example.org"]}]
    shown = (await shop.done("user", "show", "ADA", "--json", by=by)).json
    assert [one["name"] for one in shown["groups"]] == ["makers"]
    await shop.done("user", "join", "ada", "staff", by=by)
    await shop.done("user", "part", "ada", "makers", by=by)
    assert "groups:" in (text := (await shop.done("user", "show", "ada", by=by)).out) and "staff" in text
    assert [one["login"] for one in (await shop.done("user", "list", "love", "--json", by=by)).json["users"]] == ["ada"]
    assert {one["name"] for one in (await shop.done("user", "groups", "--json", by=by)).json["groups"]} == {
        "makers",
        "staff",
    }
    for command, status in (("suspend", "suspended"), ("resume", "active"), ("left", "left")):
        made = await shop.done("user", command, "ada", "--reason", "told so", "--json", by=by)
        assert made.json["status"] == status
    assert (await shop.run("user", "erase", "ada", by=shop.world.officer)).code == 2  # there is nobody to ask
    await shop.done("user", "erase", "ada", "--yes", by=shop.world.officer)
    missing = await shop.run("user", "show", "ada", "--json", by=by)
    assert (missing.code, missing.json["error"]["code"]) == (1, "NAME_UNKNOWN")
    directory = await shop.run("user", "import", "grace", "--json", by=by)
    assert (directory.code, directory.json["error"]["code"]) == (1, "NO_DIRECTORY")


@ON_SQLITE
async def test_a_device_from_stock_to_its_end(shop: Shop) -> None:
    world = shop.world
    person = await world.person("grace")
    registered = (await shop.done("device", "register", "D-1", "D-2", "--json")).json["devices"]
    assert [one["serial"] for one in registered] == ["D-1", "D-2"]
    bound = (await shop.done("device", "bind", "D-1", "grace", "--json")).json
    assert (bound["state"], bound["person"]) == ("assigned", str(person.id))
    await shop.done("device", "unbind", "D-1")
    await shop.done("device", "bind", "D-1", str(person.id))
    created = (await shop.done("request", "create", "issuance", "D-1", "--json")).json
    assert (created["created"], created["state"]) == (True, "ready")
    await world.carried_out(UUID(created["id"]))
    helper = world.helper
    held = await shop.done("device", "suspend", "D-1", "--remark", "on leave", "--json", by=helper)
    assert held.json["state"] == "suspended"
    shown = (await shop.done("device", "show", "D-1", "--json")).json
    assert (shown["holds"], shown["device"]["card_locked"]) == (["operator"], False)
    assert [one["event"] for one in shown["history"]][-2:] == ["issue", "suspend"]
    assert shown["lock_ordered"] is False
    assert "suspend" in (await shop.done("device", "show", "D-1")).out
    locked = await shop.done("device", "suspend", "D-1", "--lock-card", "--json", by=helper)
    assert locked.json["card_locked"] is False, "not yet"
    assert (await shop.done("device", "show", "D-1", "--json")).json["lock_ordered"] is True
    assert (await shop.done("device", "resume", "D-1", "--json", by=helper)).json["state"] == "issued"
    lost = (await shop.done("device", "report", "D-1", "lost", "--json", by=helper)).json
    assert (lost["state"], lost["reason"]) == ("invalid", "lost")
    ended = await shop.done(
        "device", "terminate", "D-1", "--reason", "lost", "--disposition", "lost", "--json", by=helper
    )
    assert (ended.json["state"], ended.json["disposition"]) == ("terminated", "lost")
    refused = await shop.run("device", "recycle", "D-1", "--json")
    assert refused.json["error"]["code"] == "CONDITION_NOT_MET"
    assert (await shop.done("device", "recycle", "D-1", "--found", "--json")).json["life"] == 2
    gone = await shop.done("device", "dispose", "D-1", "--remark", "seen by Bob", "--json")
    assert gone.json["state"] == "disposed"
    table = (await shop.done("device", "list", "--state", "stock")).out.splitlines()
    assert [row.split()[:3] for row in table[1:]] == [["D-2", "smart-card", "stock"]]
    everything = (await shop.done("device", "list", "--json")).json["devices"]
    assert {one["serial"]: one["state"] for one in everything} == {"D-1": "disposed", "D-2": "stock"}


@ON_SQLITE
async def test_a_lot_s_secrets_come_from_files_and_go_to_the_vault(shop: Shop, tmp_path: Path) -> None:
    world = shop.world
    shared, own = tmp_path / "shared.toml", tmp_path / "own.toml"
    shared.write_text('puk = "73914620"\nmanagement_key = "' + "0f" * 24 + '"\n')
    own.write_text('[[devices]]\nserial = "P-1"\npuk = "58203917"\n')
    constant = await shop.done(
        "device", "register-lot", "one", "--source", "constant", "--secrets", str(shared), "--json"
    )
    await shop.done("device", "register-lot", "two", "--source", "per-card")
    first = await shop.done("device", "register", "C-1", "--lot", constant.json["id"], "--json")
    second = await shop.done("device", "register", "--file", str(own), "--lot", "two", "--json")
    for ran, values in (
        (first, {b"73914620", bytes.fromhex("0f" * 24)}),
        (second, {b"58203917"}),
    ):
        row = await world.device(UUID(ran.json["devices"][0]["id"]))
        kept = await world.database.read(
            lambda unit: world.services.stock.initial_secrets(unit, row)  # noqa: B023
        )
        opened = [await shop.vault.open_data(*one, Authorization("test", "test")) for one in kept.sealed.values()]
        assert {one.reveal() for one in opened} == values
    for content in ("puk = 1", 'puk = "12345678"\nfoo = "x"', 'management_key = "zz"', "puk = '12345678", "\xff"):
        shared.write_bytes(content.encode("latin-1"))
        given = ("--source", "constant", "--secrets", str(shared))
        bad = await shop.run("device", "register-lot", "bad", *given, "--json")
        assert (bad.code, bad.json["error"]["code"]) == (1, "INITIAL_SECRETS_FILE")
        assert "12345678" not in bad.out + bad.err
    own.write_text("[[devices]]\nserial = 1\n")
    bad = await shop.run("device", "register", "--file", str(own), "--json")
    assert bad.json["error"]["code"] == "INITIAL_SECRETS_FILE"


@ON_SQLITE
async def test_lots_are_listed_and_known_by_name(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_admin_link, "PAGE", 2)
    made = {
        name: (
            await shop.done("device", "register-lot", name, "--kind", kind, "--source", "factory", "--json")
        ).json["id"]
        for name, kind in (("Keys", "usb-key"), ("cards", "smart-card"), ("CARDS", "virtual-card"))
    }
    listed = (await shop.done("device", "lots", "--json", by=shop.administrator)).json["lots"]
    assert [(one["name"], one["kind"], one["id"]) for one in listed] == [
        ("Keys", "usb-key", made["Keys"]),
        ("cards", "smart-card", made["cards"]),
        ("CARDS", "virtual-card", made["CARDS"]),
    ]
    assert {(one["source"], one["derivation"]) for one in listed} == {("factory", None)}
    head, first, *_ = (await shop.done("device", "lots")).out.splitlines()
    assert head.split() == ["NAME", "KIND", "SOURCE", "DERIVATION", "ID"]
    assert first.split() == ["Keys", "usb-key", "factory", "-", made["Keys"]]
    for serial, lot, kind in (("K-1", "KEYS", "usb-key"), ("K-2", "CARDS", "virtual-card"), ("K-3", "", "smart-card")):
        await shop.done("device", "register", serial, *(("--lot", lot) if lot else ()))
        (device,) = (await shop.done("device", "list", "--serial", serial, "--json")).json["devices"]
        assert (device["kind"], device["lot"]) == (kind, made["Keys" if lot == "KEYS" else lot] if lot else None)
    for lot, code in (("Cards", "NAME_UNKNOWN"), ("none", "NAME_UNKNOWN")):
        refused = await shop.run("device", "register", "K-4", "--lot", lot, "--json")
        assert (refused.code, refused.json["error"]["code"]) == (1, code)
    other = await shop.run("device", "register", "K-4", "--lot", "Keys", "--kind", "smart-card", "--json")
    assert other.json["error"]["code"] == "BAD_DEVICE"
    denied = await shop.run("device", "lots", "--json", by=shop.world.helper)
    assert denied.json["error"]["code"] == "ACCESS_DENIED"


@ON_SQLITE
async def test_requests_are_decided(shop: Shop) -> None:
    world = shop.world
    device = await world.issued(await world.person("joan"))
    asked = await shop.done(
        "request", "create", "replacement", str(device.id), "--reason", "renewed", "--idempotency-key", "k-1", "--json",
        by=world.helper,
    )  # fmt: skip
    again = await shop.done(
        "request", "create", "replacement", device.serial, "--reason", "renewed", "--idempotency-key", "k-1", "--json",
        by=world.helper,
    )  # fmt: skip
    assert (asked.json["created"], again.json["created"], again.json["id"]) == (True, False, asked.json["id"])
    identifier = asked.json["id"]
    listed = (await shop.done("request", "list", "--state", "pending", "--person", "joan", "--json")).json["requests"]
    assert [one["id"] for one in listed] == [identifier]
    assert (await shop.done("request", "approve", identifier, "--json")).json["state"] == "approved"
    shown = (await shop.done("request", "show", identifier, "--json")).json
    assert [one["event"] for one in shown["history"]] == ["open", "approve"]
    assert "approve" in (await shop.done("request", "show", identifier)).out
    assert (await shop.done("request", "cancel", identifier, "--json")).json["state"] == "cancelled"
    other = (
        await shop.done(
            "request", "create", "replacement", device.serial, "--reason", "compromised", "--json", by=world.helper
        )
    ).json["id"]
    assert (await shop.done("request", "deny", other, "--json")).json["state"] == "denied"
    table = (await shop.done("request", "list", "--device", device.serial, "--kind", "replacement")).out
    assert [row.split()[1:4] for row in table.splitlines()[1:]] == [
        ["cancelled", device.serial, "joan"],
        ["denied", device.serial, "joan"],
    ]
    (one,) = listed
    assert (one["device"], one["device_serial"]) == (str(device.id), device.serial)
    assert (one["person"], one["person_login"]) == (str(device.person), "joan")
    assert (await shop.run("request", "create", "update", device.serial, "--reason", "lost")).code == 2
    for unlock in ("unlock", "update", "recovery"):
        other_device = (await world.issued()).serial
        by = world.issuer if unlock == "recovery" else world.helper
        made = await shop.done("request", "create", unlock, other_device, "--json", by=by)
        assert made.json["kind"] == unlock
    assert (await world.device(device.id)).state is DeviceState.ISSUED


@ON_SQLITE
async def test_a_puk_that_is_refused_is_an_error(shop: Shop) -> None:
    world = shop.world
    device = await world.issued()
    made = await shop.done("request", "create", "unlock", device.serial, "--json", by=world.helper)
    ran = await shop.run("device", "release-puk", device.serial, made.json["id"], by=world.helper)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("Error PUK_REFUSED: ") and "No PUK left the vault." in ran.err


@ON_SQLITE
async def test_more_than_one_page(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_admin_link, "PAGE", 3)
    await shop.done("device", "register", *(f"M-{number}" for number in range(8)))
    found = (await shop.done("device", "list", "--json")).json["devices"]
    assert [one["serial"] for one in found] == [f"M-{number}" for number in range(8)]


@ON_SQLITE
async def test_refusals_are_told_with_the_server_s_code(shop: Shop) -> None:
    ran = await shop.run("policy", "draft", "--shipped", "unheard-of", "--json", by=shop.administrator)
    error = ran.json["error"]
    assert (ran.code, error["code"], error["effect"]) == (1, "NO_SUCH_POLICY", "Nothing was changed.")
    assert ran.err.startswith("Error NO_SUCH_POLICY: ")
    nobody = await shop.run("device", "show", "12345", "--json")
    assert (nobody.code, nobody.json["error"]["code"]) == (1, "NAME_UNKNOWN")
    await shop.done("device", "register", "TWICE", "--kind", "smart-card")
    await shop.done("device", "register", "TWICE", "--kind", "usb-key")
    several = await shop.run("device", "show", "TWICE", "--json")
    assert "Several" in several.json["error"]["message"]
    assert (await shop.run("device", "register")).code == 2
    assert (await shop.run("policy", "draft")).code == 2
    malformed = await shop.run("request", "show", "x", "--json")
    assert malformed.json["error"]["code"] == "REQUEST_MALFORMED"


@ON_SQLITE
async def test_who_is_not_let_in(shop: Shop, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.pem"
    stranger.touch(0o600)
    stranger.write_bytes(shop.line.root.issued("stranger"))
    ran = await shop.line.run(stranger, "device", "list", "--json")
    assert ran.json["error"]["code"] == "PROOF_REQUIRED"
    # The server of another root is not talked to, nor does it talk to another root's operators.
    stranger.write_bytes(Authority("Other").issued("stranger"))
    ran = await shop.line.run(stranger, "device", "list", "--json")
    assert (ran.code, ran.json["error"]["code"]) == (1, "SERVER_NOT_REACHED")


def test_the_operator_s_file(tmp_path: Path) -> None:
    path = tmp_path / "operator.pem"
    with pytest.raises(OperatorFileUnusable, match="cannot be read"):
        OperatorFile.read(path)
    path.touch(0o600)
    pem = Authority("Root").issued("ada")
    path.write_bytes(b"Bag Attributes\n" + pem)
    made = OperatorFile.read(path)
    assert made.key.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert made.chain + made.root == pem[len(made.key) :]
    assert Secret(made.key).reveal().decode() not in repr(made)
    begin = pem.index(b"-----BEGIN CERTIFICATE")
    for content in (b"", pem[:begin], pem[begin:], pem + pem, pem[: pem.rindex(b"-----BEGIN")], b"\x00" * 100):
        path.write_bytes(content)
        with pytest.raises(OperatorFileUnusable, match="does not hold"):
            OperatorFile.read(path)
    path.write_bytes(pem)
    os.chmod(path, 0o640)
    with pytest.raises(OperatorFileUnusable, match="others"):
        OperatorFile.read(path)


def test_which_operator_s_file(tmp_path: Path) -> None:
    folder = tmp_path / "operators"
    folder.mkdir()
    with pytest.raises(OperatorFileUnusable, match="no operator's file"):
        operator_file(None, tmp_path)
    (folder / "ada.pem").touch(0o600)
    assert operator_file(None, tmp_path) == folder / "ada.pem"
    (folder / "grace.pem").touch(0o600)
    with pytest.raises(OperatorFileUnusable, match="several"):
        operator_file(None, tmp_path)
    assert operator_file(Path("grace"), tmp_path) == folder / "grace.pem"
    assert operator_file(Path("joan"), tmp_path) == Path("joan")
    assert operator_file(tmp_path / "x.pem", tmp_path) == tmp_path / "x.pem"


def test_where_the_server_of_a_data_folder_is(tmp_path: Path) -> None:
    assert address_in(tmp_path) == "127.0.0.1:7443"
    said = tmp_path / "run" / "listening.json"
    said.parent.mkdir()
    for content, address in (
        ('{"calls": "192.0.2.1:8443"}', "192.0.2.1:8443"),
        ('{"calls": "0.0.0.0:8443"}', "127.0.0.1:8443"),
        ('{"calls": "[::]:8443"}', "127.0.0.1:8443"),
        ("{}", "127.0.0.1:7443"),
        ("[]", "127.0.0.1:7443"),
        ("", "127.0.0.1:7443"),
    ):
        said.write_text(content)
        assert address_in(tmp_path) == address


def test_the_help_of_every_command_names_no_secret() -> None:
    for group in ("policy", "user", "device", "request"):
        ran = Desk().run("server", group, "--help")
        assert ran.code == 0, ran.err
        assert "list" in ran.out


@ON_SQLITE
async def test_an_operator_is_made_by_two_and_connects(database: Database, tmp_path: Path) -> None:
    ca = await issuance.make_world(database, tmp_path)
    world = await make_world(database, org=ca.org)
    authorize = authorizer()
    operators = OperatorService(authorize, IssuedKeys())
    connections = OperatorConnections(database, operators, OperatorCertificates(database, ca.service))
    administrator = await make_operator(database, ca.org, Role.ADMINISTRATOR)
    data = tmp_path / "data"

    def served(calls: Calls) -> list[object]:
        known = servicers(calls, world, LocalVault(ca.core), ToldContacts())
        return [OperatorServicer(calls, operators, connections), *known]

    await world.person("mary")
    async with operator_line(database, tmp_path / "operators", served) as line:

        async def done(by: Principal | Path, *arguments: str) -> Ran:
            ran = await line.run(by, "operator", *arguments, "--data", str(data))
            assert ran.code == 0, ran.err
            return ran

        made = (await done(administrator, "add", "desk", "--person", "mary", "--json")).json
        assert (made["kind"], made["grants"], made["keys"]) == ("person", [], [])
        assert str(data / "operators" / "desk.pem") in (await done(administrator, "add-key", "desk")).out
        file = OperatorFile.read(data / "operators" / "desk.pem")
        leaf = x509.load_pem_x509_certificate(file.chain)
        assert x509.load_pem_x509_certificate(file.root) == ca.ca(Purpose.ROOT)
        again = await line.run(administrator, "operator", "add-key", "desk", "--data", str(data))
        assert again.code == 1 and "OPERATOR_FILE_EXISTS" in again.err
        granted = (await done(world.officer, "grant", "desk", "help-desk", "--group", "staff", "--json")).json
        assert [(one["role"], one["group"]) for one in granted["grants"]] == [("help-desk", str(world.group))]
        listed = (await done(world.officer, "list", "--json")).json["operators"]
        (row,) = [one for one in listed if one["label"] == "desk"]
        spki = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert [one["spki"] for one in row["keys"]] == [hashlib.sha256(spki).hexdigest()]
        assert f"help-desk {world.group}" in (await done(world.officer, "list")).out
        gone = (await done(world.officer, "withdraw", "desk", "help-desk", "--group", "staff", "--json")).json
        assert gone["grants"] == []
        for command, active in (("close", False), ("open", True)):
            assert (await done(administrator, command, "desk", "--json")).json["active"] is active
        bare = (await done(administrator, "remove-key", "desk", row["keys"][0]["spki"], "--json")).json
        assert bare["keys"] == []
        alone = await line.run(administrator, "operator", "grant", "desk", "auditor", "--json")
        assert alone.json["error"]["code"] == "ACCESS_DENIED"
        for wrong in (("grant", "desk", "auditor", "--group", "a", "--branch", "b"), ("remove-key", "desk", "xyz")):
            assert (await line.run(administrator, "operator", *wrong)).code == 2
    ca.core.close()
