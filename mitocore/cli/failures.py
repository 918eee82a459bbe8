"""The outermost frame: errors for people, exit codes."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from mitocore.cli.main import Voice
from mitocore.errors import MitocoreError, PluginError

EXTRAS = {
    "torch": ("torch", "lightning", "monai", "safetensors", "tensorboard"),
    "report": ("matplotlib",),
}
"""Extras of the distribution, and the packages that are missing without them."""
INTERRUPTED = 130


@contextmanager
def failures_shown(voice: Voice) -> Iterator[None]:
    """Print what is raised inside and leave with its exit code."""
    try:
        yield
    except MitocoreError as error:
        _leave(error, voice)
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            _bug()
        else:
            _leave(missing, voice)
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


def _leave(error: MitocoreError, voice: Voice) -> None:
    if voice.traceback:
        traceback.print_exc()
    for one in (error, *error.others):
        typer.echo(shown(one), err=True)
    raise typer.Exit(error.exit_code) from error


def _bug() -> None:
    traceback.print_exc()
    command = " ".join(["mitocore", *sys.argv[1:]])
    typer.echo(
        f"This is a bug in mitocore or a plugin. Please report it, with the lines above and: {command}", err=True
    )
    raise typer.Exit(1)
