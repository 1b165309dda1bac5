"""PostgreSQL's own programs for dumps, and what a dump leaves out: roles."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pgconform.model import NotVerified
from pgconform.names import quote

if TYPE_CHECKING:
    from pgconform.catalog import Catalog, Role

_ATTRIBUTES = {
    "superuser": "superuser", "bypass_row_security": "bypassrls", "create_role": "createrole",
    "create_database": "createdb", "replication": "replication", "login": "login", "inherit": "inherit",
}  # fmt: skip


class Unrestorable(NotVerified):
    """The dump itself cannot be loaded, wherever it is tried."""


def size(dsn: str, tables: Collection[str] | None = None) -> int:
    """Bytes of the database, or of these tables of it. Raises NotVerified."""
    import psycopg

    asked = "select pg_catalog.pg_database_size(pg_catalog.current_database())"
    if tables is not None:
        asked = (
            "select coalesce(pg_catalog.sum(pg_catalog.pg_total_relation_size(pg_catalog.to_regclass(t.name))), 0)"
            " from pg_catalog.unnest(%s::text[]) as t (name)"
        )
    try:
        with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
            (found,) = connection.execute(asked, None if tables is None else [sorted(tables)]).fetchall()
    except psycopg.Error as error:
        state = error.sqlstate or type(error).__name__
        raise NotVerified(f"no copy can be made, since no further session is let in ({state})") from None
    return int(found[0])


def dump(binaries: Path, dsn: str, file: Path, snapshot: str = "", part: Sequence[str] = ()) -> None:
    """Write the database behind the connection string into ``file`` (custom format); reads only.

    ``snapshot`` is an exported one to join, ``part`` as one of the two functions below has it. Raises NotVerified.
    Compressed lightly: it is read once, and soon.
    """
    joined = [f"--snapshot={snapshot}"] if snapshot else []
    program: list[str | Path] = [
        binaries / "pg_dump",
        "--format=custom",
        "--compress=1",
        "--no-sync",
        f"--file={file}",
        *joined,
        *part,
    ]
    _run(program, dsn, "dumping the database")


def only_schema(name: str) -> list[str]:
    """The part of a dump that is one schema: what is in it, and nothing else."""
    return [f"--schema={_exactly(name)}", "--strict-names"]


def only_rows(catalog: Catalog, tables: Collection[str]) -> list[str]:
    """The part of a dump that is the whole catalogue, with rows of these tables alone."""
    wanted = {table.schema for table in catalog.tables if str(table) in tables}
    left = {_exactly(schema.name) + ".*" for schema in catalog.schemas if schema.name not in wanted}
    left |= {f"{_exactly(table.schema)}.{_exactly(table.name)}" for table in catalog.tables
             if table.schema in wanted and str(table) not in tables}  # fmt: skip
    return ["--no-blobs", *(f"--exclude-table-data={pattern}" for pattern in sorted(left))]


def _exactly(name: str) -> str:
    """A pattern of pg_dump that fits one name."""
    return '"' + name.replace('"', '""') + '"'


def restore(binaries: Path, dsn: str, file: Path, there: str = "") -> None:
    """Load a dump into the database behind the connection string, where nothing of it is but perhaps the schema that is
    ``there``; beside the file, which is private, go scripts out of it. Raises NotVerified; Unrestorable where no other
    server would do better.

    Tables and functions are made by a script, since servers of late 2026 on number their columns in an option that the
    programs and servers of earlier releases write down but do not know.
    """
    what, building = "restoring the dump into the scratch server", {"PGOPTIONS": f"-c maintenance_work_mem={_BUILDING}"}
    written, known = file.with_name("written.sql"), file.with_name("known.sql")
    _run([binaries / "pg_restore", "--section=pre-data", f"--file={written}", file], dsn, what)
    with written.open("rb") as lines, known.open("wb") as kept:
        kept.writelines(map(without_versions, _without(f"CREATE SCHEMA {quote(there)};\n", lines)))
    _run([binaries / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", known], dsn, what)
    program: list[str | Path] = [binaries / "pg_restore", "--section=data", "--section=post-data"]
    _run([*program, "--exit-on-error", "--jobs=2", "--dbname=", file], dsn, what, building)


def _without(first: str, lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines but the first one that reads so."""
    left_out = first.encode()
    for line in lines:
        if line == left_out:
            left_out = b""
        else:
            yield line


