"""Options have the same names and forms in all commands."""

import argparse
import importlib
import re
import shlex

import pytest

from paths import ROOT
from runtime.cli.grammar import ALIASES, METAVARS, with_current_names
from runtime.cli.ifrnet import COMMANDS
from runtime.video.options import VideoOptions

MODULES = {
    command.module.removesuffix(".__main__"): importlib.import_module(command.module)
    for command in COMMANDS.values()
}


def leaves():
    """Module -> parser of each command; the parsers of its subcommands, if it has any."""
    for name, module in MODULES.items():
        parser = module.make_parser()
        groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        for part, sub in groups[0].choices.items() if groups else [("", parser)]:
            yield f"{name} {part}".strip(), sub


PARSERS = dict(leaves())
OPTIONS_IN_ONE_GROUP = 12

DIFFERENT = {"--output": "a file or a folder"}
"""Options that differ between commands -> their difference."""

every_parser = pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)


def shown(parser):
    return [action for action in parser._actions if action.help != argparse.SUPPRESS]


def test_every_command_is_checked():
    assert len(PARSERS) == len(COMMANDS) - 1 + 4
    assert {name.split()[0] for name in PARSERS} >= ALIASES.keys()


@every_parser
def test_every_option_has_help_that_shows_its_default(parser):
    formatter = parser._get_formatter()
    for action in shown(parser):
        assert action.help, action
        text = formatter._expand_help(action)
        if action.default not in (None, False, argparse.SUPPRESS, "", (), []):
            value = action.default
            values = value if isinstance(value, list) else [value]
            short = " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
            assert re.search(rf"\(default {re.escape(short)}(?!\w)", text), action


@every_parser
def test_placeholders_of_options_are_known(parser):
    for action in shown(parser):
        if action.nargs != 0 and action.choices is None:
            assert action.metavar in METAVARS, action


def test_every_known_placeholder_is_used():
    used = {action.metavar for parser in PARSERS.values() for action in shown(parser)}
    assert METAVARS.keys() - used == set()


def test_an_option_means_the_same_in_every_command():
    meanings = {}
    for parser in PARSERS.values():
        for action in filter(lambda action: action.option_strings, shown(parser)):
            word = re.match(r"[\w-]+", action.help)[0].lower().removesuffix("s")
            for option in action.option_strings:
                meanings.setdefault(option, set()).add((action.metavar, word))
    different = {option: found for option, found in meanings.items() if len(found) > 1}
    assert different.keys() == DIFFERENT.keys(), different


@every_parser
def test_the_options_of_all_commands(parser):
    options = {option for action in shown(parser) for option in action.option_strings}
    assert {"--help", "--version", "--debug"} <= options


@every_parser
def test_long_help_has_groups(parser):
    assert len(parser._optionals._group_actions) <= OPTIONS_IN_ONE_GROUP


@every_parser
def test_examples_in_the_help_can_be_parsed(parser):
    lines = parser.format_help().partition("example")[2].replace("\n      ", " ").splitlines()
    parsed = 0
    for line in lines:
        command = next((c for c in line.split("|") if parser.prog in c), "")
        if command:
            parser.parse_args(shlex.split(command.partition(parser.prog)[2]))
            parsed += 1
    assert parsed


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [(m, old, new) for m, names in ALIASES.items() for old, new in names.items()],
)
def test_an_earlier_name_is_accepted_and_hidden(capsys, module, old, new):
    actions = {o: a for a in PARSERS[module]._actions for o in a.option_strings}
    assert new in actions
    assert old == "--version" or old not in actions
    # The error of the value names the option: its name was accepted.
    arguments, message = [old], f"argument {new}: expected one argument"
    if actions[new].nargs == "+":
        message = f"argument {new}: expected at least one argument"
    if actions[new].nargs == 0:
        arguments, message = [f"{old}=1"], f"argument {new}: ignored explicit argument '1'"
    if old == "--version":
        arguments, message = [old, "2"], "the following arguments are required: --model, --output"
    with pytest.raises(SystemExit) as left:
        MODULES[module].main(arguments)
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_no_documented_command_uses_an_earlier_name():
    files = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "tools").rglob("*.py")]
    names = {f"ifrnet {name}": command.module for name, command in COMMANDS.items()}
    seen = 0
    for path in files:
        for line in path.read_text().replace("\\\n", " ").splitlines():
            for call in re.findall(r"(?:-m |\b)((?:ifrnet|runtime|export|bench)\b[^`|#]*)", line):
                words = call.split()
                two = " ".join(words[:2])
                module = names.get(two, words[0]).removesuffix(".__main__")
                if module in ALIASES:
                    seen += 1
                    assert with_current_names(words, ALIASES[module]) == words, (path, line)
    assert seen > 20


def test_defaults_of_video_options_equal_those_of_the_api():
    options = VideoOptions()
    texts = {o: a.help for a in PARSERS["runtime"]._actions for o in a.option_strings}
    for option, value in (
        ("--cuts", f"{options.cuts:g}"),
        ("--picture-rate", options.picture_rate),
        ("--audio", options.audio),
    ):
        assert f"(default {value})" in texts[option]
    assert options.keep_vfr
    assert "keep a variable frame rate (default)" in texts["--keep-vfr"]
