"""`layernet completion SHELL`: a script that completes commands, options and their choices, made from the parsers.

Ours and not a library's: fish is among the shells, nothing is imported, and it is shorter than what it would replace.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

HELP = "print a script that completes commands and options in a shell"
EXAMPLE = "layernet completion bash"

INSTALL = {
    "bash": 'eval "$(layernet completion bash)"',
    "zsh": 'autoload -Uz compinit && compinit; eval "$(layernet completion zsh)"',
    "fish": "layernet completion fish | source",
}
PLACES = {"bash": "~/.bashrc", "zsh": "~/.zshrc", "fish": "~/.config/fish/config.fish"}


@dataclass(frozen=True)
class Option:
    """An option: `--json`, what it is for, the values it takes where they are few, whether it takes one at all."""

    name: str
    help: str
    choices: list[str]
    takes_value: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    lines = "\n".join(f"  {PLACES[shell]}: {line}" for shell, line in INSTALL.items())
    parser.epilog = f"{parser.epilog}\n\nto have it in every shell, add to\n{lines}"
    parser.add_argument("shell", metavar="SHELL", choices=tuple(INSTALL), help="bash, zsh or fish")


def run(args: argparse.Namespace) -> int:
    """Print the script; the exit code."""
    from layernet.cli.main import parsers

    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[args.shell](parsers()))
    return 0


def options(parser: argparse.ArgumentParser) -> Iterator[Option]:
    """The options of a command."""
    for action in parser._actions:
        names = [name for name in action.option_strings if name.startswith("--")]
        if names:
            yield Option(names[0], _plain(action.help), _choices(action), action.nargs != 0)


def words(parser: argparse.ArgumentParser) -> list[str]:
    """What a command's own arguments may be, where they are few; files stand in their places elsewhere."""
    return [word for action in parser._actions if not action.option_strings for word in _choices(action)]


def _choices(action: argparse.Action) -> list[str]:
    return [str(choice) for choice in action.choices or ()]


def _plain(text: str | None) -> str:
    return " ".join((text or "").split()).replace("%(default)s", "")


def _bash(commands: dict[str, argparse.ArgumentParser]) -> str:
    cases, values = [], []
    for name, parser in commands.items():
        found = list(options(parser))
        cases.append(f'    {name}) words="{" ".join([*words(parser), *(option.name for option in found)])}" ;;')
        values += [
            f'    "{name} {option.name}") COMPREPLY=($(compgen -W "{" ".join(option.choices)}" -- "$word")); return ;;'
            for option in found
            if option.choices
        ]
    return f"""_layernet() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" command="${{COMP_WORDS[1]}}" words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{" ".join([*commands, "--help", "--version"])}" -- "$word"))
    return
  fi
  case "$command $before" in
{chr(10).join(values)}
  esac
  case "$command" in
{chr(10).join(cases)}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  case "$word" in -*) ;; *) COMPREPLY+=($(compgen -f -- "$word")) ;; esac
}}
complete -o filenames -F _layernet layernet"""


def _zsh(commands: dict[str, argparse.ArgumentParser]) -> str:
    def quoted(text: str) -> str:
        for sign in "[]:":
            text = text.replace(sign, f"\\{sign}")
        return text

    def spec(option: Option) -> str:
        value = f":value:({' '.join(option.choices)})" if option.choices else ":value:_files" * option.takes_value
        return shlex.quote(f"*{option.name}[{quoted(option.help)}]{value}")

    listed = " ".join(shlex.quote(f"{name}:{quoted(parser.description or '')}") for name, parser in commands.items())
    cases = []
    for name, parser in commands.items():
        rest = f"({' '.join(words(parser))})" if words(parser) else "_files"
        specs = " ".join([*map(spec, options(parser)), shlex.quote(f"*:argument:{rest}")])
        cases.append(f"    {name}) _arguments {specs} ;;")
    return f"""_layernet() {{
  local -a commands
  commands=({listed})
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
{chr(10).join(cases)}
  esac
}}
compdef _layernet layernet"""


def _fish(commands: dict[str, argparse.ArgumentParser]) -> str:
    lines = []
    for name, parser in commands.items():
        text = shlex.quote(parser.description or "")
        lines.append(f"complete -c layernet -n __fish_use_subcommand -f -a {name} -d {text}")
        when = f"complete -c layernet -n '__fish_seen_subcommand_from {name}'"
        if words(parser):
            lines.append(f"{when} -a {shlex.quote(' '.join(words(parser)))}")
        for option in options(parser):
            values = f" -x -a {shlex.quote(' '.join(option.choices))}" if option.choices else " -r" * option.takes_value
            lines.append(f"{when} -l {option.name[2:]}{values} -d {shlex.quote(option.help)}")
    return "\n".join(lines)
