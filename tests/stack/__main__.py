"""`python -m tests.stack build [NAME...] | path NAME | list`: the stack from the shell."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tests.stack import programs
from tests.stack.build import BuildError, build


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (BuildError, programs.MissingProgram) as error:
        print(f"stack: {error}", file=sys.stderr)
        return 1
    except KeyError as error:
        print(f"stack: {error.args[0]}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.stack", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("build", help="build what is missing")
    command.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    command.set_defaults(run=_build)
    command = commands.add_parser("path", help="print the path of a binary")
    command.add_argument("name", metavar="NAME")
    command.set_defaults(run=_path)
    command = commands.add_parser("list", help="say what is built and where")
    command.set_defaults(run=_list)
    return parser


def _build(options: argparse.Namespace) -> int:
    wanted = {programs.named(name).name for name in options.names}
    for program in programs.PROGRAMS:
        if not wanted or program.name in wanted:
            build(program, say=_say)
    return 0


def _path(options: argparse.Namespace) -> int:
    print(programs.binary(options.name))
    return 0


def _list(options: argparse.Namespace) -> int:
    for program in programs.PROGRAMS:
        state = str(program.directory) if program.is_built() else "not built"
        print(f"{program.name:<12} {program.version:<10} {state}")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)  # at once, also into a pipe: the builds take minutes


if __name__ == "__main__":
    sys.exit(main())
