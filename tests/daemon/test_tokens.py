"""Tokens behind PKCS#11 modules as devices, on SoftHSM2; pkcs11-tool judges."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import grpc
import pytest

from cardwright_daemon.config import Pins, Pkcs11Module
from cardwright_proto.agent.v1 import agent_pb2 as pb
from tests.support.daemons import Person, failing, running, token
from tests.support.softhsm import LABEL, SOFTHSM, SoftHsm

NEW = b"582047"


@pytest.fixture
def hsm(tmp_path: Path) -> SoftHsm:
    """A token with one key pair, made by a stranger."""
    made = SoftHsm.make(tmp_path)
    made.pkcs11_tool("--keypairgen", "--key-type", "EC:prime256v1", "--id", "01", "--label", "first")
    return made


def module(hsm: SoftHsm) -> tuple[Pkcs11Module, ...]:
    return (Pkcs11Module(str(SOFTHSM), hsm.environment),)


async def test_a_token_is_listed_with_its_keys_and_asked_only_when_somebody_asks(hsm: SoftHsm) -> None:
    async with running(token(), pkcs11=module(hsm)) as run:
        await run.client.card()
        plain = (await run.client.cards.ListCards(pb.ListCardsRequest())).cards
        (shelf,) = run.daemon.desk.tokens._shelves
        assert shelf.module.pid is None
        cards = (await run.client.cards.ListCards(pb.ListCardsRequest(tokens=True))).cards
        (device,) = [card for card in cards if card.kind == pb.CARD_KIND_PKCS11]
        again = (await run.client.cards.ListCards(pb.ListCardsRequest(tokens=True))).cards
        found = await run.client.cards.GetInventory(pb.GetInventoryRequest(card=device.id))
        status = await run.client.pins.GetPinStatus(pb.GetPinStatusRequest(card=device.id))
    assert len(plain) == 1
    assert device.label == LABEL and device.identity.serial
    assert device.id in {card.id for card in again}
    assert [(one.id, one.algorithm) for one in found.objects] == [(b"\x01", "p256")]
    assert not status.pin.is_blocked and not status.HasField("puk")


async def test_its_pin_is_changed_and_a_stranger_agrees(hsm: SoftHsm) -> None:
    person = Person(b"999999", NEW, NEW, hsm.pin.reveal(), NEW, NEW)
    async with running(person=person, pkcs11=module(hsm)) as run:
        (device,) = (await run.client.cards.ListCards(pb.ListCardsRequest(tokens=True))).cards
        await run.client.pins.ChangePin(pb.ChangePinRequest(card=device.id))
        puk = pb.ChangePinRequest(card=device.id, reference=pb.PIN_REFERENCE_PUK)
        assert (await failing(run.client.pins.ChangePin(puk))).code == "NOT_FOR_TOKENS"
        update = run.client.updates.PreviewUpdate(pb.PreviewUpdateRequest(card=device.id))
        assert (await failing(update)).code == "SERVER_NOT_CONFIGURED"
        check = run.client.cards.CheckCard(pb.CheckCardRequest(card=device.id))
        assert (await failing(check)).code == "NOT_FOR_TOKENS"
    assert [one.error for one in person.asked if one.what == "current PIN"] == ["", "It was wrong."]
    with pytest.raises(subprocess.CalledProcessError):
        hsm.pkcs11_tool("--list-objects", "--type", "privkey")
    hsm.pin.wipe()
    listed = subprocess.run(
        ["pkcs11-tool", "--module", str(SOFTHSM), "--token-label", LABEL, "--login", "--pin", NEW.decode(), "-O"],
        env={**os.environ, **hsm.environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "first" in listed.stdout


async def test_a_long_pin_of_a_token_may_come_with_a_call(tmp_path: Path) -> None:
    long = b"13579-and-more"
    hsm = SoftHsm.make(tmp_path, long)
    async with running(pkcs11=module(hsm), pins=Pins(headless=True)) as run:
        (device,) = (await run.client.cards.ListCards(pb.ListCardsRequest(tokens=True))).cards
        around = pb.Asking(headless=pb.HeadlessPins(current=long, new=NEW))
        await run.client.pins.ChangePin(pb.ChangePinRequest(card=device.id, asking=around))
        around.headless.current = bytes(256)
        refused = run.client.pins.ChangePin(pb.ChangePinRequest(card=device.id, asking=around))
        assert (await failing(refused)).code == "REQUEST_INVALID"
    with pytest.raises(subprocess.CalledProcessError):
        hsm.pkcs11_tool("--list-objects")


async def test_w4_a_module_that_crashes_costs_one_call(hsm: SoftHsm) -> None:
    async with running(token(), pkcs11=module(hsm)) as run:
        card = await run.client.card()
        (device,) = [
            one
            for one in (await run.client.cards.ListCards(pb.ListCardsRequest(tokens=True))).cards
            if one.kind == pb.CARD_KIND_PKCS11
        ]
        (shelf,) = run.daemon.desk.tokens._shelves
        assert shelf.module.pid is not None
        os.kill(shelf.module.pid, signal.SIGSEGV)
        # It may notice before the next call, and then nothing is lost, or with it.
        with contextlib.suppress(grpc.aio.AioRpcError):
            await run.client.cards.GetInventory(pb.GetInventoryRequest(card=device.id))
        found = await run.client.cards.GetInventory(pb.GetInventoryRequest(card=device.id))
        assert len(found.objects) == 1
        assert (await run.client.pins.GetPinStatus(pb.GetPinStatusRequest(card=card.id))).pin.tries_left == 3


async def test_a_module_that_is_not_there_hides_nothing_and_is_in_the_report(hsm: SoftHsm, tmp_path: Path) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"this is no module")
    configured = (Pkcs11Module("/absent/module.so"), Pkcs11Module(str(broken)), *module(hsm))
    async with running(pkcs11=configured) as run:
        cards = (await run.client.cards.ListCards(pb.ListCardsRequest(tokens=True))).cards
        report = await run.client.workstation.GetReport(pb.GetReportRequest())
    assert [card.label for card in cards] == [LABEL]
    assert {problem.operation for problem in report.modules} == {"module.so", "broken.so"}
    assert all(problem.code for problem in report.modules)
    assert str(tmp_path) not in str(report)
