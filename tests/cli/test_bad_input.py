"""What is wrong is said in three lines at most, with the exit code of its family and what to type next."""

import os
import subprocess
import sys

import numpy as np
import pytest


def set_to(work, old, new, file="seg.toml"):
    text = (work / file).read_text()
    assert old in text
    (work / file).write_text(text.replace(old, new))


def test_a_missing_toml_file(work, refused):
    assert "'none.toml'" in refused(5, "run", "none.toml")


def test_a_file_that_is_not_toml(work, refused):
    (work / "bad.toml").write_text("mitocore = = 1")
    assert "not TOML" in refused(3, "run", "bad.toml")


def test_a_missing_path(work, refused):
    set_to(work, "prob.npy", "nothing.npy")
    text = refused(5, "run", "seg.toml")
    assert "nothing.npy' does not exist" in text
    assert "seg.toml:4 [input]" in text


def test_a_missing_key_is_answered_with_the_keys_there_are(work, succeeds, refused):
    succeeds("run", "seg.toml")
    text = refused(5, "evaluate", "out.zarr::cells.instance", "truth.npy")
    assert "cells.instances" in text


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".h5"])
def test_a_truncated_volume(suffix, work, succeeds, refused):
    whole, cut = work / f"whole{suffix}", work / f"cut{suffix}"
    succeeds("convert", "truth.npy", whole, "--kind", "instance")
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert str(cut) in refused(5, "convert", cut, "copy.npy")


def test_a_truncated_weights_file(work, weights_of, refused):
    whole = weights_of(work / "best.safetensors")
    (work / "cut.safetensors").write_bytes(whole.read_bytes()[:-2])
    assert "is truncated" in refused(5, "weights", "info", "cut.safetensors")


def test_labels_that_are_not_integers(work, refused):
    set_to(work, '"truth.npy"', '"prob.npy"', "train.toml")
    text = refused(5, "train", "train.toml")
    assert "holds float" in text
    assert "labels are integers" in text


def test_an_array_that_is_not_numbers(work, refused):
    np.save("prob.npy", np.array([["a", "b"]]))
    assert "holds <U1" in refused(5, "run", "seg.toml")


def test_a_dtype_that_the_format_cannot_hold(work, refused):
    np.save("wide.npy", np.zeros((2, 2, 2), "f8"))
    assert "this format holds" in refused(5, "convert", "wide.npy", "slices/")


def test_image_and_labels_of_different_shape(work, refused):
    np.save("truth.npy", np.ones((24, 40, 30), "u4"))
    text = refused(5, "train", "train.toml")
    assert "(24, 40, 30)" in text
    assert "(24, 40, 40)" in text


def test_prediction_and_truth_of_different_shape(work, refused):
    np.save("truth.npy", np.ones((24, 40, 30), "u4"))
    assert "(24, 40, 30)" in refused(5, "evaluate", "prob.npy", "truth.npy")


def test_an_unknown_option_is_answered_with_the_nearest(work, refused):
    set_to(work, "min_size", "min_sice")
    text = refused(3, "run", "seg.toml")
    assert "seg.toml:14" in text
    assert "did you mean 'min_size'?" in text


def test_an_unknown_option_on_the_command_line(work, refused):
    assert "did you mean 'min_size'?" in refused(3, "run", "seg.toml", "--set", "cells.min_sice=3")


def test_an_unknown_component_is_answered_with_the_nearest(work, refused):
    set_to(work, '"connected_components"', '"connected_component"')
    assert "did you mean 'connected_components'?" in refused(4, "run", "seg.toml")


def test_wiring_that_does_not_fit(work, refused):
    set_to(work, 'kind = "probability"\n', "")
    text = refused(3, "run", "seg.toml")
    assert "needs a probability array" in text
    assert "input.image (image)" in text


