"""Each kind of script that a finding prints is run by the real psql, in a database with the fault."""

from __future__ import annotations

import datetime
import re
import subprocess
from typing import Any

import pytest

from pgconform.attacks.roads import READS, WRITES
from pgconform.catalogue_of_checks import load
from pgconform.checks import Evidence, evaluate
from pgconform.database import Database
from pgconform.introspect import snapshot
from pgconform.model import Effort, Finding
from pgconform.targets.server import Server, find_binaries
from tests.conftest import Connect
from tests.proving import FAULTS, contract_of, read, transaction

OPENED = "alter table public.contacts disable row level security; grant all on public.contacts to anon, authenticated;"
# By what each shows: a fault, or SQL that makes one, and the check that prints the script.
PRINTED = {
    "every way to read": (OPENED, "foreign-rows-unreadable"),
    "every way to write": (OPENED, "foreign-rows-unwritable"),
    "with the own parents": ("foreign-rows-unwritable/taken-with-parents", "foreign-rows-unwritable"),
    "stopped by a constraint": ("foreign-rows-unwritable/taken-one-by-one", "foreign-rows-unwritable"),
    "a leaky view": ("foreign-rows-unreadable/leaky-view", "foreign-rows-unreadable"),
    "children": ("parents-stay-in-tenant/plain-key", "parents-stay-in-tenant"),
    "clashes": ("clashes-stay-in-tenant/phone", "clashes-stay-in-tenant"),
    "a call that reads": ("functions-keep-tenants/reads", "functions-keep-tenants"),
    "a call that writes": ("functions-keep-tenants/deletes", "functions-keep-tenants"),
    "a call that tells": ("functions-keep-tenants/counts", "functions-keep-tenants"),
    "a call that runs SQL": ("functions-keep-tenants/runs", "functions-keep-tenants"),
    "turns": ("access-follows-membership/copied", "access-follows-membership"),
}


def printed(connect: Connect, made: str, check: str) -> tuple[str, list[Finding]]:
    """The fault's SQL, and what the check finds."""
    text = read(FAULTS / f"{made}.sql").sql if "/" in made else made
    with transaction(connect("victorysync"), contract_of("victorysync")):
        connect("victorysync").execute(text.encode())
        contract, database = contract_of("victorysync"), Database(connect("victorysync"))
        catalog, today = snapshot(connect("victorysync")), datetime.datetime.now(datetime.UTC).date()
        evidence = Evidence(contract, catalog, database, today, lambda: database, Effort.of("quick", "1"))
        concerned = [s for s in load()[check].subjects(contract, evidence) if _names(text, s)]
        judged = evaluate(load()[check], evidence, concerned)
    return text, [f for f in judged.findings if f.script]


def _names(text: str, subject: Any) -> bool:
    """True where SQL speaks of the subject: a relation, a function, or a pair that begins with one."""
    first = subject[0] if isinstance(subject, tuple) else subject
    return f"{first}".partition("(")[0] in text


def pasted(references: Server, fault: str, script: str) -> tuple[list[str], str]:
    """The errors that psql showed, and all else."""
    command = [str(find_binaries("16") / "psql"), "-X", "-v", "VERBOSITY=verbose", references.dsn("victorysync")]
    given = script.replace("begin;", f"begin;\n{fault}", 1)
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return re.findall(r"ERROR: +(\w{5}):", done.stderr), done.stdout


@pytest.mark.parametrize("name", PRINTED)
def test_a_printed_script_can_be_pasted(name: str, connect: Connect, references: Server) -> None:
    """It runs to its end, or to the constraint that the finding names."""
    fault, findings = printed(connect, *PRINTED[name])
    assert findings
    for found in findings:
        errors, shown = pasted(references, fault, found.script)
        expected = re.findall(r"SQLSTATE (\w{5})", found.observed)
        after = [code for code in errors if code != "25P02"]  # of what comes after the error that is shown
        assert after == expected, (found.key, errors, found.script)
        assert shown.rstrip().endswith("ROLLBACK")


def test_scripts_are_printed_for_every_road(connect: Connect) -> None:
    _, read_so = printed(connect, OPENED, "foreign-rows-unreadable")
    _, written_so = printed(connect, OPENED, "foreign-rows-unwritable")
    roads = {f.detail for f in (*read_so, *written_so) if f.object == "public.contacts"}
    assert {road.name for road in (*READS, *WRITES)} == roads


RAISING = """
create function auth.known(org uuid) returns void language plpgsql stable security definer
  set search_path = pg_temp as $$
begin
  if exists (select from public.organizations where id = org) then
    raise exception 'not yours';
  end if;
end
$$;
grant execute on function auth.known(uuid) to authenticated;
"""


def test_a_call_that_fails_does_not_keep_the_script_from_comparing(connect: Connect, references: Server) -> None:
    fault, (found, *others) = printed(connect, RAISING, "functions-keep-tenants")
    assert (found.detail, others) == ("tells", [])
    errors, shown = pasted(references, fault, found.script)
    assert errors == ["P0001"]
    assert shown.count("(1 row)") >= 2, shown  # the claims, and the call for nobody
