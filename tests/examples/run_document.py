"""Runs the code blocks of a Markdown file, in order, in the current folder: ``python run_document.py README.md``.

- A ``toml`` or ``python`` block with a title is written to that file; a ``toml`` block without one must be TOML.
- A ``python`` block without a title is executed; all of them share their names.
- The lines of a ``console`` block that begin with ``$`` are commands, ``> FILE`` included. Trainings are cut short.
- Blocks of any other language, such as ``sh``, are not run.
"""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from contextlib import ExitStack, redirect_stdout
from pathlib import Path

BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHORT = ["train.steps=2", "train.crop=[8, 32, 32]", "train.batch=1", "train.devices=cpu"]


def blocks(document: Path) -> list[tuple[str, str, str]]:
    """Language, title and text of every code block."""
    return BLOCK.findall(document.read_text("utf-8"))


def run(document: Path) -> None:
    """Run the blocks of a document."""
    names: dict[str, object] = {"__name__": "__main__"}
    for language, title, text in blocks(document):
        if language in ("toml", "python") and title:
            Path(title).parent.mkdir(parents=True, exist_ok=True)
            Path(title).write_text(text, "utf-8")
        elif language == "toml":
            tomllib.loads(text)
        elif language == "python":
            exec(compile(text, str(document), "exec"), names)
        elif language == "console":
            for line in text.splitlines():
                if line.startswith("$ "):
                    print(line, flush=True)
                    command(shlex.split(line.removeprefix("$ ")))


def command(words: list[str]) -> None:
    """Run a command of a document: mitocore in this process, pip into a folder beside the document's files."""
    if words[:2] == ["pip", "install"]:
        places = [word for word in words[2:] if not word.startswith("-")]
        quiet = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", "site"]
        subprocess.run(
            [sys.executable, "-m", "pip", "install", *quiet, *(str(Path(p).absolute()) for p in places)], check=True
        )
        sys.path.insert(0, str(Path("site").absolute()))
        return
    if words[0] != "mitocore":
        raise SystemExit(f"this command is not known here: {words}; put it into a block of another language")
    from mitocore.cli.main import app

    if words[1] == "train":
        if "folder" not in tomllib.loads(Path(words[2]).read_text("utf-8"))["train"]:
            shutil.rmtree(f"runs/{Path(words[2]).stem}", ignore_errors=True)  # what stands in for the reader's weights
        words += [word for setting in SHORT for word in ("--set", setting)]
    with ExitStack() as stack:
        if words[-2:-1] == [">"]:
            stack.enter_context(redirect_stdout(stack.enter_context(Path(words[-1]).open("w", encoding="utf-8"))))
            words = words[:-2]
        sys.argv = words
        try:
            app()
        except SystemExit as end:
            if end.code:
                raise


if __name__ == "__main__":
    run(Path(sys.argv[1]).absolute())