def test_a_metric_that_does_not_fit(work, refused):
    text = refused(3, "evaluate", "prob.npy", "truth.npy", "--kind", "probability", "--metric", "voi")
    assert "metric 'voi' compares instance" in text


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--kind", "instances"], "did you mean 'instance'?"),
        (["--roi", "0:99,:,:"], "leaves the volume"),
        (["--metric", "voy"], "did you mean 'voi'?"),
        (["-o", "scores.txt"], "scores.csv"),
        (["-o", "none/scores.csv"], "cannot be written"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_of_evaluate_that_mean_nothing(arguments, word, work, mitocore):
    result = mitocore("-q", "evaluate", "truth.npy", "truth.npy", *arguments)
    assert result.exit_code in (3, 4, 5)
    assert word in result.stderr
    assert result.stderr.count("\n") <= 3


def test_weights_of_another_model(work, weights_of, refused):
    weights_of(work / "best.safetensors", "monai_unet")
    (work / "net.toml").write_text(
        'mitocore = 1\n[input]\npath = "raw.npy"\n[[step]]\nmodel = "rsunet"\nweights = "best.safetensors"\n'
    )
    text = refused(3, "run", "net.toml")
    assert "'rsunet/monai_unet', not 'rsunet'" in text


def test_an_output_that_exists(work, succeeds, refused):
    succeeds("run", "seg.toml")
    text = refused(5, "run", "seg.toml", "--set", "run.folder=elsewhere")
    assert "already holds 'cells.instances'" in text
    assert "exists" in refused(5, "convert", "truth.npy", "raw.npy", "--kind", "instance")


def test_a_run_folder_that_cannot_be_one(work, refused):
    assert "cannot be a run folder" in refused(5, "run", "seg.toml", "--set", "run.folder=prob.npy")


def test_a_voxel_size_that_is_none(work, refused):
    assert "'8 parsec'" in refused(3, "convert", "truth.npy", "copy.npy", "--voxel-size", "8 parsec")


def test_options_that_contradict_each_other_are_a_wrong_command_line(work, mitocore):
    assert mitocore("run", "seg.toml", "--resume", "--fresh").exit_code == 2


def test_every_finding_of_a_file_is_told(work, mitocore):
    set_to(work, "min_size", "min_sice")
    set_to(work, "prob.npy", "prob.tyff")
    for arguments in (["validate", "seg.toml"], ["run", "seg.toml", "--dry-run"]):
        result = mitocore(*arguments)
        assert result.stderr.count("error: ") == 2
        assert result.exit_code == 5  # of the first, which stands highest in the file


def test_what_works_tells_the_first_finding_and_where_all_are_told(work, refused):
    set_to(work, "min_size", "min_sice")
    set_to(work, "prob.npy", "prob.tyff")
    text = refused(5, "run", "seg.toml", "--set", "run.workers=0")
    assert text.splitlines()[-1] == "note: and 1 more: mitocore validate seg.toml --set run.workers=0 shows all"
    text = refused(5, "run", "seg.toml", "--until", "threshold")
    assert text.splitlines()[-1] == "note: and 1 more: the same command with --dry-run shows all"
    set_to(work, "steps = 2", "steps = 0\nbatch = 0", "train.toml")
    set_to(work, "batch = 1\n", "", "train.toml")
    assert "note: and 1 more: mitocore validate train.toml" in refused(3, "train", "train.toml")


def test_a_file_for_the_other_command_is_answered_with_that_command(work, refused):
    text = refused(3, "run", "train.toml")
    assert text == "error: 'train.toml' is a training, not a pipeline\n  hint: mitocore train train.toml\n"
    text = refused(3, "train", "seg.toml")
    assert text == "error: 'seg.toml' is a pipeline, not a training\n  hint: mitocore run seg.toml\n"


def test_options_before_and_behind_the_command_add_up():
    from mitocore.cli.main import Voice

    assert Voice().with_options(2, False, False) == Voice(1)
    assert Voice(1, traceback=True).with_options(0, False, False) == Voice(1, traceback=True)
    assert Voice(1).with_options(0, True, True) == Voice(-1, traceback=True)


def test_options_of_the_program_may_stand_behind_the_command(work, mitocore, refused):
    result = mitocore("run", "seg.toml", "-q")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "hint" in refused(5, "evaluate", "none.npy", "truth.npy", "-q")
    assert "Traceback" in mitocore("run", "none.toml", "--traceback").stderr
    assert mitocore("run", "seg.toml", "-v").exit_code == 0
    assert "[default: 0]" not in mitocore("--help").stdout + mitocore("run", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["convert", "truht.npy", "x.npy"], "did you mean 'truth.npy'?"),
        (["evaluate", "truth.npy", "truht.npy"], "did you mean 'truth.npy'?"),
        (["run", "seg.toml", "porb.npy"], "did you mean 'prob.npy'?"),
        (["run", "seg.toml", "none/prob.npy"], "there is no folder"),
    ],
)
def test_a_path_that_does_not_exist_is_answered_with_the_nearest_names(arguments, hint, work, refused):
    assert hint in refused(5, *arguments, "-q")


