import csv
import errno
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mitocore.errors import ConfigError, DataError, ResourceError, RunError
from mitocore.header import read_header
from mitocore.learn.checkpoint import load_weights, trained
from mitocore.learn.fit import TrainingResult, explained, fit
from mitocore.training import TrainingPlan

Planned = Callable[..., TrainingPlan]


def losses(folder: Path) -> dict[int, float]:
    """The loss of every step, from the tables of all starts."""
    found = {}
    for table in sorted(folder.glob("logs/*/metrics.csv")):
        with table.open() as file:
            found |= {int(row["step"]): float(row["train.loss"]) for row in csv.DictReader(file) if row["train.loss"]}
    return found


def same(a: Path, b: Path) -> bool:
    one, other = load_weights(a), load_weights(b)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def interrupted(plan: TrainingPlan, after: int, **options: Any) -> None:
    """Run until `after` steps are done, as if somebody had pressed Ctrl-C then."""
    seen = []

    def progress(what: str, done: int, total: int, numbers: Any) -> None:
        seen.extend([done] if what == "training" else [])

    with pytest.raises(KeyboardInterrupt):
        fit(plan, progress=progress, cancelled=lambda: bool(seen) and seen[-1] >= after, **options)


def test_a_training_leaves_weights_with_header_checkpoint_and_curves(planned: Planned) -> None:
    plan = planned()
    told: list[tuple[str, int, int]] = []
    result = fit(plan, progress=lambda what, done, total, _: told.append((what, done, total)))
    assert isinstance(result, TrainingResult)
    assert result.steps == 8
    assert list(losses(plan.folder)) == list(range(1, 9))
    assert (plan.folder / "last.ckpt").is_file()
    assert list(plan.folder.glob("tensorboard/**/events.*"))
    header = read_header(result.best)
    assert header.component == "tiny/tinynet"
    assert header.normalizer["normalizer"] == "builtin/zscore"
    assert header.scores == result.scores
    assert header.provenance["seed"] == 5
    assert trained(plan.model, result.last)(torch.zeros(1, 1, 4, 16, 16))["foreground"].shape[-1] == 16
    assert [done for what, done, _ in told if what == "training"] == list(range(1, 9))
    assert ("validation", 8 * 32 * 32, 8 * 32 * 32) in told


def test_training_learns(planned: Planned) -> None:
    train = {"steps": 60, "validate_every": 30, "optimizer": {"lr": 0.02}, "keep_best": "foreground.dice"}
    result = fit(planned(train, model={"model": "tinynet", "dropout": 0.0, "width": 8}))
    assert result.scores["validation.foreground.dice"] > 0.8


