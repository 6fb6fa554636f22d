"""The acts of the demo, in order: two cards from nothing to finished, whatever happens in between."""

from __future__ import annotations

import asyncio
import os
import subprocess
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cardwright_cardops.piv.references import Slot
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_proto.cms.v1 import devices_pb2

from .keeper import Keeper
from .office import Office
from .readers import Readers
from .story import DemoFailed, Story, failing_clearly
from .strangers import Strangers
from .workplace import Person, Workplace

RENEWED = (Slot.AUTHENTICATION, Slot.SIGNATURE, Slot.KEY_MANAGEMENT, Slot.CARD_AUTHENTICATION)
PULLED_AFTER = 2
"""Keys that the renewal makes before the card leaves."""
MESSAGE = b"The treasure lies under the old oak.\n"


class Demo:
    """One run in the keeper's folder. Raises DemoFailed if something is missing for it."""

    def __init__(self, keeper: Keeper, story: Story, readers: Readers) -> None:
        self.folder = keeper.folder
        self.story = story
        self.strangers = Strangers(keeper.folder) if readers.shared else None
        self.ada = Person("ada", "20261101", b"739146")
        self.ben = Person("ben", "20261102", b"582907")
        self.people = [self.ada, self.ben]
        self.office = Office(keeper, story)
        self.place = Workplace(keeper.folder, self.office, self.people, story, readers)

    async def run(self) -> None:
        """Everything. Raises DemoFailed."""
        self.story.chapter("A server is founded")
        async with self.office.open():
            self.story.chapter("A workstation joins")
            async with self.place.open():
                await self.bind()
                await self.issue()
                await self.encrypt()
                await self.nothing_due()
                await self.renew()
                await self.read_old()
                await self.block_and_unlock()
                await self.download()
                await self.check()
                if self.strangers is not None:
                    await self.show(self.strangers)

    # ---------------------------------------------------------------------------------------------------- issuance

    async def bind(self) -> None:
        """An operator takes two cards of stock for two people."""
        self.story.chapter("An operator binds two new cards to two people")
        for person in self.people:
            with failing_clearly("binding a card"):
                person.person = await self.office.person(person.login, f"{person.login}@example.test")
                person.device, _ = await self.office.bind(person.serial, person.person)
                person.password = await self.office.initial_password(person.person)
            self.story.say(f"card {person.serial} is for {person.login}, and a request to issue it stands")

    async def issue(self) -> None:
        """Both cards go in; the daemon alerts; both are issued at once."""
        self.story.chapter("Both cards go into readers; the daemon notices, asks the server, and says what is due")
        await asyncio.gather(*(self.place.insert(person) for person in self.people))
        with failing_clearly("issuing"):
            await asyncio.gather(*(self._issue(person) for person in self.people))
        for person in self.people:
            state = await self.office.device_state(person.device)
            self.story.require(state == devices_pb2.DEVICE_STATE_ISSUED, f"the card of {person.login} is issued")

    async def _issue(self, person: Person) -> None:
        card = await self.place.card(person)
        alert = await self.place.alert(card)
        self.story.say(f"alert for card {person.serial}: {', '.join(one.what for one in alert)}")
        purpose = pb.PURPOSE_ISSUE
        await self.place.updates.Prove(
            pb.ProveRequest(card=card, purpose=purpose, method=pb.METHOD_KIND_INITIAL_PASSWORD, account=person.login)
        )
        self.story.say(f"{person.login} proves who they are by the password they were given")
        await self.place.measured("issuance", person, lambda: self._through(person, card, purpose))

    async def _through(self, person: Person, card: str, purpose: pb.Purpose.ValueType, request: str = "") -> None:
        """Preview, Start, and the end of it."""
        shown = await self.place.updates.PreviewUpdate(
            pb.PreviewUpdateRequest(card=card, purpose=purpose, request=request)
        )
        self.story.say(f"{person.login} sees {len(shown.steps)} steps, about {shown.seconds:.0f} s, and presses Start")
        begun = await self.place.updates.StartUpdate(pb.StartUpdateRequest(card=card, digest=shown.digest))
        ended = await self.place.ended(begun.operation)
        if ended.outcome != pb.OUTCOME_DONE:
            raise DemoFailed(f"Card {person.serial} ended with {pb.Outcome.Name(ended.outcome)}.")

    # -------------------------------------------------------------------------------------------------- encryption

    async def encrypt(self) -> None:
        """Somebody encrypts a message to Ada."""
        self.story.chapter("Somebody encrypts a message to Ada")
        certificate = await self._certificate(self.ada, Slot.KEY_MANAGEMENT)
        (self.folder / "message.txt").write_bytes(MESSAGE)
        (self.folder / "ada.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        self._openssl(
            "cms",
            "-encrypt",
            "-binary",
            "-aes-256-cbc",
            "-in",
            "message.txt",
            "-outform",
            "DER",
            "-out",
            "message.der",
            "ada.pem",
        )
        self.story.say("openssl encrypted it to the certificate in slot 9D")

    async def _certificate(self, person: Person, slot: Slot) -> x509.Certificate:
        found = await self.place.certificate(person, slot)
        if found is None:
            raise DemoFailed(f"Card {person.serial} has no certificate in slot {slot.label}.")
        return found

    def _openssl(self, *arguments: str, secret: bytes = b"") -> bytes:
        environment = os.environ | {"DEMO_SECRET": secret.decode()}
        done = subprocess.run(
            ["openssl", *arguments], cwd=self.folder, env=environment, capture_output=True, check=False, timeout=60
        )
        if done.returncode != 0:
            raise DemoFailed(f"openssl {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    # ----------------------------------------------------------------------------------------------------- renewal

    async def nothing_due(self) -> None:
        """Ben asks for an update, and there is none."""
        self.story.chapter("Ben asks for an update: nothing is due, and the server is asked once")
        card = await self.place.card(self.ben)
        await self._prove(self.ben, card, pb.PURPOSE_UPDATE)

        async def ask() -> bool:
            request = pb.PreviewUpdateRequest(card=card, purpose=pb.PURPOSE_UPDATE)
            return bool((await self.place.updates.PreviewUpdate(request)).nothing_due)

        with failing_clearly("asking for an update"):
            self.story.require(await self.place.measured("check", self.ben, ask), "nothing is due for Ben's card")

    async def _prove(self, person: Person, card: str, purpose: pb.Purpose.ValueType) -> None:
        await self.place.updates.Prove(pb.ProveRequest(card=card, purpose=purpose, method=pb.METHOD_KIND_CARD))
        self.story.say(f"{person.login} proves who they are by the card and its PIN")

    async def renew(self) -> None:
        """All of Ada's keys are made anew; in the middle the card is pulled, and put back."""
        self.story.chapter("Ada's keys are renewed; in the middle the card is pulled out and put back")
        before = {slot: await self._certificate(self.ada, slot) for slot in RENEWED}
        card = await self.place.card(self.ada)
        request = await self.office.reissue(self.ada.device)
        alert = await self.place.alert(card)
        self.story.say(f"the server tells the daemon at once: {', '.join(one.what for one in alert)}")
        with failing_clearly("renewing"):
            await self.place.measured("update", self.ada, lambda: self._renewed(card, request))
        after = {slot: await self._certificate(self.ada, slot) for slot in RENEWED}
        kept = [slot.label for slot in RENEWED if before[slot].public_key() == after[slot].public_key()]
        self.story.require(not kept, f"every key in 9A, 9C, 9D and 9E is a new one {kept or ''}".rstrip())

    async def _renewed(self, card: str, request: str) -> None:
        await self._prove(self.ada, card, pb.PURPOSE_REISSUE)
        shown = await self.place.updates.PreviewUpdate(
            pb.PreviewUpdateRequest(card=card, purpose=pb.PURPOSE_REISSUE, request=request)
        )
        self.story.say(f"ada sees {len(shown.steps)} steps, and presses Start")
        self.place.pull_after(self.ada, PULLED_AFTER)
        begun = await self.place.updates.StartUpdate(pb.StartUpdateRequest(card=card, digest=shown.digest))
        broken = await self.place.over(begun.operation)
        if broken.phase == pb.OPERATION_PHASE_DONE:
            raise DemoFailed("The card was pulled too late.")
        self.story.say(f"the card is pulled: {broken.error.code}; {broken.error.effect or broken.error.message}")
        known = await self.place.known_operations()
        await self.place.insert(self.ada)
        self.story.say("it is put back, and the daemon goes on by itself: the consent still covers what is left")
        done = await self.place.next_operation(pb.OPERATION_KIND_UPDATE, known)
        if (done.phase, done.outcome) != (pb.OPERATION_PHASE_DONE, pb.OUTCOME_DONE):
            outcome = pb.Outcome.Name(done.outcome)
            raise DemoFailed(f"The rest was not done: {outcome} {done.error.code} {done.error.message}")

    async def read_old(self) -> None:
        """The message to the old key still opens."""
        self.story.chapter("The old message still opens: the old key is in a retired slot")
        slot = await self.place.retired(self.ada)
        self.story.say(f"the old encryption key is in slot {slot.label}, by the card's Key History")
        sealed = (self.folder / "message.der").read_bytes()
        opened = await self.place.decrypt(self.ada, slot, sealed)
        self.story.require(opened == MESSAGE, "the card opens the old message with the key in that slot")

    # ------------------------------------------------------------------------------------------------------ unlock

    async def block_and_unlock(self) -> None:
        """Ben types wrong PINs until the card blocks; the help desk helps."""
        self.story.chapter("Ben's PIN is blocked by wrong entries; the help desk approves, and the card is unlocked")
        await self.place.block(self.ben)
        card = await self.place.card(self.ben)
        status = await self.place.pins.GetPinStatus(pb.GetPinStatusRequest(card=card))
        self.story.require(status.pin.is_blocked, "the PIN is blocked")
        request = await self.office.unlock(self.ben.device)
        self.ben.password = await self.office.emergency_password(self.ben.person, request)
        self.ben.next_pin = b"904273"
        with failing_clearly("unlocking"):
            await self.place.measured("unlock", self.ben, lambda: self._unlocked(card, request))
        self.ben.pin = self.ben.next_pin
        status = await self.place.pins.GetPinStatus(pb.GetPinStatusRequest(card=card))
        self.story.require(not status.pin.is_blocked, "the PIN is a new one, and has all its tries")

    async def _unlocked(self, card: str, request: str) -> None:
        await self.place.updates.Prove(
            pb.ProveRequest(
                card=card, purpose=pb.PURPOSE_UNLOCK, method=pb.METHOD_KIND_EMERGENCY_PASSWORD, account=self.ben.login
            )
        )
        begun = await self.place.updates.Unlock(pb.UnlockRequest(card=card, request=request))
        await self.place.ended(begun.operation)

    # ---------------------------------------------------------------------------------------------------- download

    async def download(self) -> None:
        """Ada takes her encryption key home in a file."""
        self.story.chapter("Ada downloads her encryption key as a file; its password is shown in the prompt only")
        card = await self.place.card(self.ada)

        async def fetch() -> bytes:
            with failing_clearly("listing escrowed keys"):
                await self._prove(self.ada, card, pb.PURPOSE_RECOVER)
                listed = await self.place.escrow.ListEscrowedKeys(pb.ListEscrowedKeysRequest(card=card))
            key = next(one for one in listed.keys if one.downloadable)
            with failing_clearly("downloading a key"):
                file = await self.place.escrow.DownloadPfx(pb.DownloadPfxRequest(card=card, key=key.fingerprint))
            return bytes(file.pfx)

        (self.folder / "ada.p12").write_bytes(await self.place.measured("recover", self.ada, fetch))
        password = self.ada.said[-1].rpartition(" ")[2].encode()
        listing = self._openssl("pkcs12", "-in", "ada.p12", "-passin", "env:DEMO_SECRET", "-noenc", secret=password)
        self.story.require(b"PRIVATE KEY" in listing and b"BEGIN CERTIFICATE" in listing, "openssl opens the file")

    # ------------------------------------------------------------------------------------------------------- check

    async def check(self) -> None:
        """The finished cards against the standard, with the server's root as the only trust."""
        self.story.chapter("The cards are checked, with the server's root as the only thing to trust")
        trust, lists = await self._published()
        for person in self.people:
            card = await self.place.card(person)
            request = pb.CheckCardRequest(card=card, level=pb.CHECK_LEVEL_CIV, trust=trust, crls=lists)
            found: Any = await self.place.agent.CheckCard(request)
            wrong = [f"{one.code} {one.object}" for one in found.findings if one.severity == pb.SEVERITY_ERROR]
            self.story.require(found.good and not wrong, f"card {person.serial} is good at level civ {wrong or ''}")

    async def _published(self) -> tuple[list[bytes], list[bytes]]:
        """Certificates of authorities, and their revocation lists, as relying parties fetch them."""
        trust = [await self.office.fetch(f"/ca/{name}-1.cer") for name in ("root", "cards")]
        lists = [await self.office.fetch(f"/crl/{name}-1.crl") for name in ("root", "cards")]
        return trust, lists

    # --------------------------------------------------------------------------------------------------- strangers

    async def show(self, strangers: Strangers) -> None:
        """Other people's programs read the cards while the daemon has them."""
        self.story.chapter("Programs of others read the cards, while the daemon goes on: yubico-piv-tool and OpenSC")
        for person in self.people:
            with failing_clearly("listing certificates"):
                issued = await self.office.certificates(person.device)
            reader = self.place.readers.name(self.place.cards[person.serial])
            for slot in RENEWED:
                for read in (strangers.certificate_by_yubico, strangers.certificate_by_opensc):
                    if await read(reader, slot) != issued[slot.label.lower()]:
                        raise DemoFailed(f"{read.__name__}: slot {slot.label} has not what was issued last.")
            self.story.say(f"card {person.serial}: both read the certificates that the server issued, in four slots ✓")
            for slot in (Slot.AUTHENTICATION, Slot.CARD_AUTHENTICATION):
                await strangers.signed_by_opensc(reader, slot, person.pin, issued[slot.label.lower()])
            self.story.say(f"card {person.serial}: pkcs11-tool signs with 9A and 9E, and openssl verifies it ✓")
        reader = self.place.readers.name(self.place.cards[self.ada.serial])
        old = x509.load_pem_x509_certificate((self.folder / "ada.pem").read_bytes())
        read_back = await strangers.certificate_by_opensc(reader, await self.place.retired(self.ada))
        self.story.require(read_back == old, "OpenSC finds the old encryption key in its retired slot")
