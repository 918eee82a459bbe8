"""The schema of a whole pipeline.toml: an editor accepts and refuses what mitocore does."""

import json
import operator
import re
import tomllib
from dataclasses import replace

import pytest

from mitocore.cli.schema import pipeline_schema
from mitocore.volumes import installed

WHOLE = """\
mitocore = 1
[input]
path = ["a.tif", "raw/*.tif"]
kind = "image"
voxel_size = [40, 8, 8]
[[step]]
name = "net"
weights = "best.safetensors"
predict = { window = [16, 64, "all"], batch = "auto" }
[[step]]
model = "rsunet"
weights = "best.safetensors"
widths = [4, 4, 6]
[[step]]
postprocessor = "threshold"
threshold = 0.5
inputs = { probability = "net.foreground" }
[[step]]
postprocessor = "rsunet/connected_components"
min_size = "0.002 um3"
[output]
writer = "zarr"
path = "{stem}.zarr"
save = ["net.foreground"]
chunks = [16, 16, 16]
[run]
memory = "16 GB"
workers = "auto"
block = [64, 64, 64]
"""


TYPES = {"object": dict, "array": list, "string": str, "number": (int, float), "integer": int, "boolean": bool}
BOUNDS = {
    "minimum": operator.ge,
    "exclusiveMinimum": operator.gt,
    "maximum": operator.le,
    "exclusiveMaximum": operator.lt,
}
ABOUT = {"$schema", "title", "description", "default", "definitions"}


class Checker:
    """Checks values by the words of draft 7 that our schema is made of; any other word is a mistake."""

    def __init__(self, whole):
        self.whole = whole

    def fits(self, value, schema):
        return all(self.word(word, asked, value, schema) for word, asked in schema.items() if word not in ABOUT)

    def word(self, word, asked, value, schema):
        if word == "$ref":
            return self.fits(value, self.whole["definitions"][asked.removeprefix("#/definitions/")])
        if word == "type":
            fits = asked != "null" and isinstance(value, TYPES[asked])
            return fits and (asked == "boolean") == isinstance(value, bool)
        if word in ("oneOf", "anyOf"):
            fitting = sum(self.fits(value, one) for one in asked)
            return fitting == 1 if word == "oneOf" else fitting > 0
        if word in ("const", "enum"):
            return value in (asked if word == "enum" else [asked])
        if word in BOUNDS:
            return not isinstance(value, int | float) or BOUNDS[word](value, asked)
        return getattr(self, word)(asked, value, schema)

    def pattern(self, asked, value, schema):
        return not isinstance(value, str) or re.search(asked, value) is not None

    def required(self, asked, value, schema):
        return not isinstance(value, dict) or set(asked) <= value.keys()

    def properties(self, asked, value, schema):
        known = asked.items() if isinstance(value, dict) else ()
        return all(self.fits(value[key], one) for key, one in known if key in value)

    def additionalProperties(self, asked, value, schema):
        known = schema.get("properties", {})
        extra = [one for key, one in value.items() if key not in known] if isinstance(value, dict) else []
        return all(asked is True or (asked and self.fits(one, asked)) for one in extra)

    def items(self, asked, value, schema):
        many = value if isinstance(value, list) else []
        wanted = asked if isinstance(asked, list) else [asked] * len(many)
        return all(self.fits(one, inner) for one, inner in zip(many, wanted, strict=False))

    def minItems(self, asked, value, schema):
        return not isinstance(value, list) or len(value) >= asked

    def maxItems(self, asked, value, schema):
        return not isinstance(value, list) or len(value) <= asked


@pytest.fixture(scope="module")
def fits():
    """Whether a TOML text fits the schema."""
    schema = pipeline_schema(installed())
    return lambda text: Checker(schema).fits(tomllib.loads(text), schema)


def test_the_schema_of_a_whole_pipeline_takes_what_mitocore_takes(fits, succeeds):
    assert json.loads(succeeds("describe", "--schema"))["properties"].keys() == {
        "mitocore",
        "input",
        "step",
        "output",
        "run",
    }
    assert fits(WHOLE)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("mitocore = 1", "mitocore = 2"),
        ("threshold = 0.5", "treshold = 0.5"),
        ("threshold = 0.5", "threshold = 1.5"),
        ('"threshold"', '"treshold"'),
        ('"rsunet/connected_components"', '"other/connected_components"'),
        ('name = "net"', 'name = "a net"'),
        ('name = "net"', 'nmae = "net"'),
        ("[16, 64, ", "[16, 64.5, "),
        ("[16, 16, 16]", "[16, 16]"),
        ('writer = "zarr"', 'writer = "tiff"'),
        ('kind = "image"', 'kind = "picture"'),
        ('path = ["a.tif", "raw/*.tif"]', "path = []"),
        ("block =", "blocks ="),
        ("[run]", "[runs]"),
    ],
)
def test_the_schema_of_a_whole_pipeline_refuses_what_mitocore_refuses(right, wrong, fits):
    assert right in WHOLE
    assert not fits(WHOLE.replace(right, wrong, 1))


def test_a_component_of_two_plugins_is_named_with_its_plugin_in_the_schema():
    registry = installed()
    twin = replace(registry.find("postprocessor", "threshold"), plugin="other")
    schema = pipeline_schema(replace(registry, entries=[*registry.entries, twin]))
    names = [
        step["properties"].get("postprocessor", {}).get("enum")
        for step in schema["properties"]["step"]["items"]["oneOf"]
    ]
    assert ["builtin/threshold"] in names
    assert ["other/threshold"] in names
