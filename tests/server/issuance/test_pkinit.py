"""Kerberos logon with an issued card: MIT's KDC and kinit, and OpenSC's module at the card in a reader."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from cardwright_cardops.piv import programs
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.program.items import Program
from cardwright_server.audit.model import SERVER
from cardwright_server.issuance import crl, status, store
from cardwright_server.issuance.model import Certificate, Purpose, RevocationReason
from cardwright_server.machine import Actor
from cardwright_server.store.unit import Database, Unit
from cardwright_server.vault.model import SigningAlgorithm
from tests.support.issuance import World, aside, csr, make_world, pem
from tests.support.kdc import REALM, Kdc, kdc
from tests.support.pcscd import Pcscd
from tests.support.strangers import NEW_PIN, Seat, Seats, initialized, management_key, ours

pytestmark = [pytest.mark.pcscd, pytest.mark.parametrize("engine_name", ["sqlite"])]


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[World]:
    """Authorities with RSA keys: what the directories of today log on with."""
    made = await make_world(database, tmp_path, root=SigningAlgorithm.RSA3072, issuing=SigningAlgorithm.RSA3072)
    yield made
    made.core.close()


async def issue(world: World, seat: Seat, profile: str, **names: Any) -> Certificate:
    """Set the card up, and put a certificate of the world on the key that it made in 9A: on hold still."""
    done = await aside(initialized, seat, "9a=rsa2048")
    with ours(seat.reader, NEW_PIN) as card:
        key = await aside(card.key, Slot.AUTHENTICATION)
        assert isinstance(key, rsa.RSAPrivateKey)
        request = world.request(key, profile, proof=await aside(csr, key))
        made = await world.issue(replace(request, names=replace(request.names, **names)))
        content = programs.certificate_content(x509.load_der_x509_certificate(made.certificate))

        def write(stage: str) -> Program[None]:
            yield from programs.write_object(Slot.AUTHENTICATION.certificate_tag, content, "writing", stage)

        await aside(card.managed, write, management_key(done.management_key))
    return made


async def lists(world: World) -> list[Path]:
    """The lists of the root and of the authority for cards as they are published now."""
    await world.publisher.publish_due(world.database)
    made = []
    for purpose in (Purpose.ROOT, Purpose.CARDS):
        published = await world.database.read(partial(crl.current, authority=world.authorities[purpose].id))
        assert published is not None
        path = world.folder / f"{purpose}.crl"
        path.write_bytes(x509.load_der_x509_crl(published.crl).public_bytes(Encoding.PEM))
        made.append(path)
    return made


async def move(world: World, act: Any, *arguments: Any) -> None:
    """One act on certificates, by the server."""

    async def work(unit: Unit) -> None:
        await act(unit, SERVER, *arguments)

    await world.do(work)


async def again(world: World, certificate: Certificate) -> Certificate:
    """The certificate as our books have it now."""
    found = await world.database.read(lambda unit: store.certificate_by_id(unit, world.org, certificate.id))
    assert found is not None
    return found


def realm(world: World, *, allow_upn: bool = False) -> AbstractContextManager[Kdc]:
    """A KDC that trusts the world's root."""
    root = pem(world.folder, "root", world.authorities[Purpose.ROOT].certificate)
    cards = pem(world.folder, "cards", world.authorities[Purpose.CARDS].certificate)
    return kdc(root, cards, allow_upn=allow_upn)


async def test_logon_until_it_is_held_and_again_when_it_is_resumed(world: World, pcscd: Pcscd) -> None:
    seat = Seats(pcscd).fresh("yubikey-5.4")
    made = await issue(world, seat, "smartcard-logon")
    with realm(world) as kerberos:
        kerberos.add("ada")
        kerberos.add("eve")

        async def login(name: str = "ada", pin: str = NEW_PIN) -> bool:
            """With the lists of now, of which the KDC learns by a restart."""
            await aside(kerberos.restart, await lists(world))
            done, said = await aside(kerberos.login, name, pin)
            assert done or "evoked" in kerberos.log or name != "ada", said
            return done

        assert not await login(), "it is on hold until the card was read back"
        await move(world, status.release, world.org, made.session)
        assert await login()
        assert not await login("eve"), "the certificate is of another principal"

        await move(world, status.hold, Actor.HELP_DESK, [await again(world, made)], "forgotten")
        assert not await login()
        await move(world, status.resume, Actor.HELP_DESK, [await again(world, made)], "forgotten")
        assert await login()

        await move(world, status.revoke, Actor.HELP_DESK, [await again(world, made)], RevocationReason.KEY_COMPROMISE)
        assert not await login()


async def test_logon_by_the_user_principal_name_alone(world: World, pcscd: Pcscd) -> None:
    seat = Seats(pcscd).fresh("yubikey-5.4")
    made = await issue(world, seat, "smartcard-logon", principal="", upn=f"ada@{REALM}")
    await move(world, status.release, world.org, made.session)
    for allowed in (False, True):
        with realm(world, allow_upn=allowed) as kerberos:
            kerberos.add("ada")
            await aside(kerberos.restart, await lists(world))
            done, said = await aside(kerberos.login, "ada", NEW_PIN)
            assert done is allowed, said