def test_equal_seeds_give_equal_weights_and_others_do_not(planned: Planned) -> None:
    results = [fit(planned({"folder": name, "steps": 4}, seed=seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    assert same(results[0].last, results[1].last)
    assert not same(results[0].last, results[2].last)


def test_training_leaves_the_random_numbers_of_the_caller_alone(planned: Planned) -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - the global state is what is tested
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    fit(planned({"steps": 2}))
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002


@pytest.mark.parametrize("stop", [20, 13])
def test_a_resumed_training_equals_an_uninterrupted_one(planned: Planned, stop: int) -> None:
    train = {"steps": 40, "validate_every": 10, "batch": 1, "schedule": {"name": "one_cycle"}, "accumulate": 2}
    whole, parts = planned({**train, "folder": "whole"}), planned({**train, "folder": "parts"})
    first = fit(whole)
    interrupted(parts, stop)
    assert max(losses(parts.folder)) == stop
    second = fit(parts, resume=True)
    assert losses(whole.folder) == losses(parts.folder)
    assert same(first.last, second.last)
    assert same(first.best, second.best)
    assert first.scores == second.scores


def test_a_validation_that_was_interrupted_is_made_up_for(planned: Planned) -> None:
    whole, parts = planned({"folder": "whole"}), planned({"folder": "parts"})
    first = fit(whole)
    for last in (4, 8):
        seen: list[int] = []

        def progress(what: str, done: int, total: int, _: Any, seen: list[int] = seen, last: int = last) -> None:
            if what == "training":
                seen.append(done)
            elif what == "validation" and seen and seen[-1] == last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fit(parts, resume=True, progress=progress)
        assert seen[-1] == last
    second = fit(parts, resume=True)
    assert same(first.best, second.best)
    assert first.scores == second.scores


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_training_with_a_checkpoint(planned: Planned, number: signal.Signals) -> None:
    plan = planned()
    before = signal.getsignal(number)

    def progress(what: str, done: int, total: int, _: Any) -> None:
        if what == "training" and done == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        fit(plan, progress=progress)
    assert torch.load(plan.folder / "last.ckpt", weights_only=True)["global_step"] == 3
    assert signal.getsignal(number) is before
    assert fit(plan, resume=True).steps == 8


def test_a_finished_training_may_be_resumed_and_stays_as_it_is(planned: Planned) -> None:
    first = fit(planned())
    before = first.best.read_bytes()
    second = fit(planned(), resume=True)
    assert second.scores == first.scores
    assert second.steps == 8
    assert first.best.read_bytes() == before


def test_a_folder_that_holds_a_training_is_refused(planned: Planned) -> None:
    fit(planned({"steps": 1}))
    with pytest.raises(DataError, match="holds a training already") as error:
        fit(planned({"steps": 1}))
    assert "--resume" in error.value.hint


def test_a_resume_with_other_settings_is_refused_naming_what_differs(planned: Planned) -> None:
    interrupted(planned(), 2)
    with pytest.raises(ConfigError, match=r"train\.optimizer\.lr is 0\.5, but the training to be resumed has 0\.001"):
        fit(planned({"optimizer": {"lr": 0.5}}), resume=True)
    with pytest.raises(ConfigError, match="augment"):
        fit(planned(augment=["contrast"]), resume=True)
    fit(planned({"workers": 0, "devices": "auto" if not torch.cuda.is_available() else "cpu"}), resume=True)


def test_a_training_goes_on_where_its_data_were_moved(planned: Planned, tables: dict[str, Any], tmp_path: Path) -> None:
    interrupted(planned(), 2)
    (tmp_path / "moved").mkdir()
    for name in ("raw.npy", "truth.npy"):
        shutil.move(tmp_path / name, tmp_path / "moved" / name)
    volume = {**tables["volume"][0], "path": "moved/raw.npy", "labels": "moved/truth.npy"}
    assert fit(planned(volume=[volume]), resume=True).steps == 8


@pytest.mark.parametrize(("name", "place"), [("raw.npy", "volume.0.image"), ("truth.npy", "volume.0.labels.instances")])
def test_a_resume_on_other_voxels_is_refused(name: str, place: str, planned: Planned, tmp_path: Path) -> None:
    interrupted(planned(), 2)
    np.save(tmp_path / name, np.load(tmp_path / name)[::-1])
    with pytest.raises(ConfigError, match=f"the files of {place} were replaced or changed"):
        fit(planned(), resume=True)


def test_a_normalised_image_of_other_voxels_is_not_used_again(planned: Planned, tmp_path: Path) -> None:
    interrupted(planned(normalizer="plane_mean"), 1)
    for name in ("training.json", "last.ckpt"):
        (planned().folder / name).unlink()
    np.save(tmp_path / "raw.npy", np.load(tmp_path / "raw.npy")[::-1])
    interrupted(planned(normalizer="plane_mean"), 1)
    assert len(list(planned().folder.glob("scratch/normalised.0.*"))) == 2


def test_a_folder_that_cannot_be_made_is_refused(planned: Planned, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"raw\.npy' cannot be a run folder"):
        fit(planned({"folder": "raw.npy"}))


def test_a_damaged_record_is_refused(planned: Planned) -> None:
    interrupted(planned(), 1)
    (planned().folder / "training.json").write_text("{")
    with pytest.raises(DataError, match="not a readable record"):
        fit(planned(), resume=True)


@pytest.mark.parametrize(
    ("broken", "named"),
    [("mitocore.durable.os.fsync", "best.safetensors"), ("lightning.pytorch.loggers.CSVLogger.save", "run")],
)
def test_a_full_disk_ends_the_training_naming_what_could_not_be_written(
    broken: str, named: str, planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def progress(what: str, done: int, total: int, _: Any) -> None:
        if what == "training" and done == 3:
            monkeypatch.setattr(broken, full)

    with pytest.raises(ResourceError, match=f"{named}' cannot be written: No space left on device") as error:
        fit(planned(), progress=progress)
    assert "--resume" in error.value.hint
    monkeypatch.undo()
    assert fit(planned(), resume=True).steps == 8


def test_a_full_disk_leaves_the_files_of_the_round_before_whole(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned()
    names = ("best.safetensors", "last.safetensors", "last.ckpt")
    before: dict[str, bytes] = {}

    def full(_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def progress(what: str, done: int, total: int, _: Any) -> None:
        if what == "training" and done == 7:
            before.update({name: (plan.folder / name).read_bytes() for name in names})
            monkeypatch.setattr("mitocore.durable.os.fsync", full)

    with pytest.raises(ResourceError, match="No space left on device"):
        fit(plan, progress=progress)
    monkeypatch.undo()
    assert {name: (plan.folder / name).read_bytes() for name in names} == before
    assert not list(plan.folder.glob("*.tmp"))
    assert fit(plan, resume=True).steps == 8


def test_a_training_may_be_cancelled_while_volumes_are_measured(planned: Planned) -> None:
    told: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        fit(planned(), progress=lambda what, *_: told.append(what), cancelled=lambda: True)
    assert set(told) <= {"statistics"}


def test_a_truncated_checkpoint_is_refused(planned: Planned) -> None:
    plan = planned()
    interrupted(plan, 2)
    checkpoint = plan.folder / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:2000])
    with pytest.raises(DataError, match="not a readable checkpoint"):
        fit(plan, resume=True)


def test_a_checkpoint_of_other_settings_is_refused_even_without_its_record(planned: Planned) -> None:
    plan = planned()
    interrupted(plan, 2)
    (plan.folder / "training.json").unlink()
    with pytest.raises(ConfigError, match=r"last\.ckpt' is a checkpoint of other settings"):
        fit(planned({"optimizer": {"lr": 0.5}}), resume=True)
    assert not (plan.folder / "training.json").exists()
    assert fit(plan, resume=True).steps == 8


def test_weights_whose_record_is_gone_are_not_written_over(planned: Planned) -> None:
    plan = planned()
    plan.folder.mkdir()
    (plan.folder / "best.safetensors").write_bytes(b"of last week")
    with pytest.raises(DataError, match="holds a training already"):
        fit(plan)
    assert (plan.folder / "best.safetensors").read_bytes() == b"of last week"


def test_the_best_weights_are_a_copy_and_not_those_of_the_last_step(planned: Planned) -> None:
    # with an absurd learning rate the first validation stays the best
    train = {"steps": 12, "validate_every": 1, "optimizer": {"name": "sgd", "lr": 3.0}, "keep_best": "foreground.dice"}
    result = fit(planned(train))
    steps = [read_header(path).provenance["step"] for path in (result.best, result.last)]
    assert steps[1] == 12
    assert steps[0] < 12
    assert not same(result.best, result.last)


def test_training_stops_when_validation_no_longer_improves(planned: Planned) -> None:
    train = {"steps": 50, "validate_every": 1, "stop_after": 3, "optimizer": {"name": "sgd", "lr": 1e-12}}
    plan = planned({**train, "keep_best": "foreground.dice"}, model={"model": "tinynet", "dropout": 0.0})
    result = fit(plan)
    assert result.steps < 50
    assert fit(plan, resume=True).steps == result.steps


def test_a_loss_that_is_not_finite_ends_the_training(planned: Planned) -> None:
    plan = planned({"steps": 50, "optimizer": {"name": "sgd", "lr": 1e30}})
    with pytest.raises(RunError, match="loss became nan at step 2") as error:
        fit(plan)
    assert re.fullmatch(r"crops 'raw.npy' at z \d+:\d+, y \d+:\d+, x \d+:\d+; 'raw.npy' at .*", error.value.where)
    assert "clip = 1.0" in error.value.hint
    assert not list(plan.folder.glob("*.safetensors"))


def test_weights_that_no_longer_predict_are_not_saved(planned: Planned) -> None:
    plan = planned({"steps": 50, "validate_every": 1, "optimizer": {"name": "sgd", "lr": 1e30}})
    with pytest.raises(RunError, match=r"validation loss became (nan|inf) at step 1"):
        fit(plan)
    assert not list(plan.folder.glob("*.safetensors"))


def test_the_test_part_is_scored_once_with_the_best_weights(planned: Planned, tables: dict[str, Any]) -> None:
    volume = {**tables["volume"][0], "split": {"validation": "z:12-18", "test": "z:18-24", "gap": 1}}
    told: list[str] = []
    plan = planned({"keep_best": "foreground.iou"}, volume=[volume])
    result = fit(plan, progress=lambda what, *_: told.append(what))
    assert result.scores.keys() >= {
        f"{part}.{name}" for part in ("validation", "test") for name in ("loss", "foreground.iou")
    }
    assert told.count("test") == 2  # slabs of 4 planes in 6
    assert read_header(result.best).scores == result.scores


def test_a_validation_part_without_foreground_is_refused(planned: Planned, tables: dict[str, Any]) -> None:
    volume = {**tables["volume"][0], "label_values": {"ignore": [3, 4]}, "split": {"validation": "z:20-24"}}
    with pytest.raises(DataError, match=r"validation part of 'raw\.npy' holds no foreground"):
        fit(planned(volume=[volume]))
    assert not (planned().folder / "training.json").exists()


def test_training_may_start_from_weights_and_takes_their_normaliser(planned: Planned, tables: dict[str, Any]) -> None:
    first = fit(planned({"steps": 4}))
    model = {"weights": str(first.last)}
    tables["normalizer"] = None
    plan = planned({"steps": 1, "folder": "more", "optimizer": {"name": "sgd", "lr": 1e-12}}, model=model)
    second = fit(plan)
    assert read_header(second.last).normalizer == read_header(first.last).normalizer
    assert "parent" in read_header(second.last).provenance
    a, b = load_weights(first.last)["net.0.weight"], load_weights(second.last)["net.0.weight"]
    assert torch.allclose(a, b, atol=1e-9)


def test_the_record_of_a_training_holds_all_settings(planned: Planned) -> None:
    plan = planned()
    interrupted(plan, 1)
    record = json.loads((plan.folder / "training.json").read_text())
    assert record["model"] == {"model": "tiny/tinynet", "width": 4, "context": 0, "dropout": 0.2, "two": False}
    assert record["train"]["optimizer"]["name"] == "adamw"
    assert "workers" not in record["train"]


@pytest.mark.slow
def test_weights_do_not_depend_on_the_number_of_loader_workers(planned: Planned) -> None:
    results = [fit(planned({"folder": f"run{n}", "steps": 3, "workers": n})) for n in (0, 2)]
    assert same(results[0].last, results[1].last)


def test_a_worker_that_was_killed_is_told_with_what_to_change(planned: Planned) -> None:
    with pytest.raises(RunError, match="prepares crops ended") as error, explained(planned(), "cpu"):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
    assert "workers = 0" in error.value.hint
