"""Discovery and lookup, with plugins that lie on a path as pip would have put them there."""

import sys
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import pytest

from mitocore.errors import ContractError, PluginError
from mitocore.registry import API_GROUP, Registry, discover

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(FIXTURES / "modules"))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "fake_plugin"]:
        del sys.modules[name]


def declared(*names):
    """Entry points of the fake distribution: all, or those of these names."""
    (found,) = distributions(path=[str(FIXTURES)])
    return [point for point in found.entry_points.select(group=API_GROUP) if not names or point.name in names]


@pytest.fixture
def fake():
    return discover(declared("fake"))


def test_an_installed_plugin_is_found_beside_the_built_in_one(monkeypatch):
    monkeypatch.syspath_prepend(str(FIXTURES))
    registry = discover()
    assert registry.find("model", "fake/tinynet").plugin == "fake"
    assert registry.find("postprocessor", "builtin/threshold").plugin == "builtin"
    assert registry.versions["fake"] == "0.1"


def test_nothing_is_imported_before_it_is_asked_for(fake):
    entry = fake.find("model", "tinynet")
    assert (entry.target, entry.summary, entry.qualified) == (
        "fake_plugin.parts:TinyNet",
        "a blur and a gain",
        "fake/tinynet",
    )
    assert "fake_plugin.parts" not in sys.modules
    assert entry.load().__name__ == "TinyNet"
    assert "fake_plugin.parts" in sys.modules


def test_a_plugin_that_raises_on_import_is_reported_and_takes_no_other_down():
    registry = discover(declared())
    assert "libmissing.so" in str(registry.broken["broken"])
    assert "tinynet" in registry.names("model")


def test_a_broken_plugin_is_fatal_when_it_is_named_and_its_own_error_is_shown():
    registry = discover(declared("fake", "broken"))
    with pytest.raises(PluginError) as refused:
        registry.find("model", "broken/resnet")
    assert "plugin 'broken' does not load" in refused.value.problem
    assert "libmissing.so: cannot open shared object file" in refused.value.problem


def test_an_unknown_name_points_at_broken_plugins_that_may_have_had_it():
    with pytest.raises(PluginError) as refused:
        discover(declared("fake", "broken")).find("model", "resnet_x")
    assert "plugin broken does not load; `mitocore plugins` shows why" in refused.value.hint


def test_a_hook_that_raises_half_way_leaves_nothing_behind():
    registry = discover(declared("fake", "halfway"))
    assert "halfnet" not in registry.names("model")
    assert "half-way" in str(registry.broken["halfway"])
    assert "halfway" not in registry.versions


def test_a_plugin_written_for_another_hook_is_reported():
    registry = discover(declared("fake", "strange"))
    assert "something_else" in str(registry.broken["strange"])
    assert "strangenet" not in registry.names("model")


def test_a_plugin_that_is_not_there_is_reported():
    registry = discover([EntryPoint("gone", "no_such_module", API_GROUP)])
    assert isinstance(registry.broken["gone"], ModuleNotFoundError)


def test_two_packages_that_call_their_plugin_alike_are_reported():
    twin = EntryPoint("fake", "fake_plugin.rival", API_GROUP)
    registry = discover([*declared("fake"), twin])
    ((name, clash),) = registry.broken.items()
    assert "fake_plugin.rival" in name
    assert "two installed packages call their plugin 'fake'" in str(clash)


def test_one_plugin_listed_twice_is_one_plugin(fake):
    assert discover([*declared("fake"), *declared("fake")]).entries == fake.entries


def test_plugins_of_another_api_are_not_imported():
    (found,) = distributions(path=[str(FIXTURES)])
    assert [point.name for point in found.entry_points if point.group != API_GROUP] == ["old"]
    assert "old" not in discover(declared()).broken


def test_a_name_that_two_plugins_provide_is_refused_with_both_spellings():
    registry = discover(declared("fake", "rival"))
    with pytest.raises(PluginError) as refused:
        registry.find("model", "tinynet")
    assert refused.value.problem == "model 'tinynet' is provided by 2 plugins"
    assert refused.value.hint == 'write "fake/tinynet" or "rival/tinynet"'


