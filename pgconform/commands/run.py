"""pgconform run: check databases through pytest."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pgconform.commands.common import asked_of, described

if TYPE_CHECKING:
    from pgconform.commands.common import Commands

EPILOG = """\
examples:
  pgconform run                                             both reference databases, on an embedded server
  pgconform run --contract=contract.toml --target=live      your database, at PGC_DSN; it is only read
  pgconform run --contract=contract.toml -m gate --prepare='make migrate'
                                                            an empty database, filled by your migrations, and attacked
  pgconform run --contract=muva --effort=nightly --seed=20261128 -k isolation

exit status: 0 conforms, 1 findings, 2 interrupted, 3 something could not be verified, 4 usage or contract error,
5 nothing was examined, 75 the database cannot be reached or was lost
"""


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "run",
        help="check databases; further arguments go to pytest (-m gate, -k, --lf, -n 2)",
        **described(EPILOG),
    )
    asked_of(command)
    command.add_argument("--out", metavar="DIR", help="where the reports go (default: reports/out)")
    command.add_argument(
        "--report", metavar="LIST", help="more reports: sarif, github, gitlab, markdown, prometheus; several by commas"
    )
    command.add_argument(
        "--fail-on", metavar="WHAT", help="must (default), should: advice fails, too, or never: no finding does"
    )
    command.add_argument("--baseline", metavar="FILE", help="known findings, which do not fail; see pgconform baseline")
    command.add_argument("--history", metavar="DIR", help="where runs are recorded, or none (default: reports/history)")
    command.add_argument(
        "--drill",
        metavar="NAME",
        help="have a live target restored elsewhere, too: restore, or of it restore:schema=NAME or restore:tenant=KEY",
    )
    command.set_defaults(command=call)


def call(known: argparse.Namespace, rest: list[str]) -> int:
    """Check databases through pytest, with our own configuration and nothing of the caller's."""
    import pytest

    import pgconform.suites
    from pgconform.asked import OPTIONS
    from pgconform.commands.typed import OneLine
    from pgconform.contract_file import bundled
    from pgconform.discreet import is_address

    if any(is_address(part) for part in rest if not part.startswith("-")):
        raise ValueError("an address is given by --target=live:URI, or by the environment variable PGC_DSN")
    if rest and (rest[0] in bundled() or rest[0].endswith(".toml")):
        raise ValueError(f"a contract is given by --contract={rest[0]}")
    home = Path(str(pgconform.suites.__file__)).parent
    fixed = [
        str(home), f"--config-file={Path(__file__).parent.with_name('run.ini')}", f"--rootdir={home.parent}",
        "-p", "pgconform.plugin", "-p", "no:hypothesispytest", "--tb=no", "-q", "--no-header", "-r", "N",
    ]  # fmt: skip
    if not any(part.endswith("no:cacheprovider") for part in rest):  # also -pno:cacheprovider
        fixed.append(f"--override-ini=cache_dir={Path.cwd() / '.pytest_cache'}")
    given = [f"--pgc-{name.replace('_', '-')}={value}" for name in OPTIONS if (value := getattr(known, name))]
    own = OneLine(f"--{name.replace('_', '-')}" for name in OPTIONS)
    return int(pytest.main([*fixed, *given, "--pgc-asked", *rest], plugins=[own]))
