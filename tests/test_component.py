"""A component is its configuration: frozen, comparable, with a fingerprint that any process and machine agrees on."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from mitocore.component import AtInference, File, PathOption
from mitocore.errors import ContractError
from mitocore.geometry import VoxelSizeOption
from mitocore.interfaces import Normalizer, PostProcessor, Reader, Writer


class Listed(Reader):
    """Reads what a list names."""

    names: tuple[str, ...] = ("a",)
    """Which."""
    level: Annotated[float, Field(ge=0)] = 0.5
    """How much."""
    table: PathOption | None = None
    """A second file."""

    def open(self):
        raise AssertionError


def test_options_cannot_be_changed():
    reader = Listed(path="x")
    with pytest.raises(ValidationError, match="frozen"):
        reader.level = 0.7


def test_equal_options_are_equal_components_and_travel_between_processes():
    one, other = Listed(path="x", level=0.7), Listed(path="x", level=0.7)
    assert one == other
    assert hash(one) == hash(other)
    assert one != Listed(path="x")
    assert pickle.loads(pickle.dumps(one)) == one


def test_unknown_options_and_wrong_values_are_refused_even_as_defaults():
    with pytest.raises(ValidationError, match="levle"):
        Listed(path="x", levle=1)

    class Wrong(Listed):
        level: Annotated[float, Field(ge=0)] = -1.0

    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        Wrong(path="x")


def test_the_digest_changes_with_every_option_but_paths():
    plain = Listed(path="x")
    assert plain.digest() == Listed(path="/elsewhere/x", table="t.csv").digest()
    assert len({plain.digest(), Listed(path="x", level=0.7).digest(), Listed(path="x", names=("b",)).digest()}) == 3
    assert Listed(path="x", voxel_size=8).digest() != plain.digest()


def test_the_digest_tells_classes_of_equal_options_apart():
    class Other(Listed):
        pass

    assert Other(path="x").digest() != Listed(path="x").digest()


def test_the_digest_is_the_same_in_another_process():
    program = (
        "from mitocore.builtin.postprocess import Median, Threshold\n"
        "print(Threshold(threshold=0.7).digest(), Median(size=(1, 3, 3)).digest())"
    )
    ours = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    from mitocore.builtin.postprocess import Median, Threshold

    assert ours == [Threshold(threshold=0.7).digest(), Median(size=(1, 3, 3)).digest()]


def test_marked_options_are_found_whatever_their_type():
    class Net(Listed):
        scale: Annotated[int, AtInference()] = 1

    assert Net.marked(File) == {"path", "table"}
    assert Net.marked(AtInference) == {"scale"}


@pytest.mark.parametrize("word", ["name", "inputs", "predict", "weights", "storage", "reader", "model", "rescale"])
def test_reserved_words_of_every_table_are_refused_as_options(word):
    with pytest.raises(ContractError, match=f"option {word!r} of Bad is a reserved word") as refused:
        type("Bad", (PostProcessor,), {"__annotations__": {word: int}, word: 1})
    assert refused.value.hint == "rename the option"


@pytest.mark.parametrize(
    ("base", "word", "fits"), [(Reader, "stats", Normalizer), (Writer, "save", Reader), (Writer, "into", Reader)]
)
def test_words_of_one_table_are_refused_for_its_kind_only(base, word, fits):
    with pytest.raises(ContractError, match=f"option {word!r}"):
        type("Bad", (base,), {"__annotations__": {word: int}, word: 1})
    assert word in type("Good", (fits,), {"__annotations__": {word: int}, word: 1}).model_fields


@pytest.mark.filterwarnings("ignore:Field name")  # pydantic's own, on the way to the error
@pytest.mark.parametrize("word", ["halo", "digest", "kind", "options"])
def test_an_option_that_hides_a_method_is_refused(word):
    with pytest.raises(ContractError, match=f"option {word!r} of Bad hides"):
        type("Bad", (PostProcessor,), {"__annotations__": {word: int}, word: 1})


def test_options_are_described_by_the_text_below_them():
    properties = Listed.options()["properties"]
    assert properties["level"]["description"] == "How much."
    assert properties["level"]["minimum"] == 0


def test_a_voxel_size_option_is_kept_in_json_as_numbers():
    class Sized(Reader):
        voxel_size: VoxelSizeOption = 8

        def open(self):
            raise AssertionError

    assert Sized(path=str(Path("x"))).model_dump(mode="json")["voxel_size"] == [8, 8, 8]
