"""The `pbmon` command.

One file per command: NAME, HELP, configure(parser), run(args) -> exit code.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module, metadata

COMMANDS = (
    "alerts", "budget", "consent", "dashboards", "delivery", "doctor", "errors", "experiment",
    "mark", "privacy", "pseudonyms", "reconcile", "report", "rules", "run", "store", "worker",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 0, 1 for a failure, 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="pbmon", description="OpenTelemetry for Python web applications and their business."
    )
    parser.add_argument("--version", action="version", version=f"pbmon {metadata.version('pbmon')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    modules = {name: import_module(f"pbmon.cli.{name}") for name in COMMANDS}
    for module in modules.values():
        module.configure(
            commands.add_parser(module.NAME, help=module.HELP, description=module.HELP)
        )
    args = parser.parse_args(argv)
    try:
        status = int(modules[args.command].run(args))
        sys.stdout.flush()
    except BrokenPipeError:  # `pbmon doctor | head`: the rest is not wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status