def test_a_copy_can_name_its_reader_and_writer(work, succeeds, refused):
    pytest.importorskip("mitocore_io")
    succeeds("convert", "truth.npy", "tiffs/", "--kind", "instance", "--writer", "tiff-slices")
    assert len(list((work / "tiffs").glob("*.tif"))) == 24
    (work / "truth.npy").rename("truth.array")
    assert "--reader NAME of convert" in refused(4, "-q", "convert", "truth.array", "copy.zarr")
    assert "24 x 40 x 40" in succeeds("convert", "truth.array", "copy.zarr", "--reader", "npy")
    assert "did you mean 'npy'?" in refused(4, "-q", "convert", "truth.array", "more.zarr", "--reader", "npz")


def test_what_an_option_takes_is_told_with_the_command_that_describes_it(work, refused):
    set_to(work, "min_size = 20", "connectivity = 7")
    text = refused(3, "run", "seg.toml")
    assert "hint: mitocore describe postprocessor connected_components" in text
    assert "input should" not in text.lower()


def test_a_kind_that_is_a_name_is_answered_with_its_kind(work, refused):
    assert "hint: mitocore describe postprocessor threshold" in refused(3, "describe", "threshold")


@pytest.fixture
def plugin(work):
    """Puts a plugin on PYTHONPATH; gives what calls the program with it."""

    def install(name, source, module=None):
        module = module or name
        about = work / "site" / f"{module}-1.0.dist-info"
        about.mkdir(parents=True)
        (work / "site" / f"{module}.py").write_text(source)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[mitocore.v1]\n{name} = {module}\n")
        inherited = os.environ.get("PYTHONPATH", "")
        environment = {**os.environ, "PYTHONPATH": f"{work / 'site'}{os.pathsep}{inherited}"}

        def call(*arguments):
            command = [sys.executable, "-m", "mitocore", *arguments]
            return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

        return call

    return install


def test_a_plugin_that_raises_on_import_hurts_only_those_who_name_it(plugin, work):
    broken_plugin = plugin("bang", 'raise RuntimeError("no licence found")\n')
    listed = broken_plugin("plugins")
    assert listed.returncode == 0
    assert "bang is broken: RuntimeError: no licence found" in listed.stdout
    assert "connected_components" in listed.stdout
    assert broken_plugin("-q", "run", "seg.toml").returncode == 0
    set_to(work, '"threshold"', '"bang/threshold"')
    done = broken_plugin("run", "seg.toml")
    assert done.returncode == 4
    assert "no licence found" in done.stderr
    assert done.stderr.count("\n") <= 3
    assert "Traceback" not in done.stderr


def test_a_traceback_is_shown_to_those_who_ask(work, mitocore):
    result = mitocore("--traceback", "run", "none.toml")
    assert result.exit_code == 5
    assert "Traceback" in result.stderr
    assert "error: 'none.toml'" in result.stderr


def test_a_truncated_zarr_array(work, succeeds, refused):
    succeeds("convert", "prob.npy", "cut.zarr", "--kind", "probability")
    for chunk in (path for path in (work / "cut.zarr").rglob("*") if path.is_file() and path.name != "zarr.json"):
        chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])
    assert "cut.zarr" in refused(5, "-q", "convert", "cut.zarr", "copy.npy")


def test_a_truncated_slice(work, succeeds, refused):
    succeeds("convert", "raw.npy", "slices/")
    cut = sorted((work / "slices").glob("*.png"))[3]
    cut.write_bytes(cut.read_bytes()[:60])
    assert cut.name in refused(5, "-q", "convert", "slices/", "copy.npy")


def test_a_volume_without_a_voxel(work, refused):
    np.save("prob.npy", np.zeros((0, 8, 8), "f4"))
    assert "prob.npy" in refused(5, "run", "seg.toml")


def test_a_volume_of_one_slice_is_a_volume(work, succeeds):
    np.save("prob.npy", np.load("prob.npy")[12])
    assert "1 x 40 x 40" in succeeds("run", "seg.toml")


def test_an_image_without_a_number_is_refused(network, refused):
    np.save("raw.npy", np.full((12, 16, 16), np.nan, "f4"))
    assert "finite" in refused(5, "-q", "segment", "raw.npy", "--weights", "net.safetensors", "-o", "mito.npy")


def test_a_voxel_size_that_is_needed_but_unknown(work, refused):
    set_to(work, "voxel_size = 8\n", "")
    set_to(work, "min_size = 20", 'min_size = "0.002 um3"')
    text = refused(3, "run", "seg.toml")
    assert "needs the voxel size" in text
    assert "hint: voxel_size" in text


def test_weights_of_another_voxel_size(work, weights_of, refused):
    from mitocore.geometry import VoxelSize

    weights_of(work / "best.safetensors", header={"voxel_size": VoxelSize(40, 40, 40)})
    (work / "net.toml").write_text(
        'mitocore = 1\n[input]\npath = "raw.npy"\nvoxel_size = 8\n[[step]]\nweights = "best.safetensors"\n'
    )
    assert "trained at 40 x 40 x 40 nm" in refused(3, "run", "net.toml")


