"""The `pilotage` command: which commands there are, and how every error becomes one line.

Each command is a function in a module of this folder; its docstring and its options' help are its reference page.
Modules import libraries inside functions: `pilotage --help` must not pay for what it does not use.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from . import (
    clientpilot,
    config,
    generate,
    inspecting,
    jobs,
    pilots,
    publish,
    storage,
    submit,
    summary,
    tokens,
    toolbox,
    up,
)
from .errors import CliError

app = typer.Typer(name="pilotage", no_args_is_help=True, add_completion=False, rich_markup_mode=None)


class WithCommand(TyperCommand):
    """Tells the function how many words came after `--` (None: no dashes), which the parser itself drops."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta["pilotage.after_dashes"] = len(args) - args.index("--") - 1 if "--" in args else None
        return super().parse_args(ctx, args)


def _version(wanted: bool) -> None:
    if wanted:
        from pilotage import __version__

        print(f"pilotage {__version__}")
        raise typer.Exit


@app.callback()
def options(
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Data directory of the service (default: PILOTAGE_DATA).")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; works anywhere.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Pilotage: generic, configurable pilots for distributed computing.

    Start the service with `pilotage up`; then, in another terminal, `pilotage submit -- echo hello`.
    """
    if data is not None:
        os.environ["PILOTAGE_DATA"] = str(data)


app.command()(up.up)
app.command(cls=WithCommand)(submit.submit)
app.command("jobs")(jobs.jobs)
app.command("job")(jobs.job)
app.command()(jobs.kill)
app.command("pilots")(pilots.pilots)
app.command("pilot")(pilots.pilot)
app.command()(pilots.drain)
app.command("summary")(summary.summary)
app.command("status", hidden=True)(summary.summary)
app.command()(generate.flavours)
app.command("generate")(generate.generate)
app.command("inspect")(inspecting.inspect)
app.command("client-pilot")(clientpilot.client_pilot)
app.command("publish")(publish.publish)
app.add_typer(config.app, name="config")
app.add_typer(toolbox.app, name="toolbox")
app.add_typer(tokens.app, name="token")
app.add_typer(storage.app, name="storage")


def run(arguments: list[str] | None = None) -> None:
    """Entry point. Exit status: 0, 1 for an error, 2 for a wrong use, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    own = words[: words.index("--")] if "--" in words else words
    debug = "--debug" in own
    if debug:
        words.remove("--debug")
    sys.exit(_guarded(words, debug))


def _guarded(words: list[str], debug: bool) -> int:
    try:
        status = app(words, prog_name="pilotage", standalone_mode=False)
        sys.stdout.flush()
        return int(status or 0)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader has left (`pilotage jobs | head`): not an error, and nothing more may be written there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except typer.Abort:
        return 1
    except Exception as error:
        if debug:
            raise
        return _tell(error)


def _tell(error: Exception) -> int:
    if isinstance(error, CliError):
        print(f"pilotage: {' '.join(str(error).split())}", file=sys.stderr)
        return error.status
    if hasattr(error, "format_message"):  # a wrong use, found by typer's parser
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "pilotage"
        text = error.format_message()
        # Without any argument the message is the help itself.
        print(text if "\n" in text else f"{path}: {_plain(text)} (see: {path} --help)", file=sys.stderr)
        return int(getattr(error, "exit_code", 2))
    print(f"pilotage: {type(error).__name__}: {' '.join(str(error).split())} (more with --debug)", file=sys.stderr)
    return 1


def _plain(text: str) -> str:
    """What the parser says of a wrong value, without its library's turns of phrase."""
    text = re.sub(r"Input should be a valid integer.*", "it must be a whole number", text)
    return text.replace("Input should be", "it must be").rstrip(".")


if __name__ == "__main__":
    run()
