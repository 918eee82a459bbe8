"""What exists is documented, and what is documented exists; no page is built here."""

import importlib.util
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

import mitocore
from mitocore.cli.main import app
from mitocore.registry import discover

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("examples/*.md"))]
PAGES += sorted(ROOT.glob("plugins/*/*.md"))
NAMED = [path.relative_to(ROOT).as_posix() for path in PAGES]


def commands_of(group: Any, name: str) -> dict[str, Any]:
    """Every command by the words that call it, groups included."""
    found = {name: group}
    for word, inner in getattr(group, "commands", {}).items():
        found |= commands_of(inner, f"{name} {word}")
    return found


COMMANDS: Mapping[str, Any] = commands_of(typer.main.get_command(app), "mitocore")


def options_of(command: Any) -> set[str]:
    words = {word for p in command.params if p.param_type_name == "option" for word in [*p.opts, *p.secondary_opts]}
    return words | {"-h", "--help"}


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """The hook of mkdocs that reads parts of the reference from the code."""
    spec = importlib.util.spec_from_file_location("generate_reference", DOCS / "generate_reference.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def generated(generator: ModuleType, page: str) -> str:
    """A page of the reference as mkdocs sees it."""
    return str(generator.on_page_markdown((DOCS / "reference" / page).read_text("utf-8")))


def test_every_command_and_every_option_is_in_the_reference(generator: ModuleType) -> None:
    text = generated(generator, "command-line.md")
    sections = {part.partition("\n")[0]: part for part in re.split(r"^#{2,3} ", text, flags=re.MULTILINE)}
    assert set(COMMANDS) <= set(sections)
    hidden = {"--install-completion", "--show-completion", "-h", "--help"}
    missing = [
        f"{name} {option}"
        for name, command in COMMANDS.items()
        for option in options_of(command) - hidden
        if f"`{option}`" not in sections[name]
    ]
    assert missing == []


def test_every_option_and_argument_of_a_command_says_what_it_is() -> None:
    silent = [
        f"{name} {parameter.name}"
        for name, command in COMMANDS.items()
        for parameter in command.params
        if parameter.param_type_name == "option" and not parameter.help
    ]
    assert silent == []


def test_every_installed_component_is_in_the_reference(generator: ModuleType) -> None:
    text = generated(generator, "components.md")
    entries = [entry for entry in discover().entries if entry.kind != "demo"]
    assert [e.qualified for e in entries if f"### {e.name} {{ #{e.kind}-{e.name} }}" not in text] == []


def test_every_exit_code_is_in_the_reference(generator: ModuleType) -> None:
    text = generated(generator, "command-line.md")
    families = {error for error in vars(mitocore.errors).values() if isinstance(error, type)}
    codes = {family.__name__: family.exit_code for family in families if issubclass(family, mitocore.MitocoreError)}
    codes.pop("MitocoreError")
    assert [name for name, code in codes.items() if f"| {code} | `{name}` |" not in text] == []


def test_every_named_check_of_the_kit_is_in_the_reference(generator: ModuleType) -> None:
    from mitocore import testing
    from mitocore.testing import pipelines

    text = generated(generator, "conformance-kit.md")
    suites = {name: getattr(testing, name) for name in testing.__all__ if name.endswith("Tests")}
    checks = [check for suite in suites.values() for check in getattr(suite, "checks", ())]
    named = {check.__name__ for check in [*checks, *pipelines.CHECKS]}
    assert [name for name in suites if name != "ComponentTests" and f"## {name}" not in text] == []
    assert [name for name in sorted(named) if f"| `{name}` |" not in text] == []


def test_every_public_name_is_in_the_reference() -> None:
    shown = set()
    for page in DOCS.glob("reference/*.md"):
        shown |= set(re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.MULTILINE))
    homes = {mitocore._MODULE_OF[name] for name in mitocore.__all__ if name in mitocore._MODULE_OF}
    covered = {home for home in homes for page in shown if page == home or page.startswith(f"{home}.")}
    assert sorted(homes - covered) == []


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"^ +- (?:[^:\n]+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert sorted(pages - set(listed)) == []
    assert sorted(set(listed) - pages) == []
    assert len(listed) == len(set(listed))


def test_every_decision_is_in_its_index_under_its_title() -> None:
    index = (DOCS / "adr/index.md").read_text("utf-8")
    wrong = []
    for page in sorted(DOCS.glob("adr/0*.md")):
        number, title = page.read_text("utf-8").partition("\n")[0].removeprefix("# ").split(". ", 1)
        if f"{number}. [{title}]({page.name})" not in index or int(page.name[:4]) != int(number):
            wrong.append(page.name)
    assert wrong == []


def calls(text: str) -> Iterator[str]:
    """What a page shows to be typed: lines of its blocks of commands, and code in its sentences."""
    blocks = re.findall(r"^```(\w*).*?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for language, block in blocks:
        if language in ("console", "sh"):
            lines = (line.removeprefix("$ ").strip() for line in block.replace("\\\n", " ").splitlines())
            yield from (line for line in lines if line.startswith("mitocore "))
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (code for code in re.findall(r"`(mitocore [^`]+)`", prose) if "=" not in code.split()[1])


@pytest.mark.parametrize("page", PAGES, ids=NAMED)
def test_commands_of_a_page_exist_with_their_options(page: Path) -> None:
    wrong = []
    for call in calls(page.read_text("utf-8")):
        words = shlex.split(call.replace("…", " "), comments=True)
        depth = next(n for n in (3, 2, 1) if " ".join(words[:n]) in COMMANDS)
        command, rest = COMMANDS[" ".join(words[:depth])], words[depth:]
        named = [word for word in rest if not word.startswith("-")]
        options = [word.partition("=")[0] for word in rest if word.startswith("-")]
        if (hasattr(command, "commands") and named) or set(options) - options_of(command):
            wrong.append(call)
    assert wrong == []
