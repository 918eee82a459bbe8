"""Commands, options and help. Imports typer alone; what a command does lies in the modules beside this one."""

# ruff: noqa: ARG001 - the guard around each command reads the context

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

app = typer.Typer(
    name="mitocore",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Segment electron-microscopy volumes with pipelines of plugins.",
    epilog="Volumes are PATH[::KEY], as in em.zarr::volumes/raw. `mitocore COMMAND --help` says more.",
)
weights = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Trained weights under a name.")
app.add_typer(weights, name="weights")


@dataclass(frozen=True)
class Voice:
    """How much is said on the way."""

    verbosity: int = 0
    """-1: errors only; 0: progress and one line per step; 1: per block."""
    traceback: bool = False
    """Whether errors are shown with their traceback."""

    def with_options(self, verbose: int, quiet: bool, traceback: bool) -> "Voice":
        """What these options make of it; those that are not given change nothing."""
        level = -1 if quiet else max(self.verbosity, min(verbose, 1)) if verbose else self.verbosity
        return Voice(level, traceback or self.traceback)


Verbose = Annotated[int, typer.Option("--verbose", "-v", count=True, show_default=False, help="Say more: per block.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show where an error was raised.")]
_VOICE = {"verbose": (Verbose, 0), "quiet": (Quiet, False), "traceback": (Traceback, False)}
"""Options of the program that every command takes, too."""


def command(group: typer.Typer, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command; what it raises is printed as an error for people."""

    def register(body: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(body)
        def guarded(context: typer.Context, verbose: int, quiet: bool, traceback: bool, **options: Any) -> None:
            from mitocore.cli.failures import failures_shown, where_all_is_told

            context.obj = context.obj.with_options(verbose, quiet, traceback)
            with failures_shown(context.obj, where_all_is_told(name, options)):
                body(context, **options)

        signature = inspect.signature(body)
        said = [
            inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for option, (annotation, default) in _VOICE.items()
        ]
        typed: Any = guarded  # typer makes options of the signature
        typed.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *said])
        guarded.__annotations__ = {**body.__annotations__, **{name: option for name, (option, _) in _VOICE.items()}}
        group.command(name)(guarded)
        return body

    return register


File = Annotated[Path, typer.Argument(metavar="FILE", help="TOML file.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="T.K=V", help="Set a key of a table or an option of a step; repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RoiText = Annotated[
    str | None, typer.Option("--roi", metavar="Z,Y,X", help="Only these voxels: three ranges, such as 10:20,:,0:512.")
]
WeightsName = Annotated[
    str, typer.Option("--weights", metavar="NAME|PATH", help="A name of `mitocore weights list`, or a file.")
]
Part = Annotated[
    str | None, typer.Option("--part", metavar="K/N", help="Only the k-th of n shares of the inputs, for job arrays.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Keep what is unchanged of another configuration.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over in the run folder.")]
TakeOver = Annotated[bool, typer.Option("--take-over", help="Take the run folder from a run that is gone.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and print the plan, read no voxel.")]
KindName = Annotated[
    str | None, typer.Option("--kind", help="What the volume holds, where its file does not say: instance, mask …")
]
VoxelSizeText = Annotated[
    str | None,
    typer.Option(
        "--voxel-size",
        metavar="NM",
        help="Voxel size where the file does not say, or is wrong: 8nm, or 40,8,8 in nm (z,y,x).",
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        from mitocore import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    verbose: Verbose = 0,
    quiet: Quiet = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", envvar="MITOCORE_TRACEBACK", help="Show where an error was raised.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the command."""
    del version
    context.obj = Voice().with_options(verbose, quiet, traceback)


def _policy(resume: bool, fresh: bool) -> Literal["continue", "resume", "fresh"]:
    if resume and fresh:
        raise typer.BadParameter("--resume keeps what --fresh discards; give one of them")
    return "resume" if resume else "fresh" if fresh else "continue"


@command(app, "segment")
def segment(
    context: typer.Context,
    *,
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT", help="PATH[::KEY]; several, a quoted pattern, or a folder of volumes."),
    ],
    weights: WeightsName,
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="OUT", help="File or folder to create; {stem} is the input's name."),
    ],
    voxel_size: VoxelSizeText = None,
    roi: RoiText = None,
    settings: Set = None,
    part: Part = None,
    keep_config: Annotated[
        Path | None, typer.Option(metavar="P.TOML", help="Write the pipeline that runs, for `mitocore run`.")
    ] = None,
    resume: Resume = False,
    fresh: Fresh = False,
    take_over: TakeOver = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Segment volumes with what the weights recommend; no TOML file is needed."""
    from mitocore.cli import commands, running

    policy, size = _policy(resume, fresh), commands.voxel_size_of(voxel_size)
    options = running.Options(policy, take_over, dry_run, json, part=part, roi=roi)
    running.segment(context.obj, inputs, weights, output, size, settings or [], keep_config, options)


@command(app, "init")
def init(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="INPUT", help="PATH[::KEY]")],
    weights: WeightsName,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it here instead of printing it.")
    ] = None,
    voxel_size: VoxelSizeText = None,
) -> None:
    """Write the pipeline that weights recommend, every option with its meaning, to be edited."""
    from mitocore.cli import commands, running

    running.init(source, weights, output, commands.voxel_size_of(voxel_size))


@command(app, "run")
def run(
    context: typer.Context,
    *,
    file: File,
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="INPUT", help="PATH[::KEY]; instead of those of the file.")
    ] = None,
    settings: Set = None,
    roi: RoiText = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="STEP", help="Stop after this step; without it, the same command goes on."),
    ] = None,
    save: Annotated[
        list[str] | None,
        typer.Option("--save", metavar="STEP.ARRAY|all", help="Save this instead of what the file says; repeatable."),
    ] = None,
    part: Part = None,
    resume: Resume = False,
    fresh: Fresh = False,
    take_over: TakeOver = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Run a pipeline over one volume or many, or go on where an earlier run was stopped."""
    from mitocore.cli import running

    policy = _policy(resume, fresh)
    options = running.Options(policy, take_over, dry_run, json, part, roi, until, tuple(save or ()))
    running.run(context.obj, file, inputs or [], settings or [], options)