def without_versions(line: bytes) -> bytes:
    """A line of a dump's script without the number that the server gave to a column's definition: ``pg_attver``, seen
    from 17.12 on, which pg_dump leaves out from then on, too."""
    said = _VERSIONED.fullmatch(line)
    if not said:
        return line
    options = [option for option in said[2].split(b", ") if not option.startswith(b"pg_attver=")]
    return said[1] + b", ".join(options) + b");\n" if options else b""


def need_space(folder: Path, wanted: int) -> None:
    """Raises NotVerified where fewer than so many bytes are free."""
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise NotVerified(
            f"a copy of the database, with its dump, needs about {wanted / 1e9:.1f} GB in {folder}, where"
            f" {free / 1e9:.1f} GB are free; set PGC_CACHE_DIR to another place"
        )


def create(dsn: str, name: str, catalog: Catalog) -> None:
    """Make an empty database, and the roles that its dump will name, on a server of ours."""
    import psycopg
    from psycopg import sql

    with psycopg.connect(dsn, autocommit=True) as connection:
        known = {row[0] for row in connection.execute("select rolname from pg_catalog.pg_roles")}
        for role in catalog.roles:
            if role.name not in known:
                made = sql.SQL("create role {} {}").format(sql.Identifier(role.name), sql.SQL(_options(role)))
                connection.execute(made)
        for member in catalog.memberships:
            if member.member not in known:
                grant = sql.SQL("grant {} to {}").format(sql.Identifier(member.role), sql.Identifier(member.member))
                connection.execute(grant)
        encoding = catalog.server.encoding
        locale = "" if encoding == "UTF8" else "lc_collate 'C' lc_ctype 'C'"  # which goes with every encoding
        empty = sql.SQL("create database {} template template0 encoding {} {}")
        connection.execute(empty.format(sql.Identifier(name), encoding, sql.SQL(locale)))


def empty(dsn: str, catalog: Catalog, schema: str) -> None:
    """Drop all that is in the schema, and all that hangs on it, but extensions. Raises NotVerified."""
    import psycopg
    from psycopg import sql

    name, owner = sql.Identifier(schema), ""
    if schema == "public":  # which dumps take for granted as initdb makes it
        owner = " authorization pg_database_owner"
    made = [sql.SQL("drop schema {} cascade").format(name), sql.SQL(f"create schema {{}}{owner}").format(name)]
    made += [sql.SQL("grant usage on schema {} to public").format(name)] if owner else []
    made += [sql.SQL("create extension if not exists {} schema {} cascade").format(sql.Identifier(e.name), name)
             for e in catalog.extensions if e.schema == schema]  # fmt: skip
    try:
        with psycopg.connect(dsn) as connection:
            for command in made:
                connection.execute(command)
    except psycopg.Error as error:
        state = error.sqlstate or type(error).__name__
        raise NotVerified(f"the schema cannot be dropped from the copy, to be brought back ({state})") from None


def _options(role: Role) -> str:
    return " ".join(word if getattr(role, field) else f"no{word}" for field, word in _ATTRIBUTES.items())


