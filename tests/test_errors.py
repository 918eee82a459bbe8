"""Errors for people: at most three lines, whole on the other side of a process, one exit code per family."""

import pickle

import pytest

from mitocore.errors import (
    ConfigError,
    ContractError,
    DataError,
    MitocoreError,
    PluginError,
    ResourceError,
    RunError,
    WiringError,
    together,
)

FAMILIES = [ConfigError, WiringError, PluginError, DataError, ResourceError, ContractError, RunError]


def test_an_error_is_one_sentence_the_place_and_the_remedy():
    error = DataError("'raw.h5' has no key 'row'", where="pipeline.toml:3 [input]", hint="did you mean 'raw'?")
    assert str(error).splitlines() == [
        "'raw.h5' has no key 'row'",
        "  in pipeline.toml:3 [input]",
        "  hint: did you mean 'raw'?",
    ]


def test_lines_that_say_nothing_are_left_out():
    assert str(RunError("stopped")) == "stopped"
    assert str(RunError("stopped", hint="run again")).splitlines() == ["stopped", "  hint: run again"]


@pytest.mark.parametrize("family", FAMILIES)
def test_place_and_hint_survive_the_way_between_processes(family):
    error = family("problem", where="here", hint="remedy")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is family
    assert (copy.problem, copy.where, copy.hint, str(copy)) == ("problem", "here", "remedy", str(error))


def test_every_family_has_an_exit_code_of_its_own_and_wiring_is_configuration():
    assert [family.exit_code for family in FAMILIES] == [3, 3, 4, 5, 6, 7, 8]
    assert issubclass(WiringError, ConfigError)
    assert all(issubclass(family, MitocoreError) for family in FAMILIES)


def test_a_wrong_option_is_a_value_error_too():
    with pytest.raises(ValueError, match="too large"):
        raise ConfigError("too large")


def test_findings_of_one_check_travel_together_in_their_order():
    findings = [ConfigError("first"), DataError("second"), ConfigError("third")]
    error = together(findings)
    assert [error, *error.others] == findings
    assert str(error) == "first"


def test_findings_that_travel_together_survive_the_way_between_processes():
    error = together([ConfigError("first", hint="a"), DataError("second", where="b")])
    copy = pickle.loads(pickle.dumps(error))
    assert [(type(other), other.problem, other.where) for other in copy.others] == [(DataError, "second", "b")]
