"""The command line: parses, calls the library, prints. One file a command; heavy libraries load inside the commands.

stdout carries results, stderr everything else. Exit status: 0 done, 1 failed, 2 wrong usage, 75 the index is being
written by another process, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from typing import TYPE_CHECKING

from embedindex.cli.console import OutputClosed, say
from embedindex.cli.interrupts import heed_lost_interrupts
from embedindex.errors import EmbedindexError, UsageError, display_path
from embedindex.quiet import quieten_libraries, stderr_descriptor

if TYPE_CHECKING:
    import typer

# In the order of the help; a module may hold several.
_COMMANDS = {
    "scan": "scan",
    "watch": "watch",
    "similar": "similar",
    "duplicates": "duplicates",
    "analyse": "analyse",
    "export": "export",
    "map": "map",
    "info": "listing",
    "list": "listing",
    "errors": "listing",
    "verify": "maintenance",
    "rebuild": "maintenance",
    "merge": "merge",
    "embed": "embed",
    "genre": "genre",
    "evaluate": "evaluate",
    "cluster": "cluster",
    "train": "train",
    "features": "features",
    "show": "show",
    "remix": "remix",
    "render": "remix",
    "generate": "generate",
    "models": "models",
    "label": "label",
}


def main() -> None:
    """Run the command line; the console script."""
    if sys.stderr is None:  # started without one: what is said goes nowhere
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - open to the end
    heed_lost_interrupts()
    arguments = sys.argv[1:]
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    _refuse_empty(arguments)
    debug = "--debug" in options
    if debug:
        sys.argv[1:] = [argument for argument in options if argument != "--debug"] + arguments[len(options) :]
    elif sys.stderr is sys.__stderr__ and stderr_descriptor() == 2:
        quieten_libraries()
    try:
        _app(options)(prog_name="embedindex")
    except EmbedindexError as error:
        if debug:
            raise
        _complain(str(error))
        sys.exit(error.exit_status)
    except OutputClosed:  # the reader of our output, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is still in the buffers when Python ends
        sys.exit(0)
    except KeyboardInterrupt:
        if debug:
            raise
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        _complain(f"unexpected {type(error).__name__}: {error} (this is a defect; `--debug` shows where)")
        sys.exit(1)


def _refuse_empty(arguments: list[str]) -> None:
    """Refuse empty arguments: ``--copy-to "$TARGET"`` without a TARGET must not mean the folder one is in."""
    for place, word in enumerate(arguments):
        if not word or re.fullmatch("--[a-z0-9-]+=", word):
            _complain(
                f"{' '.join([*arguments[:place], word or repr('')])}: the last of these is empty; give it a value"
            )
            sys.exit(UsageError.exit_status)


def _complain(text: str) -> None:
    say(f"embedindex: {display_path(text)}")  # one line, whatever name or value it quotes


def _app(arguments: list[str]) -> typer.Typer:
    """Return the command line: with the one command that is asked for, or with all, which takes longer."""
    import typer

    app = typer.Typer(
        name="embedindex",
        help="Search huge sound collections by sound, tag them, and play them as one instrument.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # plain help starts twice as fast, and errors in usage are one line
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="Every command takes --debug, which shows where an error came from. Start with: embedindex scan FOLDER",
    )

    @app.callback(invoke_without_command=True)
    def root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
        if version:
            from embedindex import __version__

            typer.echo(f"embedindex {__version__}")
            raise typer.Exit

    asked = next((word for word in arguments if not word.startswith("-")), "")
    for name in [_COMMANDS[asked]] if asked in _COMMANDS else dict.fromkeys(_COMMANDS.values()):
        importlib.import_module(f"embedindex.cli.{name}").register(app)
    return app
