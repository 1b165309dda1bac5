"""pgconform up: a server with a reference database."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING

from pgconform.commands.common import described, reference_of

if TYPE_CHECKING:
    from pgconform.commands.common import Commands

EPILOG = """\
examples:
  pgconform up muva                          prints its address, and is gone when it is stopped
  pgconform up muva --version=18

exit status: 0 when it is stopped, 4 usage or contract error
"""


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "up", help="start a server with a reference database and print its address", **described(EPILOG)
    )
    command.add_argument("contract", metavar="CONTRACT", help="a bundled contract's name, or a file")
    command.add_argument("--version", dest="major", default="", metavar="16|18", help="the server's major version")
    command.set_defaults(command=call)


def call(known: argparse.Namespace, _: list[str]) -> int:
    """A server with the contract's reference database, until it is interrupted."""
    from pgconform.targets import TargetError
    from pgconform.targets.embedded import server
    from pgconform.targets.server import ServerError

    stops = (signal.SIGINT, signal.SIGTERM)
    for signum in stops:  # a shell starts jobs in the background with SIGINT ignored
        signal.signal(signum, signal.default_int_handler)
    reference = reference_of(known.contract)
    try:
        with server([reference], known.major) as started:
            signal.pthread_sigmask(signal.SIG_BLOCK, stops)  # one that comes just before a pause() would not end it
            print(started.uri(reference), flush=True)
            checked = f"pgconform run --contract={known.contract} --target='live:{started.uri(reference)}'"
            print(f"check it: {checked}\nstop with Ctrl-C", file=sys.stderr)
            signal.sigwait(stops)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, stops)
    except ServerError as error:
        raise TargetError(str(error)) from None
    except KeyboardInterrupt:
        pass
    return 0
