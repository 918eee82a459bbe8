"""A picture of how far probabilities can be believed."""

from collections.abc import Mapping
from pathlib import Path

from mitocore.durable import replaced
from mitocore.learn.calibration import Reliability

_INCHES, _DPI = 3.6, 150


def draw(path: Path, heads: Mapping[str, Mapping[str, Reliability]]) -> None:
    """Write a PNG with a reliability diagram for each head: what is predicted against what is observed.

    Drawn without a screen, so nothing waits for a window to be closed.

    Parameters
    ----------
    heads
        By head, the curves by name.

    Raises
    ------
    ResourceError
        If the disk is full.
    DataError
        If the file cannot be written for another reason.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((_INCHES * len(heads), _INCHES), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(heads), squeeze=False).ravel().tolist()
    for axes, (head, curves) in zip(panels, heads.items(), strict=True):
        axes.plot((0, 1), (0, 1), color="0.7", linewidth=1)
        for name, curve in curves.items():
            predicted, observed = [row[3] for row in curve.rows], [row[4] for row in curve.rows]
            axes.plot(predicted, observed, marker="o", markersize=3, label=f"{name}: ECE {curve.ece:.3f}")
        axes.set(title=head, xlabel="predicted probability", ylabel="observed share", xlim=(0, 1), ylim=(0, 1))
        axes.legend(fontsize=8, frameon=False, loc="upper left")
    with replaced(path) as file:
        figure.savefig(file, format="png")
