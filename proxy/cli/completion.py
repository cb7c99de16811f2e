"""`sidegate completion bash|zsh|fish`: a script that completes commands, options and their choices in a shell.

The script is generated from the parsers, so it always fits this version and starts no process while one types. Anything
else completes as a file name.

Source: bash manual, "Programmable Completion"; zsh manual, "Use of compinit" (bashcompinit); fish manual, `complete`.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from proxy.cli.failure import Exit
from proxy.cli.main import COMMANDS, make_parser

_ENDING: Final = """\
examples:
  source <(sidegate completion bash)                                 # for now; in ~/.bashrc for good
  source <(sidegate completion zsh)                                  # the same in ~/.zshrc
  sidegate completion fish > ~/.config/fish/completions/sidegate.fish"""

_BASH: Final = """\
_sidegate() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} path= words= i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "$path ${{COMP_WORDS[i]}}" in
            {paths}) path="$path ${{COMP_WORDS[i]}}" ;;
        esac
    done
    case "$path $previous" in
{choices}
    esac
    if [[ -z $words && $current == -* ]]; then
        case "$path" in
{options}
        esac
    elif [[ -z $words && $previous != -* ]]; then
        case "$path" in
{actions}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _sidegate sidegate"""


@dataclass
class _Place:
    """What may follow some words: actions and options with their help, and the choices of options."""

    actions: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    choices: dict[str, list[str]] = field(default_factory=dict)


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of the command."""
    parser.description, parser.epilog = "Print a script that completes this command in a shell.", _ENDING
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="for which shell")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    places = dict(_places(make_parser(COMMANDS), ()))
    if arguments.shell == "fish":
        print("\n".join(_fish(places)))
    else:
        print(*(["autoload -U +X bashcompinit && bashcompinit"] if arguments.shell == "zsh" else []), sep="\n", end="")
        print(("\n" if arguments.shell == "zsh" else "") + _bash(places))
    return Exit.OK


def _places(parser: argparse.ArgumentParser, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], _Place]]:
    """Yield what may follow the program's name, and each command and action."""
    place = _Place()
    inner: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            inner.update(action.choices)
            place.actions |= {choice.dest: choice.help or "" for choice in action._choices_actions}
            continue
        text = (action.help or "").split("(default")[0].strip()
        if not action.option_strings and action.choices:
            place.actions |= dict.fromkeys(map(str, action.choices), text)
        for option in action.option_strings:
            place.options[option] = text
            if action.choices:
                place.choices[option] = list(map(str, action.choices))
    yield path, place
    for name, one in inner.items():
        yield from _places(one, (*path, name))


def _bash(places: Mapping[tuple[str, ...], _Place]) -> str:
    paths = [" ".join(("", *path)) for path in places if path]
    cases = {"choices": [], "options": [], "actions": []}  # type: dict[str, list[str]]
    for path, place in places.items():
        at = " ".join(("", *path))
        for option, values in place.choices.items():
            cases["choices"].append(f'        "{at} {option}") words="{" ".join(values)}" ;;')
        for kind, names in (("options", place.options), ("actions", place.actions)):
            if names:
                cases[kind].append(f'            "{at}") words="{" ".join(names)}" ;;')
    return _BASH.format(
        paths="|".join(f'"{path}"' for path in paths), **{kind: "\n".join(lines) for kind, lines in cases.items()}
    )


def _fish(places: Mapping[tuple[str, ...], _Place]) -> Iterator[str]:
    for path, place in places.items():
        seen = [f"__fish_seen_subcommand_from {word}" for word in path]
        if place.actions:
            seen.append(f"not __fish_seen_subcommand_from {' '.join(place.actions)}")
        when = f' -n "{"; and ".join(seen)}"' if seen else ""
        for name, text in place.actions.items():
            yield f"complete -c sidegate -f{when} -a {name} -d {_quoted(text)}"
        for option, text in place.options.items():
            flag = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            values = f" -x -a {_quoted(' '.join(place.choices[option]))}" if option in place.choices else ""
            yield f"complete -c sidegate{when} {flag}{values} -d {_quoted(text)}"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
