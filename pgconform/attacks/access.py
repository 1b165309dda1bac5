"""Who may do what with whose rows: role by relation by command, as the contract declares it and as it was observed.

Clients are observed by what their sessions see, and where drills may write by what they can write, each attempt undone;
services, and whatever a live target would have to write, by the privileges in the catalogue. Judges nothing but whether
the two agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pgconform.attacks.trials import AT_MOST_OWN, SOME, UNTRIED, WIDE, Subject, Tally, attack, empty, seen
from pgconform.catalog import Table
from pgconform.checks import LOCKED, Evidence, own_error
from pgconform.contract import COMMANDS, Command
from pgconform.model import NotVerified, TargetLost
from pgconform.names import quote
from pgconform.progress import Meter
from pgconform.statements import Name, Statement, statement
from pgconform.subjects import promise_of, reachable_tables

GRANTED = "granted"  # by the catalogue; nothing was written


@dataclass(frozen=True, slots=True)
class Cell:
    """What one role may do with the rows of one relation by one command. ``declared`` is '' for a relation that the
    contract does not declare; ``why`` tells what was seen; ``trouble`` why it could not be verified."""

    relation: str
    role: str
    command: Command
    declared: str
    observed: str
    why: str = ""
    trouble: str = ""

    @property
    def agrees(self) -> bool:
        """True where nothing is let through that is not declared, and all that is."""
        if self.observed == GRANTED:
            return self.declared not in ("", "none")
        alike = {("own", AT_MOST_OWN), ("", "none"), *(("team", told) for told in ("own", AT_MOST_OWN, SOME))}
        return self.declared == self.observed or (self.declared, self.observed) in alike

    @property
    def differs(self) -> bool:
        return not self.trouble and not self.agrees


def observe(evidence: Evidence, meter: Meter) -> tuple[Cell, ...]:
    """Every role, relation and command, in the contract's order; then what clients reach though nobody declared it.
    The ``meter`` follows.

    Raises TargetLost where the database goes away; whatever else goes wrong is the trouble of one cell.
    """
    relations = meter.each(list(_relations(evidence)))
    return tuple(cell for name, table in relations for cell in _cells(evidence, name, table))


def _relations(evidence: Evidence) -> Iterator[tuple[str, Table | None]]:
    catalog, contract = evidence.catalog, evidence.contract
    others: dict[int, list[Table]] = {}  # by the promise: partitions, of which nobody speaks but by the whole
    for table in reachable_tables(contract, evidence.privileges):
        if str(table) not in contract.tables:
            others.setdefault(id(promise_of(catalog, contract, table)), []).append(table)
    for name, promise in contract.tables.items():
        if catalog.table(name) or not promise.optional:
            yield name, catalog.table(name)
        yield from ((str(table), table) for table in others.get(id(promise), ()))
    yield from ((str(table), table) for table in others.get(id(None), ()))


def _cells(evidence: Evidence, name: str, table: Table | None) -> Iterator[Cell]:
    contract = evidence.contract
    promise = promise_of(evidence.catalog, contract, table) if table else contract.tables[name]
    declared_as = next((n for n, p in contract.tables.items() if p is promise), "")
    for role in dict.fromkeys([*contract.roles.clients, *contract.roles.services]):
        for command in COMMANDS:
            declared = contract.scope(declared_as, role, command) if promise else ""
            trouble = ""
            if table is None:
                trouble = f"{name} does not exist"
            elif name in evidence.catalog.unseen:
                trouble = LOCKED.format(name)
            elif evidence.catalog.role(role) is None:
                trouble = f"role {quote(role)} does not exist"
            if trouble or table is None:
                yield Cell(name, role, command, declared, UNTRIED, trouble=trouble)
                continue
            try:
                yield _cell(evidence, Subject(table, promise, declared_as, role, command, declared))
            except NotVerified as refusal:
                yield Cell(name, role, command, declared, UNTRIED, trouble=str(refusal))
            except (TargetLost, KeyboardInterrupt):
                raise
            except Exception as error:  # ours: it must not hide the other cells
                yield Cell(name, role, command, declared, UNTRIED, trouble=own_error(error))


def _cell(evidence: Evidence, subject: Subject) -> Cell:
    if not _granted(evidence, subject):
        return _refused(evidence, subject)
    if subject.role not in evidence.contract.roles.clients:
        return _service(evidence, subject)
    if subject.command == "select":
        tally = seen(evidence, subject)
    elif evidence.writing is None or subject.promise is None:
        return _made(subject, GRANTED)
    else:
        tally = Tally()
    if evidence.writing and subject.promise:
        attack(evidence, subject, tally)
    observed = tally.observed(subject)
    trouble = "" if tally.foreign_passed and subject.declared not in WIDE else tally.trouble
    if not (tally.own or tally.foreign_passed) and empty(evidence, subject.table):
        observed = UNTRIED
    if observed == UNTRIED and subject.declared not in ("", "none"):
        trouble = trouble or f"granted, but {subject.table} has no row to try with"
    made = _made(subject, observed, "; ".join(tally.why.values()), trouble)
    return replace(made, why="") if made.agrees else made


def _made(subject: Subject, observed: str, why: str = "", trouble: str = "") -> Cell:
    return Cell(str(subject.table), subject.role, subject.command, subject.declared, observed, why, trouble)


def _granted(evidence: Evidence, subject: Subject) -> bool:
    """True when the catalogue has the privilege, on the relation or on a column of it, and lets the role get there."""
    held = evidence.privileges.on(subject.role, subject.table)
    reached = evidence.privileges.reaches(subject.role, subject.table)
    return reached and any(h.privilege == subject.command.upper() for h in held)


def _refused(evidence: Evidence, subject: Subject) -> Cell:
    """Without a privilege there is nothing to try, but one statement that touches no row shows that it is so."""
    command = _touching_nothing(subject)
    if evidence.writing and command:
        outcome = evidence.drills.attempt(subject.role, (), command)
        if not outcome.state:
            return _made(subject, "none", trouble="the server lets it pass, though the catalogue has no such privilege")
    return _made(subject, "none")


def _touching_nothing(subject: Subject) -> Statement | None:
    able = [c.name for c in subject.table.columns if not c.generated and c.identity != "a"]
    t = Name.of(str(subject.table))
    if subject.command in ("insert", "update"):
        template = {"insert": "insert into {t} ({c}) select null where false",
                    "update": "update {t} set {c} = null where false"}[subject.command]  # fmt: skip
        return statement(template, t=t, c=Name((able[0],))) if able else None
    return statement("select from {t} where false" if subject.command == "select" else "delete from {t} where false",
                     t=t)  # fmt: skip


def _service(evidence: Evidence, subject: Subject) -> Cell:
    """What the catalogue tells of a role that no session signs in as."""
    table, role = subject.table, evidence.catalog.role(subject.role)
    secured = table.kind in ("table", "partitioned") and table.row_security
    exempt = role is not None and (role.superuser or role.bypass_row_security)
    if not secured or exempt or (evidence.privileges.owns(subject.role, table) and not table.forced):
        return _made(subject, subject.wide)
    mine = {"public", *evidence.privileges.inherited(subject.role)}
    policies = [p for p in table.policies if p.command in ("ALL", subject.command.upper()) and mine & set(p.roles)]
    if not any(p.permissive for p in policies):
        return _made(subject, "none", "no policy lets it through")
    tests = [(p.check or p.using) if subject.command == "insert" else p.using for p in policies]
    if all(p.permissive for p in policies) and "true" in tests:
        return _made(subject, subject.wide)
    return _made(subject, GRANTED, trouble="the catalogue does not tell which rows its policies let through")
