"""The tables of the pages on moving from other programs: whole, and every line in them is accepted."""

import re
import shlex
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

import mitocore
from mitocore.cli.main import app
from mitocore.component import KINDS
from mitocore.config import toml
from mitocore.config.components import build
from mitocore.config.training import Training
from mitocore.training.planner import plan_training
from mitocore.volumes import installed

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT.parent / "shared" / "reference" / "connectomics_catena.md"
RECIPES = {"catena": "catena_monai_unet.toml", "pytorch-connectomics": "lucchi_semantic.toml"}
PIPELINE = "segment_mito.toml"
CODE = re.compile(r"`([^`]+)`")
NONE = "–"


@dataclass(frozen=True)
class Row:
    """One line of a table: fields of the other program, and what they are here."""

    page: str
    fields: tuple[str, ...]
    here: tuple[str, ...]
    note: str

    def __str__(self) -> str:
        return f"{self.page}: {', '.join(self.fields)}"


@cache
def rows(page: str) -> tuple[Row, ...]:
    """All rows of the tables of a page that have a column "here"."""
    found, here = [], None
    for line in (ROOT / "docs" / "how-to" / f"moving-from-{page}.md").read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            here = None
        elif "here" in cells:
            here = cells.index("here")
        elif here and set(line) - set("|-: "):
            fields, lines = tuple(CODE.findall(cells[0])), tuple(CODE.findall(cells[here]))
            assert fields, line
            assert lines or cells[here] == NONE, line
            found.append(Row(page, fields, lines, cells[-1]))
    return tuple(found)


ROWS = [row for page in RECIPES for row in rows(page)]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that lines name."""
    monkeypatch.chdir(tmp_path)
    for name in ("catena.pth", "checkpoint.pth.tar"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def built(line: str) -> None:
    """Build the component that `{ KIND = "name", … }` stands for."""
    table: dict[str, Any] = tomllib.loads(f"table = {line}")["table"]
    kind = next(kind for kind in KINDS if kind in table)
    files = {"path": "volume.zarr"} if kind in ("reader", "writer") else {}
    build(kind, {**table, **files}, installed())


def checked_command(line: str) -> None:
    """Refuse a command, or an option of it, that there is not."""
    words = shlex.split(line)[1:]
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known, line


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("row", [row for row in ROWS if row.here], ids=str)
def test_every_line_of_a_table_is_accepted(row: Row) -> None:
    training, pipeline = [], []
    for line in row.here:
        if line.startswith("mitocore "):
            checked_command(line)
        elif line.startswith("{"):
            built(line)
        else:
            tomllib.loads(line)
            root = re.split(r"[.= ]", line)[0]
            (training if root in Training.model_fields else pipeline).append(line)
    if training:
        recipe = ROOT / "examples" / RECIPES[row.page]
        plan_training(toml.read(recipe, training), installed(), data=False)
    if pipeline:
        mitocore.load(ROOT / "examples" / PIPELINE, pipeline, data=False)


@pytest.mark.parametrize("row", [row for row in ROWS if not row.here], ids=str)
def test_a_field_that_is_gone_has_a_reason(row: Row) -> None:
    assert len(row.note) > 15


@pytest.mark.parametrize("page", RECIPES)
def test_components_in_notes_exist(page: str) -> None:
    text = (ROOT / "docs" / "how-to" / f"moving-from-{page}.md").read_text("utf-8")
    for line in CODE.findall(text):
        if line.startswith("{ "):
            built(line)
        elif line.startswith("mitocore "):
            checked_command(line)


CATENA = """
exp_name train_zarr_dirs test_zarr_dirs label_type epochs batch_size patch_size stride original_res target_res clahe
subsample_frac subsample_number subsample_seed balance_patches min_positive_pixels learning_rate hotstart
learning_rate_after_hotstart_50 loss_type loss_weights rotation_augs contrast_augs model_loc freeze_encoder save_images
eval_interval ckpt_interval num_workers resume_checkpoint
model_path output_dir output_filename output_format model_type
input_prediction_path output_instance_dir chunk_size overlap thres_foreground thres_small_instances scale_factors
remove_small_mode
"""
CONNECTOMICS = """
SYSTEM: NUM_GPUS NUM_CPUS DISTRIBUTED PARALLEL DISTRIBUTED_BACKEND DEBUG
MODEL: ARCHITECTURE BLOCK_TYPE BACKBONE DEPLOY_MODE FILTERS BLOCKS KERNEL_SIZES ATTENTION ISOTROPY TARGET_OPT
 TARGET_OPT_MULTISEG_SPLIT LABEL_EROSION LABEL_DILATION WEIGHT_OPT LOSS_OPTION OUTPUT_ACT LOSS_WEIGHT LOSS_KWARGS_KEY
 LOSS_KWARGS_VAL IN_PLANES OUT_PLANES PAD_MODE NORM_MODE ACT_MODE POOLING_LAYER MIXED_PRECESION EMBEDDING HEAD_DEPTH
 INPUT_SIZE OUTPUT_SIZE REGU_OPT REGU_TARGET REGU_WEIGHT FINETUNE EXACT SIZE_MATCH PRE_MODEL PRE_MODEL_LAYER
 PRE_MODEL_ITER RETURN_FEATS AUX_OUT SWIN_UNETR_FEATURE_SIZE DEPTHS SWIN_UNETR_NUM_HEADS NORM_NAME
 SWIN_UNETR_DROPOUT_RATE ATTN_DROP_RATE DROPOUT_PATH_RATE NORMALIZE USE_CHECKPOINT SPATIAL_DIMS DOWNSAMPLE USE_V2
 UNETR_FEATURE_SIZE HIDDEN_SIZE MLP_DIM UNETR_NUM_HEADS POS_EMBED CONV_BLOCK RES_BLOCK UNETR_DROPOUT_RATE