@command(app, "clean")
def clean(
    context: typer.Context, folders: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders.")]
) -> None:
    """Remove the scratch of run folders; output, plan, statistics and record stay."""
    from mitocore.cli import running

    running.clean(folders)


@command(app, "train")
def train(
    context: typer.Context,
    file: File,
    settings: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the training in its folder.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Look before you train: count labels, measure memory and time of a step, draw samples.",
        ),
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="PNG", help="Of --dry-run: the picture. Default: samples.png in the folder."),
    ] = None,
    json: Json = False,
) -> None:
    """Train a network on labelled volumes."""
    from mitocore.cli import training

    if dry_run:
        training.preview(context.obj, file, settings or [], picture, json)
    elif picture:
        raise typer.BadParameter("--picture is drawn by --dry-run; add it")
    else:
        training.train(context.obj, file, settings or [], resume, json)


@command(app, "evaluate")
def evaluate(
    context: typer.Context,
    prediction: Annotated[str, typer.Argument(metavar="PREDICTION", help="PATH[::KEY][:CHANNEL]")],
    truth: Annotated[str, typer.Argument(metavar="TRUTH", help="Labels, PATH[::KEY].")],
    *,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME", help="Repeatable. Default: all that fit."),
    ] = None,
    kind: KindName = None,
    roi: RoiText = None,
    ignore: Annotated[
        list[int] | None,
        typer.Option("--ignore", metavar="VALUE", help="Leave out voxels where the truth has this value. Repeatable."),
    ] = None,
    json: Json = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the scores to a .csv or .json file.")
    ] = None,
    false_positives: Annotated[
        Path | None,
        typer.Option(
            "--false-positives",
            metavar="FILE",
            help="List predicted objects that match no true one in a .csv file, which samplers take as points.",
        ),
    ] = None,
    matches: Annotated[
        Path | None,
        typer.Option(
            "--matches", metavar="FILE", help="List the pairs of objects that overlap in a .csv file, the worst first."
        ),
    ] = None,
    scores: Annotated[
        str | None,
        typer.Option(
            "--scores",
            metavar="PATH[::KEY][:CHANNEL]",
            help="How sure objects are: probabilities, or a .csv file of id and score.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="M.K=V", help="Set an option of a metric; repeatable."),
    ] = None,
) -> None:
    """Score a prediction against the truth."""
    from mitocore.cli import commands

    asked = commands.Asked(metric or [], kind, roi, ignore or [], scores, settings or [], false_positives, matches)
    commands.evaluate(context.obj, prediction, truth, asked, json, output)


