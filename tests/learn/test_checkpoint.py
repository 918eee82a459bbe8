import errno
import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mitocore.errors import DataError, ResourceError
from mitocore.header import WeightsHeader, read_header
from mitocore.learn import checkpoint
from mitocore.learn.checkpoint import convert, load_weights, ready, save_weights, trained, update_header
from mitocore.training import TrainingPlan


@pytest.fixture
def header(planned: Callable[..., TrainingPlan]) -> WeightsHeader:
    return planned().header(scores={"validation.loss": 0.5})


@pytest.fixture
def network(planned: Callable[..., TrainingPlan]) -> torch.nn.Module:
    torch.manual_seed(0)
    network: torch.nn.Module = planned().model.build()
    return network.eval()


def test_weights_and_header_survive_the_file(
    header: WeightsHeader, network: torch.nn.Module, planned: Callable[..., TrainingPlan], tmp_path: Path
) -> None:
    path = tmp_path / "net.safetensors"
    save_weights(path, network.state_dict(), header)
    assert read_header(path) == header
    image = torch.rand(1, 1, 4, 16, 16)
    loaded = trained(planned().model, path)
    assert torch.equal(loaded(image)["foreground"], network(image)["foreground"])
    assert list(tmp_path.glob("*.tmp")) == []


def test_what_is_saved_does_not_change_when_training_goes_on(
    header: WeightsHeader, network: torch.nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "net.safetensors"
    save_weights(path, network.state_dict(), header)
    before = load_weights(path)["net.0.weight"].clone()
    with torch.no_grad():
        network.get_parameter("net.0.weight").add_(1)
    assert torch.equal(load_weights(path)["net.0.weight"], before)


def test_a_new_header_keeps_the_tensors(header: WeightsHeader, network: torch.nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_weights(path, network.state_dict(), header)
    before = load_weights(path)
    update_header(path, scores={"test.loss": 0.25})
    assert read_header(path).scores == {"test.loss": 0.25}
    assert all(torch.equal(before[name], tensor) for name, tensor in load_weights(path).items())


def test_weights_of_another_shape_are_refused_naming_tensors(
    header: WeightsHeader, network: torch.nn.Module, planned: Callable[..., TrainingPlan], tmp_path: Path
) -> None:
    path = tmp_path / "net.safetensors"
    state = dict(network.state_dict())
    state["stray"] = state.pop("net.4.bias")
    save_weights(path, state, header)
    with pytest.raises(DataError, match=r"1 missing \(net\.4\.bias\); 1 not of the model \(stray\)"):
        trained(planned().model, path)
    wider = planned(model={"model": "tinynet", "width": 8}).model
    save_weights(path, network.state_dict(), header)
    with pytest.raises(DataError, match=r"of another shape \(net\.0\.weight"):
        trained(wider, path)


def test_a_network_in_use_is_given_to_nobody_else_and_the_last_two_are_kept(
    header: WeightsHeader,
    network: torch.nn.Module,
    planned: Callable[..., TrainingPlan],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpoint, "_KEPT", {})
    model, paths = planned().model, [tmp_path / f"{name}.safetensors" for name in "abc"]
    for path in paths:
        save_weights(path, network.state_dict(), header)
    with ready(model, paths[0], "cpu") as mine, ready(model, paths[0], "cpu") as other:
        assert mine is not other
        mine.train()  # as a network in foreign hands may be
    with ready(model, paths[0], "cpu") as again:
        assert again is mine
        assert not again.training
    kept = weakref.ref(mine)
    del mine, other, again
    with ready(model, paths[1], "cpu"):
        assert kept() is not None
    with ready(model, paths[2], "cpu"):
        pass
    gc.collect()
    assert kept() is None
    paths[1].unlink()
    with pytest.raises(DataError, match=r"b\.safetensors' cannot be read: No such file"), ready(model, paths[1], "cpu"):
        pass


def test_two_models_that_differ_in_an_option_share_no_network(
    header: WeightsHeader, network: torch.nn.Module, planned: Callable[..., TrainingPlan], tmp_path: Path
) -> None:
    path, model = tmp_path / "net.safetensors", planned().model
    save_weights(path, network.state_dict(), header)
    with ready(model, path, "cpu") as one:
        pass
    with ready(model.model_copy(update={"dropout": 0.5}), path, "cpu") as other:
        assert other is not one


def test_a_truncated_file_is_refused(
    header: WeightsHeader, network: torch.nn.Module, planned: Callable[..., TrainingPlan], tmp_path: Path
) -> None:
    path = tmp_path / "net.safetensors"
    save_weights(path, network.state_dict(), header)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="not a readable safetensors file"):
        trained(planned().model, path)
    with pytest.raises(DataError, match="truncated"):
        read_header(path)


def test_a_full_disk_keeps_the_old_weights_and_names_the_file(
    header: WeightsHeader, network: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.safetensors"
    save_weights(path, network.state_dict(), header)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mitocore.durable.os.fsync", full)
    with pytest.raises(ResourceError, match=r"net\.safetensors' cannot be written: No space left"):
        save_weights(path, network.state_dict(), header.model_copy(update={"description": "new"}))
    assert read_header(path) == header
    assert list(tmp_path.glob("*.tmp")) == []


@pytest.mark.parametrize("form", ["bare", "state_dict", "model_state_dict", "prefixed", "renamed"])
def test_foreign_state_dicts_are_converted(
    form: str,
    header: WeightsHeader,
    network: torch.nn.Module,
    planned: Callable[..., TrainingPlan],
    tmp_path: Path,
) -> None:
    state = dict(network.state_dict())
    if form == "prefixed":
        state = {f"module.model.{name}": tensor for name, tensor in state.items()}
    if form == "renamed":
        state = {name.replace("net.0.", "stem."): tensor for name, tensor in state.items()}
    wrapped = {form: state, "epoch": 3} if form.endswith("state_dict") else state
    torch.save(wrapped, tmp_path / "old.pth")
    convert(tmp_path / "old.pth", tmp_path / "new.safetensors", planned().model, header)
    found = load_weights(tmp_path / "new.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in network.state_dict().items())


class Payload:
    """Would run code if it were unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return pytest.fail, ("unpickled",)


def test_nothing_but_tensors_is_ever_unpickled(
    header: WeightsHeader, planned: Callable[..., TrainingPlan], tmp_path: Path
) -> None:
    torch.save({"state_dict": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(DataError, match="never loaded"):
        convert(tmp_path / "evil.pth", tmp_path / "new.safetensors", planned().model, header)


def test_files_that_hold_no_fitting_state_dict_are_refused(
    header: WeightsHeader, network: torch.nn.Module, planned: Callable[..., TrainingPlan], tmp_path: Path
) -> None:
    target, model = tmp_path / "new.safetensors", planned().model
    torch.save({"epoch": 3}, tmp_path / "a.pth")
    with pytest.raises(DataError, match="holds no state dict, but: epoch"):
        convert(tmp_path / "a.pth", target, model, header)
    torch.save({"encoder.weight": torch.zeros(3)}, tmp_path / "b.pth")
    with pytest.raises(DataError, match="fit 'tiny/tinynet' in no form"):
        convert(tmp_path / "b.pth", target, model, header)
    torch.save(network.state_dict(), tmp_path / "c.pth")
    (tmp_path / "c.pth").write_bytes((tmp_path / "c.pth").read_bytes()[:300])
    with pytest.raises(DataError, match="not a readable state dict"):
        convert(tmp_path / "c.pth", target, model, header)
    assert not target.exists()
