"""What is shown on the way."""

import io
import logging
import os

import pytest
import typer
from rich.console import Console

from mitocore.cli import render
from mitocore.cli.failures import failures_shown, missing_extra, shown
from mitocore.cli.main import Voice
from mitocore.errors import ConfigError, PluginError


def told(*calls, seconds=1.0):
    """Lines that a sequence of calls gives, one every few seconds."""
    written, now = [], iter(range(1000))
    lines = render.Lines(written.append, lambda: next(now) * seconds)
    for call in calls:
        lines(*call)
    return written


def test_progress_in_lines_says_rate_and_time_left_at_most_every_few_seconds():
    written = told(*(("net: tiles", done, 20) for done in range(21)))
    assert written[0] == "net: tiles  5/20 · 1/s · 15 s left"
    assert written[-1] == "net: tiles  20/20 · 20 s"
    assert len(written) == 4


def test_the_end_of_a_piece_of_work_is_told_once():
    assert told(("a", 0, 2), ("a", 2, 2), ("a", 2, 2), ("b", 0, 1), ("b", 1, 1)) == ["a  2/2 · 1 s", "b  1/1 · 1 s"]


def test_work_that_was_done_before_is_not_told():
    assert told(("a", 4, 4), ("b", 0, 0)) == []


def test_the_rate_counts_only_what_this_run_did():
    assert told(("a", 90, 100), ("a", 91, 100), seconds=10.0) == ["a  91/100 · 0.1/s · 1 min 30 s left"]


def test_numbers_of_a_training_stand_behind():
    assert told(("training", 0, 9, {}), ("training", 9, 9, {"loss": 0.25})) == ["training  9/9 · 1 s · loss 0.250"]


def test_bars_are_drawn_on_a_terminal():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with render._bars(console) as told:
        for number in range(3):
            told("net: tiles", number, 2, {"loss": 0.5})
        told("net: tiles", 0, 2)
    assert "net: tiles" in console.file.getvalue()
    assert "loss 0.500" in console.file.getvalue()


def test_bars_that_are_full_make_room_for_others():
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=60)
    with render._bars(console) as told:
        told("inputs", 0, 99)
        for number in range(20):
            told(f"volume {number} · net: tiles", 1, 2)
            told(f"volume {number} · net: tiles", 2, 2)
        told("inputs", 1, 99)
        console.file.truncate(0)
    shown = console.file.getvalue()
    assert "inputs" in shown
    assert "volume 19" in shown
    assert "volume 3 " not in shown


@pytest.mark.parametrize(("verbosity", "expected"), [(-1, ""), (0, "warning: careful\nnumbers\n"), (1, None)])
def test_log_lines_follow_the_voice(verbosity, expected, capsys):
    logger, level = logging.getLogger("mitocore.somewhere"), logging.getLogger("mitocore").level
    with render.speaking(Voice(verbosity)):
        logger.warning("careful")
        logger.info("numbers")
        logger.debug("a block")
    said = capsys.readouterr().err
    assert said == expected if expected is not None else "a block" in said
    assert logging.getLogger("mitocore").level == level


def test_errors_take_three_lines_whatever_they_hold():
    error = ConfigError("no 'a'\nin b", where="x.toml:3\n[step]", hint="a\nb")
    assert shown(error).splitlines() == ["error: no 'a' in b", "  in x.toml:3 [step]", "  hint: a b"]


def test_a_missing_extra_is_named_with_the_command_that_installs_it(capsys):
    with pytest.raises(typer.Exit) as left, failures_shown(Voice()):
        raise ModuleNotFoundError("No module named 'lightning.pytorch'", name="lightning.pytorch")
    assert left.value.exit_code == PluginError.exit_code
    assert 'hint: pip install "mitocore[torch]"' in capsys.readouterr().err
    assert missing_extra(ModuleNotFoundError("x", name="something")) is None


def test_a_bug_is_a_traceback_and_a_request_to_report_it(capsys):
    with pytest.raises(typer.Exit) as left, failures_shown(Voice()):
        raise KeyError("surprise")
    assert left.value.exit_code == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "Please report it" in said


def test_a_reader_of_the_output_that_went_away_is_no_bug():
    with pytest.raises(BrokenPipeError), failures_shown(Voice()):
        raise BrokenPipeError(os.strerror(32))