_VERSIONED = re.compile(
    rb"(ALTER (?:FOREIGN )?TABLE ONLY .+ ALTER COLUMN .+ SET \()((?:[^)]*, )?pg_attver=\d+(?:, [^)]*)?)\);\n"
)
_BUILDING = "1GB"  # an ivfflat index of many lists cannot be built with less than it needs for their centres
# What the programs say, in words that hold no row, host or user, and what to do.
_HERE = (
    (r"server version mismatch", "the server is newer than pg_dump; install a newer PostgreSQL, and set PGC_BINDIR"),
    (r"affected by row-level security", "row security would hide rows; connect as a role with BYPASSRLS"),
    (r"(extension \S+ is not available)", "install it for the scratch server, and name its programs by PGC_BINDIR"),
    (r"(could not access file \S+)", "install that library for the scratch server, and set PGC_BINDIR"),
    (r"(canceling statement due to \w+ timeout)", "another session holds a lock, or statement_timeout is too short"),
    (r"(memory required is \d+ MB)", "an index needs more than the scratch server's maintenance_work_mem"),
    (r"(No space left on device)", "set PGC_CACHE_DIR to a place with more room"),
    (r"(snapshot \S+ does not exist)", "the run's own session was lost; run again"),
    (r"(connection to server)", "the server went away, or lets no further session in"),
    (r"(permission denied for \w+ [\w.\"]+)", "grant what pgconform reader grants to the role that connects"),
)
_ABSENT = "what needs it does not say its schema, or nothing in the dump makes it"
_UNFIT = "its rows do not pass its own constraints when these are made"
_SAID = r'"[^"\n]+"'  # a name in a message
_NAME = r'(?:"(?:[^"\n]|"")+"|\w+)'  # a name in a command
_ITSELF = (
    (r"(COPY failed for table \S+)", "its rows do not pass its own types and constraints when they are loaded"),
    # Names are said without quotes.
    (r"ERROR:  ((?:type|role|function|relation|schema|operator) .+? does not exist)\n", _ABSENT),
    (r"could not create unique index (\S+)", "its table holds the same key twice"),
    (r"violates foreign key constraint (\S+)", "rows name other rows that are not there"),
    (
        rf"ERROR:  (multiple primary keys for table {_SAID} are not allowed)",
        "a partition took over the key of its partitioned table, which is not in this dump;"
        " dump and restore both together",
    ),
    (
        rf"ERROR:  ((?:relation|type|schema|constraint|trigger|policy) {_SAID}(?: for \w+ {_SAID})? already exists)",
        "something that was there before, or was made on the way, has its name",
    ),
    (
        rf"ERROR:  ((?:check constraint {_SAID} of|partition constraint of) relation {_SAID} is violated by some row)",
        _UNFIT,
    ),
    (rf"ERROR:  (column {_SAID} of relation {_SAID} contains null values)", _UNFIT),
    (
        rf"(no unique constraint matching given keys for referenced table {_SAID})",
        "a foreign key needs a key that nothing in the dump makes",
    ),
)
# What pg_restore was about when it failed: kind and name, and nothing of a definition, which may hold values.
_COMMAND = re.compile(
    r"Command was: ((?:ALTER (?:FOREIGN )?TABLE(?: ONLY)?|ALTER INDEX|CREATE (?:UNIQUE )?INDEX|CREATE STATISTICS"
    r"|CREATE (?:CONSTRAINT )?TRIGGER|CREATE POLICY|CREATE RULE|REFRESH MATERIALIZED VIEW)"
    rf" {_NAME}(?:\.{_NAME})?)"
)


def _run(command: Sequence[str | Path], dsn: str, what: str, more: Mapping[str, str] | None = None) -> None:
    """Run a program that connects by libpq's environment: a connection string among its arguments is seen by all."""
    environment = {**os.environ, **_environment(dsn), **(more or {}), "LC_ALL": "C"}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return
    if at := _COMMAND.search(done.stderr):
        what = f"{what}, at {at[1]}"
    for known, kind in ((_HERE, NotVerified), (_ITSELF, Unrestorable)):
        for pattern, advice in known:
            if found := re.search(pattern, done.stderr):
                raise kind(f"while {what}: {found[found.lastindex or 0]}; {advice}")
    raise NotVerified(f"while {what}: {Path(command[0]).name} ended with status {done.returncode}")


def _environment(dsn: str) -> dict[str, str]:
    """A connection string as libpq's environment variables."""
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.pq import Conninfo

    variables = {o.keyword.decode(): o.envvar.decode() for o in Conninfo.get_defaults() if o.envvar}
    given = {name: str(value) for name, value in conninfo_to_dict(dsn).items() if value is not None}
    return {variables[name]: value for name, value in given.items() if name in variables}
