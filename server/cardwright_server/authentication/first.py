"""The first two operators (S7): by a credential of one hour that can do nothing else, and then is spent for ever."""

from __future__ import annotations

import re
import secrets
from datetime import datetime, timedelta
from hashlib import sha256
from uuid import UUID

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.secret import Secret

from ..audit.model import AuditEntry, Target
from ..people.model import Grant, Operator, Role
from ..people.operators import OperatorService
from ..people.service import PeopleService
from ..store.unit import Unit
from . import store
from .authorize import Authorize, CallTarget
from .errors import AccessDenied
from .journal import first_event
from .matrix import Call
from .principal import Principal, server

LIFETIME = timedelta(hours=1)
ROLES = {Role.ADMINISTRATOR: "administrator", Role.SECURITY_OFFICER: "security_officer"}
"""The two that are enrolled, and the columns that say who they are."""
_FORM = re.compile(rb"cwfirst1\.[0-9a-f]{32}")


class FirstCredentialSpent(CardwrightError):
    """Both of the first operators are enrolled; further ones are made by them."""

    code = "FIRST_CREDENTIAL_SPENT"
    default_effect = "Nothing was changed."
    default_advice = "Ask the administrator and the security officer."


class FirstCredentialRefused(CardwrightError):
    """The credential is unknown, over, or was used for this role already. Which is not said."""

    code = "FIRST_CREDENTIAL_REFUSED"
    default_effect = "Nothing was changed."
    default_advice = "Run cardwright server init on the server's host again, within its hour."


class SamePerson(CardwrightError):
    """Administrator and security officer must be two persons with two keys."""

    code = "SAME_PERSON"
    default_effect = "Nothing was changed."
    default_advice = "Another person has to be enrolled for the second role."


class FirstOperators:
    """Makes the credential, and enrols by it. Stateless."""

    def __init__(self, authorize: Authorize, people: PeopleService, operators: OperatorService) -> None:
        self._authorize = authorize
        self._people = people
        self._operators = operators

    async def create(self, unit: Unit, org: UUID) -> tuple[Secret, datetime]:
        """A credential for an organization, and its end; an older one is void. For the ``init`` command alone.

        Possible again until both are enrolled. Raises FirstCredentialSpent.
        """
        text = b"cwfirst1." + secrets.token_hex(16).encode()
        ends = unit.now + LIFETIME
        digest = sha256(text).digest()
        older = await store.first_credential_of(unit, org)
        if older is not None and older.closed_at is None:
            unit.beforehand(first_event(org, older.id, older.hash, ""))
        if not await store.insert_first_credential(unit, org, digest, ends) and not (
            await store.replace_first_credential(unit, org, digest, ends)
        ):
            raise FirstCredentialSpent("the first operators are enrolled")
        unit.audit(AuditEntry(org, server(org).who, "authentication.first-credential", Target("organization", org)))
        return Secret(text), ends

    async def enrol(
        self,
        unit: Unit,
        principal: Principal,
        credential: Secret,
        role: Role,
        *,
        login: str,
        display_name: str,
        spki: bytes,
        mail: str = "",
    ) -> Operator:
        """Make the administrator or the security officer: a person, an account, its key and its one role.

        Only on the host's own socket, once for each role, two persons; with the same key it is the same act.
        ``spki``: SHA-256 of the key's SubjectPublicKeyInfo. Raises AuthorizationError, FirstCredentialRefused,
        SamePerson, KeyTaken, LoginTaken, BadName, and AccessDenied for another role.
        """
        org = principal.org
        await self._authorize(unit, principal, Call("SystemService.EnrolFirstOperator"), CallTarget(org))
        if role not in ROLES:
            raise AccessDenied("this credential makes an administrator and a security officer, and nobody else")
        form = credential.reveal()
        digest = sha256(form if _FORM.fullmatch(form) else b"").digest()
        row = await store.first_credential_by_hash(unit, digest)
        if row is None or row.org != org or row.expires_at <= unit.now:
            raise FirstCredentialRefused("the credential is refused")
        held = {name: getattr(row, column) for name, column in ROLES.items()}
        if held[role] is not None:
            # The same key again: the answer was lost, or its certificate could not be made.
            done = await self._operators.by_key(unit, org, spki)
            if done is not None and done.person == held[role]:
                return done
        if row.closed_at is not None or held[role] is not None:
            raise FirstCredentialRefused("the credential is refused")
        known = await self._people.by_login(unit, org, login)
        others = {person for person in held.values() if person is not None}
        if known is not None and known.id in others:
            raise SamePerson("this person was enrolled for the other role")
        unit.beforehand(first_event(org, row.id, digest, ROLES[role]))
        own = server(org)
        person = (
            known.id
            if known is not None
            else await self._people.add_first(unit, own, login=login, display_name=display_name, mail=mail)
        )
        account = await self._operators.add(unit, own, f"first {role}", person)
        await self._operators.put_key(unit, own, account.id, spki)
        made = await self._operators.put_grant(unit, own, account.id, Grant(role))
        values: dict[str, UUID | datetime] = {ROLES[role]: person}
        if others:
            values["closed_at"] = unit.now
        await store.update_first_credential(unit, row.id, row.version, values)
        return made
