"""The one place where errors become exit codes and messages.

Results go to stdout, everything else to stderr. Under `--json` a failure leaves stdout empty and ends stderr with one
line: `{"error": {"code", "type", "message", "hint"}}`.
"""

from __future__ import annotations

import json
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from scalecli.errors import ScalecliError

INTERRUPTED = 130

PANELS = ("The whole way", "Runs", "Fits", "Plans", "This machine")
"""Panels of `--help`, in the order in which measurements flow."""


class ScalecliGroup(TyperGroup):
    """The root command: `--debug` may stand anywhere, and every failure has one message and one exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        end = words.index("--") if "--" in words else len(words)
        debug, as_json = "--debug" in words[:end], "--json" in words[:end]
        words = [word for word in words[:end] if word != "--debug"] + words[end:]
        try:
            code = super().main(
                words, prog_name or "scalecli", complete_var, False, windows_expand_args, **extra
            )
        except (ScalecliError, typer.TyperException, typer.Abort) as error:
            if debug:
                traceback.print_exc()
            code = _report(error, words, as_json)
        except Exception as bug:
            # Not the user's doing: the traceback stays, and a script that reads stderr still finds its last line.
            if not as_json:
                raise
            traceback.print_exc()
            code = _say(
                1, type(bug).__name__, str(bug), "this is a bug in scalecli; please report it", as_json
            )
        if not standalone_mode:
            return code
        sys.exit(code if isinstance(code, int) else 0)

    def list_commands(self, ctx: Any) -> list[str]:
        """Commands panel by panel; Typer would list all groups after all commands."""
        panel = {name: getattr(command, "rich_help_panel", None) for name, command in self.commands.items()}
        return sorted(
            self.commands,
            key=lambda name: PANELS.index(panel[name]) if panel[name] in PANELS else len(PANELS),
        )

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interruption:
            raise typer.Abort from interruption


def _report(error: Exception, words: list[str], as_json: bool) -> int:
    kind = type(error).__name__
    match error:
        case ScalecliError():
            return _say(error.exit_code, kind, error.message, error.hint, as_json)
        case typer.TyperException():
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "scalecli"
            return _say(error.exit_code, kind, error.format_message(), f"{command} --help", as_json)
        case _:
            again = "run the same command again to go on: scalecli " + shlex.join(words)
            return _say(
                INTERRUPTED, "Interrupted", "interrupted; what had finished is stored", again, as_json
            )


def _say(code: int, kind: str, message: str, hint: str, as_json: bool) -> int:
    if as_json:
        error = {"code": code, "type": kind, "message": message, "hint": hint}
        typer.echo(json.dumps({"error": error}), err=True)
    else:
        typer.secho("error: ", fg=typer.colors.RED, bold=True, err=True, nl=False)
        typer.echo(message, err=True)
        if hint:
            typer.echo(f"  try: {hint}", err=True)
    return code