def test_two_runs_on_one_folder(work, succeeds, refused):
    from mitocore.blockwise.lock import RunLock

    succeeds("run", "seg.toml")
    with RunLock(work / "runs/seg"):
        assert "in use" in refused(8, "run", "seg.toml")


def test_a_full_disk(work):
    np.save("prob.npy", np.random.default_rng(0).random((24, 40, 40), "f4"))
    block = "--set run.block=[24,40,40]"
    command = f"ulimit -f 16; exec {sys.executable} -m mitocore -q run seg.toml {block}"  # no file above 16 kB
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 6, done.stderr
    assert "free some disk space" in done.stderr
    assert len(done.stderr.splitlines()) <= 3


def test_a_component_of_two_plugins_must_be_named_with_its_plugin(plugin, work):
    call = plugin(
        "twin",
        "from mitocore import hookimpl\n\n\n@hookimpl\ndef mitocore_register(registry):\n"
        '    registry.add("postprocessor", "threshold", "mitocore.builtin.postprocess:Threshold")\n',
    )
    done = call("run", "seg.toml")
    assert done.returncode == 4
    assert "provided by 2 plugins" in done.stderr
    assert 'hint: write "builtin/threshold" or "twin/threshold"' in done.stderr
    assert done.stderr.count("\n") <= 3
    set_to(work, '"threshold"', '"twin/threshold"')
    set_to(work, '[[step]]\npostprocessor = "twin', '[[step]]\nname = "threshold"\npostprocessor = "twin')
    assert call("-q", "run", "seg.toml").returncode == 0


def test_two_packages_of_one_plugin_name(plugin, work):
    call = plugin("builtin", "def nothing():\n    pass\n", module="other_builtin")
    listed = call("plugins")
    assert listed.returncode == 0
    assert "two installed packages call their plugin 'builtin'" in listed.stdout


@pytest.mark.parametrize(
    ("code", "word", "arguments"),
    [
        (3, "'5/3' is no share of the inputs", ["--part", "5/3", "--set", "output.path={stem}.npy"]),
        (3, "there is one input", ["--part", "1/3"]),
        (3, "did you mean 'threshold'?", ["--until", "treshold"]),
        (3, "did you mean 'cells.instances'?", ["--save", "cells.instance"]),
        (3, "in --save\n", ["--save", "cells.instance"]),
        (3, "in --set ", ["--set", "cells.min_sice=3"]),
        (3, "'{stm}' in 'x{stm}.npy' stands for nothing", ["--set", "output.path=x{stm}.npy"]),
        (3, "is the input itself", ["--set", "output.path=prob.npy"]),
        (3, "leaves the volume", ["--roi", "0:99,:,:"]),
        (5, "nothing matches 'none*.npy'", ["none*.npy", "--set", "output.path={stem}.npy"]),
        (3, "2 inputs cannot share one output", ["prob.npy", "raw.npy"]),
        (3, "1 input cannot share one output", ["pro*.npy"]),
        (3, "no path that gives '{stem}' a name", ["--set", "output.path={stem}.npy", "--set", "input.path=3"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_of_run_that_mean_nothing(code, word, arguments, work, refused):
    assert word in refused(code, "run", "seg.toml", *arguments)
    assert not (work / "runs").exists()


def test_a_folder_that_is_no_run_folder_is_not_cleaned(work, refused):
    (work / "mine").mkdir()
    assert "is not a run folder" in refused(5, "clean", "mine")
    assert "is not a run folder" in refused(5, "clean", "none")


def test_a_plugin_that_is_named_is_listed_alone(work, succeeds, refused):
    lines = succeeds("plugins", "builtin").splitlines()
    assert lines[0].split()[0] == "plugin"
    assert {line.split()[0] for line in lines[1:]} == {"builtin"}
    assert "did you mean 'builtin'?" in refused(4, "plugins", "buildin")


def test_a_plugin_of_an_unknown_kind(work, refused):
    assert "--kind model" in refused(3, "new-plugin", "tinynet", "--kind", "modl")


def test_every_refusal_of_the_real_program_is_short(work):
    for arguments in (
        ["segment", "prob.npy", "--weights", "none", "-o", "x.zarr"],
        ["init", "prob.npy", "--weights", "none"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "mitocore", *arguments], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (5, "")
        assert 1 <= len(done.stderr.splitlines()) <= 3