DATASET: DATA_SCALE IMAGE_SCALE LABEL_SCALE VALID_MASK_SCALE SCALE_FACTOR IMAGE_NAME LABEL_NAME VALID_MASK_NAME
 VAL_IMAGE_NAME VAL_LABEL_NAME VAL_VALID_MASK_NAME VAL_PAD_SIZE LABEL_VAST INPUT_PATH OUTPUT_PATH IS_ABSOLUTE_PATH
 IS_ISOTROPIC DO_2D LOAD_2D DROP_CHANNEL REDUCE_LABEL PAD_SIZE PAD_MODE ENSURE_MIN_SIZE NORMALIZE_RANGE LABEL_BINARY
 LABEL_MAG DO_CHUNK_TITLE DATA_CHUNK_NUM DATA_CHUNK_IND CHUNK_IND_SPLIT DATA_COORD_RANGE DATA_CHUNK_STRIDE
 DATA_CHUNK_ITER VALID_RATIO REJECT_SAMPLING.SIZE_THRES REJECT_SAMPLING.DIVERSITY REJECT_SAMPLING.P
 REJECT_SAMPLING.NUM_TRIAL MEAN STD MATCH_ACT DISTRIBUTED
AUGMENTOR: ENABLED SMOOTH ADDITIONAL_TARGETS_NAME ADDITIONAL_TARGETS_TYPE SKIP ROTATE.ROT90 ROTATE.P
 RESCALE.FIX_ASPECT RESCALE.P FLIP.P FLIP.DO_ZTRANS ELASTIC.P ELASTIC.ALPHA ELASTIC.SIGMA GRAYSCALE.P MISSINGPARTS.P
 MISSINGPARTS.ITER MISSINGSECTION.P MISSINGSECTION.NUM_SECTION MISALIGNMENT.P MISALIGNMENT.DISPLACEMENT
 MISALIGNMENT.ROTATE_RATIO MOTIONBLUR.P MOTIONBLUR.SECTIONS MOTIONBLUR.KERNEL_SIZE CUTBLUR.P CUTBLUR.LENGTH_RATIO
 CUTBLUR.DOWN_RATIO_MIN CUTBLUR.DOWN_RATIO_MAX CUTBLUR.DOWNSAMPLE_Z CUTNOISE.P CUTNOISE.LENGTH_RATIO CUTNOISE.SCALE
 COPYPASTE.AUG_THRES COPYPASTE.P
SOLVER: NAME LR_SCHEDULER_NAME ITERATION_STEP ITERATION_SAVE ITERATION_TOTAL ITERATION_VAL ITERATION_RESTART BASE_LR
 BIAS_LR_FACTOR WEIGHT_DECAY_BIAS MOMENTUM BETAS WEIGHT_DECAY WEIGHT_DECAY_NORM GAMMA STEPS WARMUP_FACTOR WARMUP_ITERS
 WARMUP_METHOD SAMPLES_PER_BATCH CLIP_GRADIENTS.ENABLED CLIP_GRADIENTS.CLIP_TYPE CLIP_GRADIENTS.CLIP_VALUE
 CLIP_GRADIENTS.NORM_TYPE SWA.ENABLED SWA.LR_FACTOR SWA.START_ITER SWA.MERGE_ITER SWA.BN_UPDATE_ITER
