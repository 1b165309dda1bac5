"""pgconform completion: what a shell needs to complete our command line."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pgconform.commands.common import described

if TYPE_CHECKING:
    from pgconform.commands.common import Commands

SHELLS = ("bash", "zsh", "fish")
EPILOG = """\
examples:
  bash: pgconform completion bash > ~/.local/share/bash-completion/completions/pgconform
  zsh:  pgconform completion zsh > "${fpath[1]}/_pgconform"
  fish: pgconform completion fish > ~/.config/fish/completions/pgconform.fish
"""


def add(commands: Commands) -> None:
    command = commands.add_parser("completion", help="a script that completes our command line", **described(EPILOG))
    command.add_argument("shell", choices=SHELLS, help="bash, zsh or fish")
    command.set_defaults(command=call)


def call(known: argparse.Namespace, _: list[str]) -> int:
    """The script, made from the parser itself."""
    try:
        import shtab
    except ImportError:
        raise ValueError("pgconform completion needs shtab: python -m pip install 'pgconform[completion]'") from None
    print(shtab.complete(known.whole, known.shell))
    return 0