@command(app, "validate")
def validate(
    context: typer.Context,
    file: File,
    settings: Set = None,
    no_data: Annotated[
        bool, typer.Option("--no-data", help="Look at no volume; missing weights are only noted.")
    ] = False,
) -> None:
    """Check a pipeline or a training, and print what it would do."""
    from mitocore.cli import commands

    commands.validate(file, settings or [], no_data)


@command(app, "convert")
def convert(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="PATH[::KEY]")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="PATH[::KEY]")],
    voxel_size: VoxelSizeText = None,
    kind: KindName = None,
    roi: RoiText = None,
    scale: Annotated[
        str | None,
        typer.Option("--scale", metavar="Z,Y,X", help="Voxels of the copy per voxel: 1,0.5,0.5 halves y and x."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", metavar="DTYPE", help="Of the copy; labels may become narrower, if they fit."),
    ] = None,
    reader: Annotated[
        str | None,
        typer.Option("--reader", metavar="NAME", help="One of `mitocore describe reader`. Default: by suffix."),
    ] = None,
    writer: Annotated[
        str | None,
        typer.Option("--writer", metavar="NAME", help="One of `mitocore describe writer`. Default: by suffix."),
    ] = None,
) -> None:
    """Copy a volume into another format."""
    from mitocore.cli import commands

    commands.convert(context.obj, source, target, voxel_size, kind, roi, scale, dtype, reader, writer)


@command(app, "demo")
def demo(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME")] = "mito",
    list_: Annotated[bool, typer.Option("--list", help="List the demos of the installed plugins.")] = False,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where results go.")] = Path(
        "mitocore-demo"
    ),
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over in the folder.")] = False,
) -> None:
    """Segment a synthetic volume and report the scores."""
    from mitocore.cli import commands, listings

    if list_:
        listings.demos()
    else:
        commands.demo(context.obj, name, output, fresh)


@command(app, "plugins")
def plugins(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only this plugin or component.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Check every component against its interface.")] = False,
    json: Json = False,
) -> None:
    """List the installed plugins and what they provide, or check that they keep what they promise."""
    from mitocore.cli import listings

    if check:
        listings.check_plugins(name, json)
    else:
        listings.plugins(name, json)


@command(app, "new-plugin")
def new_plugin(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower-case words joined by hyphens.")],
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help="model, postprocessor, reader …")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where it is made.")] = Path(),
) -> None:
    """Write a plugin that works, with tests that pass, to be edited."""
    from mitocore.cli import commands

    commands.new_plugin(name, kind, output)


@command(app, "describe")
def describe(
    context: typer.Context,
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help="model, reader, postprocessor …")] = None,
    name: Annotated[str | None, typer.Argument(metavar="NAME")] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print JSON schema: of one, of a kind, or of a whole pipeline.toml.")
    ] = False,
) -> None:
    """Describe a component; all of a kind; or list the components there are."""
    from mitocore.cli import describe as description
    from mitocore.cli import schema as whole

    if schema and kind is None:
        whole.print_schema()
    else:
        description.describe(kind, name, schema)


@command(weights, "add")
def weights_add(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Weights with a header, or a .pth state dict.")],
    name: Annotated[str, typer.Option("--name", metavar="N", help="The name pipelines will use.")],
    model: Annotated[str | None, typer.Option("--model", help="Of a state dict: its model.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="Of a state dict: an option of the model; repeatable."),
    ] = None,
    normalizer: Annotated[
        str | None, typer.Option("--normalizer", help='Of a state dict: NAME, or { normalizer = "…", … } as in TOML.')
    ] = None,
    voxel_size: Annotated[
        str | None, typer.Option(help="Of a state dict: what it was trained at, 8nm or 40,8,8.")
    ] = None,
) -> None:
    """Keep a copy of weights under a name."""
    from mitocore.cli import commands, listings

    listings.add_weights(file, name, model, settings or [], normalizer, commands.voxel_size_of(voxel_size))


@command(weights, "list")
def weights_list(context: typer.Context, json: Json = False) -> None:
    """List the weights that have a name."""
    from mitocore.cli import listings

    listings.weights(json)


@command(weights, "info")
def weights_info(
    context: typer.Context,
    weights: Annotated[str, typer.Argument(metavar="NAME|PATH")],
    json: Json = False,
) -> None:
    """Print what weights say of themselves."""
    from mitocore.cli import listings

    listings.weights_info(weights, json)


@command(weights, "remove")
def weights_remove(context: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Forget weights and delete their copy."""
    from mitocore.cli import listings

    listings.remove_weights(name)
