"""The outermost frame: errors for people, exit codes."""

import shlex
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer

from mitocore.cli.main import Voice
from mitocore.errors import MitocoreError, PluginError

EXTRAS = {
    "torch": ("torch", "lightning", "monai", "safetensors", "tensorboard"),
    "report": ("matplotlib",),
}
"""Extras of the distribution, and the packages that are missing without them."""
INTERRUPTED = 130


def where_all_is_told(command: str, options: Mapping[str, Any]) -> str | None:
    """What to type to see all findings of a check; None: this command itself shows them.

    >>> where_all_is_told("train", {"file": "a.toml", "settings": ["train.steps=x"], "dry_run": False})
    'mitocore validate a.toml --set train.steps=x'
    >>> where_all_is_told("segment", {"dry_run": False})
    'the same command with --dry-run'
    """
    if options.get("dry_run", True) or command == "validate":
        return None
    if not options.get("file") or any(options.get(name) for name in ("inputs", "roi", "until", "save")):
        return "the same command with --dry-run"
    settings = [part for text in options.get("settings") or () for part in ("--set", text)]
    return shlex.join(["mitocore", "validate", str(options["file"]), *settings])


@contextmanager
def failures_shown(voice: Voice, all_told: str | None = None) -> Iterator[None]:
    """Print what is raised inside and leave with its exit code.

    Parameters
    ----------
    all_told
        What shows all findings, where only the first is to be printed.
    """
    try:
        yield
    except MitocoreError as error:
        _leave(error, voice, all_told)
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            _bug()
        else:
            _leave(missing, voice, None)
    except KeyboardInterrupt as error:
        typer.echo(str(error) or "interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from error
    except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):  # typer's own business
        raise
    except Exception:  # noqa: BLE001 - the outermost frame; nothing is swallowed
        _bug()


def missing_extra(error: ModuleNotFoundError) -> PluginError | None:
    """The error for a package of an extra that is not installed; None: the module belongs to no extra."""
    package = (error.name or "").partition(".")[0]
    extra = next((name for name, packages in EXTRAS.items() if package in packages), None)
    if extra is None:
        return None
    return PluginError(f"this needs {package!r}, which is not installed", hint=f'pip install "mitocore[{extra}]"')


def shown(error: MitocoreError) -> str:
    r"""The text of an error, at most three lines whatever its parts hold.

    >>> print(shown(MitocoreError("no step\n is called 'net'", where="a.toml:3")))
    error: no step is called 'net'
      in a.toml:3
    """
    parts = {"error:": error.problem, "  in": error.where, "  hint:": error.hint}
    lines = [f"{label} {' '.join(text.split())}" for label, text in parts.items() if text]
    return "\n".join(lines)


def _leave(error: MitocoreError, voice: Voice, all_told: str | None) -> None:
    if voice.traceback:
        traceback.print_exc()
    typer.echo(shown(error), err=True)
    if all_told and error.others:
        typer.echo(f"note: and {len(error.others)} more: {all_told} shows all", err=True)
    for one in () if all_told else error.others:
        typer.echo(shown(one), err=True)
    raise typer.Exit(error.exit_code) from error


def _bug() -> None:
    traceback.print_exc()
    command = " ".join(["mitocore", *sys.argv[1:]])
    typer.echo(
        f"This is a bug in mitocore or a plugin. Please report it, with the lines above and: {command}", err=True
    )
    raise typer.Exit(1)
