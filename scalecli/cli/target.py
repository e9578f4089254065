"""`--target FILE.toml`: a command's options written down. Options on the command line win."""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from scalecli.errors import PlanError


def _read(ctx: typer.Context, path: Path | None) -> Path | None:
    if path is None:
        return None
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(
            f"{path} cannot be read: {error}", hint='a TOML file of options, e.g. params = "7B"'
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"{path} is no TOML: {error}") from error
    ctx.default_map = {_parameter(name, ctx, path): _text(value) for name, value in content.items()}
    return path


def _parameter(name: str, ctx: typer.Context, path: Path) -> str:
    """The parameter that an option's name (`tokens-per-param` or `tokens_per_param`) means."""
    known = {option.lstrip("-"): each.name for each in ctx.command.params for option in each.opts}
    found = known.get(name.replace("_", "-"))
    if found is None:
        close = get_close_matches(name.replace("_", "-"), known, n=3)
        raise PlanError(
            f"{path}: the command has no option {name!r}",
            hint=f"close names: {', '.join(close)}" if close else "--help",
        )
    return found


def _text(value: Any) -> Any:
    """Values as the command line would have them; lists stay lists."""
    return (
        [str(item) for item in value]
        if isinstance(value, list)
        else value
        if isinstance(value, bool)
        else str(value)
    )


Target = Annotated[
    Path | None,
    typer.Option(
        "--target",
        callback=_read,
        is_eager=True,
        help="A TOML file with these options; those given here win.",
    ),
]