def test_a_qualified_name_is_never_ambiguous():
    registry = discover(declared("fake", "rival"))
    assert registry.find("model", "rival/tinynet").target == "fake_plugin.parts:OtherNet"
    assert registry.find("model", "fake/tinynet").target == "fake_plugin.parts:TinyNet"


def test_one_name_may_stand_for_components_of_two_kinds():
    registry = Registry()
    registry.add("loss", "dice", "a:Loss")
    registry.add("metric", "dice", "a:Metric")
    assert registry.find("metric", "dice").target == "a:Metric"


def test_a_near_miss_is_suggested(fake):
    with pytest.raises(PluginError) as refused:
        fake.find("model", "tinynt")
    assert (refused.value.problem, refused.value.hint) == ("no model is called 'tinynt'", "did you mean 'tinynet'?")


def test_far_from_any_name_all_are_listed(fake):
    with pytest.raises(PluginError) as refused:
        fake.find("model", "zzz")
    assert refused.value.hint == "installed: othernet, tinynet"
    with pytest.raises(PluginError) as refused:
        fake.find("loss", "zzz")
    assert refused.value.hint == "installed: none"


@pytest.mark.parametrize(
    ("path", "name"),
    [("a.sealed", "sealed"), ("A.SEALED", "sealed"), ("x/a.ome.sealed", "double"), ("b.ome.SEALED", "double")],
)
def test_the_longest_suffix_tells_the_reader(fake, path, name):
    assert fake.find_for("reader", path).name == name


def test_a_suffix_of_two_plugins_is_refused_with_both_spellings():
    registry = discover(declared("fake", "rival"))
    with pytest.raises(PluginError) as refused:
        registry.find_for("reader", "a.sealed")
    assert refused.value.hint == 'write "fake/sealed" or "rival/unsealed"'
    assert registry.find_for("reader", "a.ome.sealed").name == "double"


def test_a_suffix_that_nothing_reads_is_refused(fake):
    with pytest.raises(PluginError, match=r"no writer is known for 'a.mrc'"):
        fake.find_for("writer", "a.mrc")


@pytest.mark.parametrize(
    ("setting", "plugins"),
    [
        ("fake", {"fake"}),
        ("fake,rival", {"fake", "rival"}),
        ("fake, rival", {"fake", "rival"}),
        ("", set()),
        (None, {"fake", "rival"}),
    ],
)
def test_an_environment_variable_says_which_plugins_are_asked(monkeypatch, setting, plugins):
    monkeypatch.delenv("MITOCORE_PLUGINS", raising=False)
    if setting is not None:
        monkeypatch.setenv("MITOCORE_PLUGINS", setting)
    registry = discover(declared("fake", "rival", "broken"))
    assert {entry.plugin for entry in registry.entries} == plugins
    assert ("broken" in registry.broken) == (setting is None)


def test_a_class_that_does_not_exist_is_the_plugins_fault_and_its_error_is_shown(fake):
    with pytest.raises(PluginError) as refused:
        fake.find("postprocessor", "absent").load()
    assert "postprocessor 'absent' of plugin 'fake' does not load: AttributeError" in refused.value.problem
    assert refused.value.where == "fake_plugin.parts:Absent"
    assert isinstance(refused.value.__cause__, AttributeError)


def test_a_target_that_is_no_component_of_its_kind_is_the_plugins_fault(fake):
    from mitocore.config.components import build

    for name in ("posing", "plain"):
        with pytest.raises(ContractError, match=r"fake_plugin.parts:\w+ of plugin 'fake' is not a postprocessor"):
            build("postprocessor", name, fake)


def test_a_kind_that_does_not_exist_is_refused_with_those_there_are():
    with pytest.raises(PluginError, match="'optimizer' is not a kind") as refused:
        Registry().add("optimizer", "adam", "a:Adam")
    assert "postprocessor" in refused.value.hint


def test_declaring_a_name_twice_is_refused():
    registry = Registry()
    registry.add("loss", "dice", "a:Dice")
    with pytest.raises(PluginError, match="loss 'dice' is declared twice"):
        registry.add("loss", "dice", "a:Other")