MONITOR: LOG_OPT VIS_OPT ITERATION_NUM
INFERENCE: INPUT_SIZE OUTPUT_SIZE TENSORSTORE_PATH INPUT_PATH IMAGE_NAME OUTPUT_PATH OUTPUT_NAME IS_ABSOLUTE_PATH
 DO_CHUNK_TITLE DO_SINGLY DO_SINGLY_START_INDEX DO_SINGLY_STEP PAD_SIZE UNPAD OUTPUT_ACT STRIDE BLENDING AUG_MODE
 AUG_NUM DATA_SCALE OUTPUT_SCALE DO_EVAL TEST_NUM TEST_ID SAMPLES_PER_BATCH
"""


def stated(text: str) -> set[str]:
    """Fields by their whole name, `GROUP.FIELD`."""
    group, found = "", set()
    for word in text.split():
        if word.endswith(":"):
            group = word.replace(":", ".")
        else:
            found.add(group + word)
    return found


@pytest.mark.parametrize(("page", "fields"), [("catena", CATENA), ("pytorch-connectomics", CONNECTOMICS)])
def test_every_field_of_the_other_program_is_in_a_table(page: str, fields: str) -> None:
    assert stated(fields) - {field for row in rows(page) for field in row.fields} == set()


TARGETS = {"0", "0-a-b", "1", "1-1", "2", "2-z-y-x-v1", "2-z-y-x-v2", "3-thr-zr-d", "4-t-1", "4-t-0"}
TARGETS |= {"5-mode-pad-quant-zres-erosion", "6-mode-αf-αb", "7", "7-0", "9-n", "a-quant-z-y-x"}
LOSSES = {"DiceLoss", "WeightedMSE", "WeightedMAE", "WeightedBCE", "WeightedBCEWithLogitsLoss", "WeightedCE"}
LOSSES |= {"WeightedBCEFocalLoss", "WSDiceLoss", "BinaryReg", "FgContourConsistency", "ContourDTConsistency"}
LOSSES |= {"FgDTConsistency", "NonoverlapReg"}


DECODERS = {"binary_connected", "binary_watershed", "bc_connected", "bc_watershed", "bcd_watershed", "stitch_3d"}
DECODERS |= {"polarity2instance", "watershed_split", "remove_large_instances", "merge_small_objects"}
DECODERS |= {"binarize_and_median", "waterz", *(f"thres{n}" for n in ("", 1, 2, 3, 4, 5)), "thres_small", "seed_thres"}
DECODERS |= {"dilation_struct", "remove_small_mode", "scale_factors", "return_seed", "precomputed_seed"}
SCORES = {"get_binary_jaccard", "adapted_rand", "voi", "instance_matching", "cremi_distance", "mAP_3Dvolume"}


@pytest.mark.parametrize("names", [TARGETS, LOSSES, {"'0'", "'1'", "'1-1'", "'2-w0-w1'"}, DECODERS, SCORES], ids=min)
def test_every_option_of_targets_losses_weights_decoders_and_scores_is_in_a_table(names: set[str]) -> None:
    assert names - {field for row in rows("pytorch-connectomics") for field in row.fields} == set()


def test_fields_of_the_recorded_reference_are_in_the_tables() -> None:
    if not REFERENCE.exists():
        pytest.skip("needs ../shared/reference, not present")
    text = REFERENCE.read_text("utf-8")
    training = text.partition("### 1.2 ")[2].partition("### 1.3 ")[0]
    cells = re.findall(r"^\| ([a-z_,/ ]+?) \| ", training, re.MULTILINE)
    fields = {word for cell in cells for word in re.split(r"[ ,/]+", cell)} - {"field"}
    conversion = text.partition("### 1.4 ")[2].partition("### 1.5 ")[0]
    fields |= {word for word in CODE.findall(conversion) if re.fullmatch(r"[a-z]+_[a-z_]+", word)}
    fields -= {"instance_results"}
    assert len(fields) > 30
    assert fields - {field for row in rows("catena") for field in row.fields} == set()
