"""Imports go one way between the parts, and the guard and the oracle share nothing with what they judge."""

from __future__ import annotations

import pytest

from tests.support.tree import (
    PARTS,
    REPOSITORY,
    Import,
    imports,
    imports_of,
    module_name,
    python_files,
    within,
)

MAY_IMPORT = {
    "proto": set[str](),
    "cardops": set[str](),
    "simulators": {"cardops", "proto"},
    "daemon": {"cardops", "proto"},
    "server": {"cardops", "proto"},
    "clients": {"cardops", "proto"},
}
"""Which other part a part may import."""

WIRE = ("cardwright_cardops.wire", "cardwright_cardops.wire_tokens")
"""The modules of cardops that know the generated protobuf modules: of cards, and of PKCS#11 tokens."""

STARTERS = (
    "cardwright_clients.cli.daemon",
    "cardwright_clients.cli.server_audit",
    "cardwright_clients.cli.server_backup",
    "cardwright_clients.cli.server_init",
    "cardwright_clients.cli.server_migrate",
    "cardwright_clients.cli.server_place",
    "cardwright_clients.cli.server_restore",
    "cardwright_clients.cli.server_run",
    "cardwright_clients.cli.sim",
)
"""Commands that start a part or work on its data folder: they import it in functions only, so --help stays fast."""
DEMO = "cardwright_clients.demo"
STARTED = {"simulators", "daemon", "server"}

GUARD = "cardwright_cardops.guard"
GUARD_MAY_IMPORT = (
    "cardwright_cardops.errors",
    "cardwright_cardops.iso7816",
    "cardwright_cardops.program.items",
    "cardwright_cardops.program.token_items",
    "cardwright_cardops.secret",
)
"""Values only: the shape of what is judged, and how bytes are read. Nothing that plans or builds a batch."""

ORACLE_MUST_NOT_IMPORT = (
    "cardwright_cardops.plan",
    "cardwright_cardops.inventory",
    "cardwright_cardops.piv.inventory",
    "cardwright_cardops.program",
)


def part_of(module: str) -> str | None:
    """The part that a module belongs to, None for what is not ours."""
    top = module.split(".")[0]
    return next((part for part in PARTS if top == f"cardwright_{part}"), None)


def forbidden(importer: str, found: Import) -> bool:
    """Whether module ``importer`` may not have this import."""
    own, other = part_of(importer), part_of(found.module)
    assert own is not None
    if other is None or other == own or other in MAY_IMPORT[own]:
        return False
    if importer in WIRE and other == "proto":
        return False
    if other in STARTED:
        if within(importer, DEMO):
            return False
        if any(within(importer, starter) for starter in STARTERS):
            return not found.lazy
    return True


def guard_violations(files: dict[str, list[Import]]) -> set[tuple[str, str]]:
    """(module, import) pairs by which the guard reaches code it must not share, also through what it may import."""
    seen: set[str] = set()
    waiting = [module for module in files if within(module, GUARD)]
    bad = set()
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        for found in files[module]:
            if part_of(found.module) is None or within(found.module, GUARD):
                continue
            if not any(within(found.module, allowed) for allowed in GUARD_MAY_IMPORT):
                bad.add((module, found.module))
                continue
            # "from x import y" is recorded as x.y; y is a module or a name in module x.
            waiting.extend(name for name in (found.module, found.module.rpartition(".")[0]) if name in files)
    return bad


@pytest.mark.parametrize("part", PARTS)
def test_imports_between_parts(part: str) -> None:
    bad = [
        f"{path.relative_to(REPOSITORY)}:{found.line} imports {found.module}{' (lazily)' if found.lazy else ''}"
        for path in python_files(part)
        for found in imports_of(path)
        if forbidden(module_name(path), found)
    ]
    assert bad == []


def test_guard_shares_no_code_with_what_it_judges() -> None:
    files = {module_name(path): imports_of(path) for path in python_files("cardops")}
    assert guard_violations(files) == set()


def test_oracle_imports_nothing_that_it_judges() -> None:
    bad = [
        f"{path.relative_to(REPOSITORY)}:{found.line} imports {found.module}"
        for path in python_files("tests/oracle")
        for found in imports(path.read_text(encoding="utf-8"), ".".join(path.relative_to(REPOSITORY).parts))
        if any(within(found.module, judged) for judged in ORACLE_MUST_NOT_IMPORT)
    ]
    assert bad == []


