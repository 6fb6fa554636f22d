"""``SystemService``: versions, how the installation stands, the first two operators."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

from cardwright_cardops.wire_reading import refuse_unknown
from cardwright_proto.cms.v1 import system_pb2, system_pb2_grpc

from ..authentication.principal import Principal
from ..people.model import Role
from ..release import LONGEST_MESSAGE, OLDEST, PROTOCOL, common, release
from ..system import Newcomer, SystemService
from ..vault.model import MasterPurpose
from .calling import Calls, Context
from .reading import RequestMalformed, choice, line, octets, secret, stamp

MAX_REQUEST = 16 * 1024
LONG = timedelta(minutes=30)
"""For copies and for keys made in a slow HSM."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,99}")
_MASTERS = {int(system_pb2.MasterKey.Value(f"MASTER_KEY_{one.name}")): one for one in MasterPurpose}
_ROLES = {
    int(system_pb2.FIRST_ROLE_ADMINISTRATOR): Role.ADMINISTRATOR,
    int(system_pb2.FIRST_ROLE_SECURITY_OFFICER): Role.SECURITY_OFFICER,
}


class SystemServicer(system_pb2_grpc.SystemServiceServicer):
    """``busy`` gives how many card sessions and streams this process serves."""

    def __init__(self, calls: Calls, service: SystemService, busy: Callable[[], tuple[int, int]]) -> None:
        self._calls = calls
        self._service = service
        self._busy = busy

    async def Hello(self, request: system_pb2.HelloRequest, context: Context) -> system_pb2.HelloResponse:
        """See system.proto."""

        async def work(principal: Principal) -> system_pb2.HelloResponse:
            refuse_unknown(request)
            line(request.software, "software", 200)
            spoken = common(request.protocol, request.oldest)
            said = await self._service.hello(principal)
            return system_pb2.HelloResponse(
                protocol=spoken,
                newest=PROTOCOL,
                oldest=OLDEST,
                release=release(),
                max_message=LONGEST_MESSAGE,
                root=said.root,
                now=stamp(said.now),
            )

        return await self._calls.act(context, work)

    async def Status(self, request: system_pb2.StatusRequest, context: Context) -> system_pb2.StatusResponse:
        """See system.proto."""

        async def work(principal: Principal) -> system_pb2.StatusResponse:
            refuse_unknown(request)
            found = await self._service.status(principal)
            sessions, streams = self._busy()
            answer = system_pb2.StatusResponse(
                release=found.release,
                started=stamp(found.started),
                database=found.database,
                vault=found.vault,
                sessions=sessions,
                streams=streams,
                anchor=found.anchor,
            )
            for part in found.parts:
                row = answer.parts.add(name=part.name, good=part.good, code=part.code, failures=part.failures)
                if part.done_at is not None:
                    row.done.CopyFrom(stamp(part.done_at))
            for one in found.certificates:
                answer.certificates.add(kind=one.kind, name=one.name, ends=stamp(one.ends), alarm=int(one.alarm))
            return answer

        return await self._calls.act(context, work)

    async def EnrolFirstOperator(
        self, request: system_pb2.EnrolFirstOperatorRequest, context: Context
    ) -> system_pb2.EnrolFirstOperatorResponse:
        """See system.proto."""

        async def work(principal: Principal) -> system_pb2.EnrolFirstOperatorResponse:
            refuse_unknown(request)
            newcomer = Newcomer(
                choice(_ROLES, request.role, "role"),
                line(request.login, "login", 200, least=1),
                line(request.display_name, "display_name", 300, least=1),
                line(request.mail, "mail", 320),
                octets(request.certificate_request, "certificate_request", 1, MAX_REQUEST),
            )
            done = await self._service.enrol_first(principal, secret(request.credential, "credential", 200), newcomer)
            return system_pb2.EnrolFirstOperatorResponse(
                operator=str(done.operator.id),
                person=str(done.operator.person),
                certificate=done.certificate,
                chain=done.chain,
            )

        return await self._calls.act(context, work)

    async def Backup(self, request: system_pb2.BackupRequest, context: Context) -> system_pb2.BackupResponse:
        """See system.proto."""

        async def work(principal: Principal) -> system_pb2.BackupResponse:
            if not _NAME.fullmatch(request.name):
                raise RequestMalformed("name is not of letters, digits, hyphens and dots.")
            vault = secret(request.vault_passphrase, "vault_passphrase")
            backup = secret(request.backup_passphrase, "backup_passphrase")
            if not vault or not backup:
                raise RequestMalformed("A passphrase is empty.")
            path, made = await self._service.back_up(principal, request.name, vault, backup)
            return system_pb2.BackupResponse(
                path=str(path), made=stamp(made.made_at), files=sorted(made.files), anchor=made.anchor
            )

        return await self._calls.act(context, work, LONG)

    async def RotateMaster(
        self, request: system_pb2.RotateMasterRequest, context: Context
    ) -> system_pb2.RotateMasterResponse:
        """See system.proto."""

        async def work(principal: Principal) -> system_pb2.RotateMasterResponse:
            purpose = choice(_MASTERS, request.key, "key")
            vault = secret(request.vault_passphrase, "vault_passphrase")
            if not vault:
                raise RequestMalformed("vault_passphrase is empty.")
            return system_pb2.RotateMasterResponse(version=await self._service.rotate_master(principal, purpose, vault))

        return await self._calls.act(context, work, LONG)

    async def DestroyMaster(
        self, request: system_pb2.DestroyMasterRequest, context: Context
    ) -> system_pb2.DestroyMasterResponse:
        """See system.proto."""

        async def work(principal: Principal) -> system_pb2.DestroyMasterResponse:
            purpose = choice(_MASTERS, request.key, "key")
            vault = secret(request.vault_passphrase, "vault_passphrase")
            if not vault or not request.version:
                raise RequestMalformed("vault_passphrase or version is empty.")
            await self._service.destroy_master(principal, purpose, request.version, vault)
            return system_pb2.DestroyMasterResponse()

        return await self._calls.act(context, work, LONG)
