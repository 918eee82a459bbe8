"""What is freed when, of pipelines of made-up steps."""

from dataclasses import dataclass, field

import pytest

from mitocore.lifetimes import last_wanted, unfinished
from mitocore.pipeline import Wire


@dataclass
class Step:
    """As much of a planned step as lifetimes depend on."""

    name: str
    scope: str = "local"
    reads: tuple[str, ...] = ()
    wires: dict = field(init=False)

    def __post_init__(self):
        self.wires = {name: Wire(f"{name}.array") for name in self.reads}


CHAIN = [
    Step("net", "model", ("input",)),
    Step("smooth", "local", ("net",)),
    Step("mask", "computed", ("smooth",)),
    Step("cc", "stitched", ("mask",)),
    Step("sized", "stitched", ("cc",)),
]


def test_an_array_is_freed_after_its_last_reader_even_through_a_computed_step():
    assert last_wanted(CHAIN, {"sized"}) == {"smooth": ["net"], "cc": ["smooth"], "sized": ["cc"]}


def test_what_is_kept_or_handed_over_is_not_freed():
    assert last_wanted(CHAIN, {"sized", "cc"}, kept={"net"}) == {"cc": ["smooth"]}


def test_what_a_computed_step_that_is_handed_over_reads_stays_to_the_end():
    freed = last_wanted(CHAIN, {"mask", "sized"})
    assert not any("smooth" in names for names in freed.values())


def test_an_array_that_nobody_reads_is_freed_by_its_own_step():
    assert last_wanted([Step("net", "model"), Step("cc", "stitched")], {"cc"}) == {"net": ["net"]}


@pytest.mark.parametrize(
    ("done", "freed", "expected"),
    [
        ("", "", "net smooth mask cc sized"),
        ("net smooth", "", "mask cc sized"),
        ("net smooth cc", "net smooth", "sized"),
        ("net smooth cc sized", "net smooth cc", ""),
        ("net smooth cc sized", "net smooth cc sized", "net smooth mask cc sized"),
        ("net smooth sized", "net", "mask cc"),
        ("net smooth", "net smooth", "net smooth mask cc sized"),
    ],
)
def test_only_what_is_missing_is_computed(done, freed, expected):
    assert unfinished(CHAIN, done.split(), freed.split(), {"sized"}) == set(expected.split())
