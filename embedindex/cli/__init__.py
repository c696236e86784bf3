"""The command line: parses, calls the library, prints. One file a command; heavy libraries load inside the commands.

stdout carries results, stderr everything else. Exit status: 0 done, 1 failed, 2 wrong usage, 75 the index is being
written by another process, 130 interrupted.
"""

from __future__ import annotations

import importlib
import sys

from embedindex.errors import EmbedindexError

_COMMANDS = ("scan", "similar", "listing", "maintenance", "models", "remix")


def main() -> None:
    """Run the command line; the console script."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    if debug:
        sys.argv[1:] = [argument for argument in arguments if argument != "--debug"]
    try:
        _app()()
    except EmbedindexError as error:
        if debug:
            raise
        _complain(str(error))
        sys.exit(error.exit_status)
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if debug:
            raise
        _complain(f"unexpected {type(error).__name__}: {error} (this is a defect; `--debug` shows where)")
        sys.exit(1)


def _complain(text: str) -> None:
    sys.stderr.write(f"embedindex: {text}\n".encode("utf-8", "backslashreplace").decode("utf-8"))


def _app() -> object:
    import typer

    app = typer.Typer(
        name="embedindex",
        help="Search huge sound collections by sound, tag them, and play them as one instrument.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="Every command takes --debug, which shows where an error came from. Start with: embedindex scan FOLDER",
    )

    @app.callback(invoke_without_command=True)
    def root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
        if version:
            from embedindex import __version__

            typer.echo(f"embedindex {__version__}")
            raise typer.Exit

    for name in _COMMANDS:
        importlib.import_module(f"embedindex.cli.{name}").register(app)
    return app