@pytest.mark.parametrize(
    ("importer", "source", "wrong"),
    [
        ("cardwright_cardops.piv.slots", "from cardwright_proto.card.v1 import card_pb2", True),
        ("cardwright_cardops.wire", "from cardwright_proto.card.v1 import card_pb2", False),
        ("cardwright_cardops.piv.wire", "import cardwright_proto", True),
        ("cardwright_cardops.piv.slots", "def f():\n    import cardwright_server.app", True),
        ("cardwright_cardops.piv.slots", "from ..iso7816 import apdu", False),
        ("cardwright_proto.card.v1.x", "import cardwright_cardops", True),
        ("cardwright_simulators.card.card", "from cardwright_cardops.iso7816.tlv import Tlv", False),
        ("cardwright_simulators.card.card", "from cardwright_daemon import relay", True),
        ("cardwright_daemon.relay", "import cardwright_server", True),
        ("cardwright_server.app", "import cardwright_daemon", True),
        ("cardwright_server.app", "if TYPE_CHECKING:\n    import cardwright_clients", True),
        ("cardwright_clients.cli.card", "def f():\n    from cardwright_simulators import card", True),
        ("cardwright_clients.cli.sim", "def f():\n    from cardwright_simulators import card", False),
        ("cardwright_clients.cli.sim", "from cardwright_simulators import card", True),
        ("cardwright_clients.cli.sim", "if typing.TYPE_CHECKING:\n    import cardwright_simulators", False),
        ("cardwright_clients.cli.server_run", "def f():\n    import cardwright_server.app", False),
        ("cardwright_clients.cli.server_admin_user", "def f():\n    import cardwright_server.app", True),
        ("cardwright_clients.cli.main", "GROUPS = {'x': 'cardwright_server.app:main'}", True),
        ("cardwright_clients.cli.main", "GROUPS = {'x': 'cardwright_clients.cli.card:group'}", False),
        ("cardwright_clients.cli.main", "importlib.import_module('cardwright_daemon')", True),
        ("cardwright_clients.demo.office", "from cardwright_simulators import card", False),
    ],
)
def test_direction_rule(importer: str, source: str, wrong: bool) -> None:
    assert any(forbidden(importer, found) for found in imports(source, importer)) is wrong


def test_guard_rule_follows_what_the_guard_may_import() -> None:
    def file(module: str, source: str) -> tuple[str, list[Import]]:
        return module, imports(source, module)

    guard = "from ..program.items import ApduItem\nfrom ..iso7816.tlv import Tlv\nfrom .table import ROWS"
    pure = dict(
        [
            file("cardwright_cardops.guard.judge", guard),
            file("cardwright_cardops.guard.table", "import enum"),
            file("cardwright_cardops.program.items", "from ..iso7816.apdu import CommandAPDU"),
            file("cardwright_cardops.program.runner", "from ..plan import planner"),
        ]
    )
    assert guard_violations(pure) == set()

    through_items = pure | dict([file("cardwright_cardops.program.items", "from ..piv import commands")])
    assert guard_violations(through_items) == {("cardwright_cardops.program.items", "cardwright_cardops.piv.commands")}

    direct = pure | dict([file("cardwright_cardops.guard.table", "def f():\n    from ..plan import steps")])
    assert guard_violations(direct) == {("cardwright_cardops.guard.table", "cardwright_cardops.plan.steps")}


def test_relative_imports_resolve() -> None:
    def resolved(source: str, module: str, is_package: bool = False) -> list[str]:
        return [found.module for found in imports(source, module, is_package)]

    assert resolved("from . import b", "a.c") == ["a.b"]
    assert resolved("from . import b", "a.c", is_package=True) == ["a.c.b"]
    assert resolved("from ...x.y import z", "a.b.c.d") == ["a.x.y.z"]


def test_wire_module_is_single() -> None:
    users = {
        module_name(path)
        for path in python_files("cardops")
        if any(part_of(found.module) == "proto" for found in imports_of(path))
    }
    assert users <= set(WIRE)
