"""Rewrite docs/rights.md from the matrix in the code: every call, and who may make it."""

from __future__ import annotations

from pathlib import Path

from cardwright_server.authentication.matrix import RULES, Refuse, Rule, Wants
from cardwright_server.authentication.services import Service
from cardwright_server.people.model import Role

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "rights.md"
HEAD = """# Rights

Which call may be made by whom: what `ACCESS_DENIED` and the entries `authorization.denied` of the audit name. The
server decides by this table, and this page is printed from it (`make docs`). A suffix, as in
`SessionService.Run/unlock`, tells rights of one call apart.

| Column | Says |
| --- | --- |
| Roles | of operators and services; any of them is enough. A security officer gives them (`server operator grant`) |
| Over | what the role has to be given over. `person`: the person whom it is about. \
`holder`: the same, but what a missing person holds (erased, or not known since a restore) is open to a role given \
over the whole organization. `stock`: the same, but what is nobody's is open to the role \
anywhere. `everywhere`: the whole organization. `any`: listings, which show only what is covered |
| Persons | may do it for themselves, proved as [the service](server-people.md#proofs) that is named wants |
| Others | callers besides |
| Never | whatever the role: on one's own person and device, or what one asked for |
| Part | what a strict policy gives to different persons |
"""
COLUMNS = ("Call", "Roles", "Over", "Persons", "Others", "Never", "Part")
OVER = {
    Wants.PERSON: "person",
    Wants.HOLDER: "holder",
    Wants.STOCK: "stock",
    Wants.ORGANIZATION: "everywhere",
    Wants.SOME: "any",
}
NEVER = {Refuse.OWN_PERSON: "own", Refuse.OWN_REQUEST: "asked for"}


def row(call: str, rule: Rule) -> tuple[str, ...]:
    """The cells of one call."""
    others = {"workstation": rule.workstation, "the server": rule.server, "anyone": rule.anyone}
    local = " on its own socket" if rule.local else ""
    return (
        f"`{call}`",
        ", ".join(role.value for role in Role if role in rule.roles),
        OVER[rule.wants] if rule.roles else "",
        "all" if rule.own == set(Service) else ", ".join(sorted(service.value for service in rule.own)),
        ", ".join(name for name, is_one in others.items() if is_one) + local,
        ", ".join(words for refuse, words in NEVER.items() if refuse in rule.refuse),
        "" if rule.part is None else rule.part.value,
    )


def text() -> str:
    """The whole document: a table for each service of the contract."""
    parts, service = [HEAD], ""
    for call, rule in sorted(RULES.items()):
        if not call.startswith(f"{service}."):
            service = call.partition(".")[0]
            parts.append(f"\n## {service}\n\n| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}\n")
        parts.append(f"| {' | '.join(row(call, rule))} |\n")
    return "".join(parts)


def main() -> None:
    """Rewrite the document."""
    DOCUMENT.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
