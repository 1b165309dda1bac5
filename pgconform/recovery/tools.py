"""PostgreSQL's own programs for dumps, and what a dump leaves out: roles."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pgconform.model import NotVerified

if TYPE_CHECKING:
    from pgconform.catalog import Catalog, Role

_ATTRIBUTES = {
    "superuser": "superuser", "bypass_row_security": "bypassrls", "create_role": "createrole",
    "create_database": "createdb", "replication": "replication", "login": "login", "inherit": "inherit",
}  # fmt: skip


def dump(binaries: Path, dsn: str, file: Path, snapshot: str = "") -> None:
    """Write the database behind the connection string into ``file`` (custom format); reads only.

    ``snapshot`` is an exported one to join. Raises NotVerified.
    """
    joined = [f"--snapshot={snapshot}"] if snapshot else []
    _run([binaries / "pg_dump", "--format=custom", "--no-sync", f"--file={file}", *joined], dsn, "dumping")


def restore(binaries: Path, dsn: str, file: Path) -> None:
    """Load a dump into the empty database behind the connection string. Raises NotVerified."""
    _run([binaries / "pg_restore", "--exit-on-error", "--jobs=2", "--dbname=", file], dsn, "restoring")


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
        connection.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))


def _options(role: Role) -> str:
    return " ".join(word if getattr(role, field) else f"no{word}" for field, word in _ATTRIBUTES.items())


def _run(command: Sequence[str | Path], dsn: str, what: str) -> None:
    """Run a program that connects by libpq's environment: a connection string among its arguments is seen by all."""
    done = subprocess.run(
        command, env={**os.environ, **_environment(dsn), "LC_ALL": "C"}, stdin=subprocess.DEVNULL, check=False,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
    )  # fmt: skip
    if done.returncode:
        raise NotVerified(f"while {what}: {Path(command[0]).name} ended with status {done.returncode}")


def _environment(dsn: str) -> dict[str, str]:
    """A connection string as libpq's environment variables."""
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.pq import Conninfo

    variables = {o.keyword.decode(): o.envvar.decode() for o in Conninfo.get_defaults() if o.envvar}
    given = {name: str(value) for name, value in conninfo_to_dict(dsn).items() if value is not None}
    return {variables[name]: value for name, value in given.items() if name in variables}
