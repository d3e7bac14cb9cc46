"""The `pbmon` command itself: usage, and what each command must offer."""

from __future__ import annotations

import argparse
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from pbmon import cli


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["doctor", "extra"], "unrecognized arguments: extra"),
        (["doctor", "--import"], "expected one argument"),
    ],
)
def test_wrong_usage_is_2_and_says_what_is_right(argv, words, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(argv)
    assert left.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert said.err.startswith("usage: pbmon")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main([name, "--help"])
    assert left.value.code == 0
    assert import_module(f"pbmon.cli.{name}").HELP.split()[0] in capsys.readouterr().out


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert all(name in said for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_is_a_file_with_the_same_four_names(name):
    module = import_module(f"pbmon.cli.{name}")
    assert name == module.NAME
    module.configure(argparse.ArgumentParser())
    assert callable(module.run)


def test_every_command_file_is_listed():
    commands = {
        path.stem
        for path in Path(cli.__file__).parent.glob("[!_]*.py")
        if hasattr(import_module(f"pbmon.cli.{path.stem}"), "NAME")
    }
    assert commands == set(cli.COMMANDS)


def test_the_console_script_is_main():
    (script,) = entry_points(group="console_scripts", name="pbmon")
    assert script.load() is cli.main
