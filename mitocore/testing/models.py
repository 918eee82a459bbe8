"""What models promise. torch is imported where it is used."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mitocore.geometry import Shape, as_shape
from mitocore.interfaces import Model
from mitocore.specs import Kind
from mitocore.testing.checking import Check, NotChecked, require
from mitocore.testing.elsewhere import heavy_plan
from mitocore.testing.every_component import importable
from mitocore.testing.suite import ComponentTests

if TYPE_CHECKING:
    from torch import Tensor, nn


_LARGE = 300_000  # parameters


def _shape(model: Model, multiples: Shape) -> Shape:
    """A window of so many times the divisor, at least of eight voxels; of a planar model, as thick as it is."""
    window = model.window()
    axes = zip(window.crop, window.divisor, multiples, strict=True)
    z, y, x = (-(-max(2 * c + m * d, 6 + m) // d) * d for c, d, m in axes)
    first = window.shape[0]
    return (first, y, x) if window.planar and first != "all" else (z, y, x)


def _images(model: Model, multiples: Shape = (2, 2, 3), batch: int = 2) -> "Tensor":
    import torch

    shape = (batch, len(model.channels()), *_shape(model, multiples))
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _built(model: Model, seed: int = 0) -> "nn.Module":
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model.build()


def _small(model: Model) -> "nn.Module":
    network = _built(model)
    if (count := sum(values.numel() for values in network.parameters())) > _LARGE:
        raise NotChecked(f"takes minutes with {count:,} parameters: write tests with fewer features")
    return network


def check_plan_is_light(model: Model) -> None:
    """Channels, window and heads are known without torch."""
    kind = importable(type(model))
    heavy = heavy_plan(kind.__module__, kind.__qualname__, model.model_dump_json())
    change = "compute `channels`, `window` and `heads` from the options; import torch inside `build`, `load`, `adapt`"
    require(not heavy, f"window or heads import {', '.join(heavy)}", change)


def check_repeats(model: Model) -> None:
    """In evaluation, equal windows have equal logits, and stay as they are."""
    import torch

    network, images = _built(model).eval(), _images(model)
    given = images.clone()
    with torch.no_grad():
        first, again = network(images), network(given.clone())
    change = "write out = x - 1, not x -= 1: the window belongs to others too"
    require(torch.equal(images, given), "forward changes the window it is given", change)
    change = "use torch.nn.Dropout, which `eval` switches off, and keep nothing from one call to the next"
    for name, logits in first.items():
        seen = f"head {name!r} differs by {float((logits - again[name]).abs().max()):g} when a window is seen again"
        require(torch.allclose(logits, again[name], rtol=1e-4, atol=1e-5), seen, change)


def check_heads(model: Model) -> None:
    """Logits are as `heads` declares: names, channels, shapes, float32, in training and in evaluation."""
    network = _built(model)
    crop = model.window().crop
    for training in (True, False):
        mode = "training" if training else "evaluation"
        network.train(training)
        images = _images(model)
        found = network(images)
        change = "return a mapping of logits by head; mitocore.nn.Named makes one of a plain network"
        require(isinstance(found, Mapping), f"forward returns {type(found).__name__} in {mode}", change)
        heads = [head for head in model.heads() if training or not head.auxiliary or head.name in found]
        names = [head.name for head in heads]
        require(
            sorted(found) == sorted(names), f"forward returns {sorted(found)}, not {sorted(names)}, in {mode}", change
        )
        inner = as_shape(n - 2 * c for n, c in zip(images.shape[2:], crop, strict=True))
        for head in heads:
            logits = found[head.name]
            expected = (len(images), len(head.channels), *inner)
            seen = (
                f"head {head.name!r} is {logits.dtype} of {tuple(logits.shape)}, not float32 of {expected}, in {mode}"
            )
            right = tuple(logits.shape) == expected and str(logits.dtype) == "torch.float32"
            require(right, seen, "mend the network, or channels in `heads` and crop in `window`")
            require(logits.isfinite().all(), f"head {head.name!r} is not finite in {mode}", "look at the normalisation")


def check_windows(model: Model) -> None:
    """Windows of other multiples of `divisor` work: users change the window, and "all" axes are of any length."""
    network = _built(model).eval()
    crop = model.window().crop
    for multiples in ((2, 2, 2), (3, 2, 4), (2, 5, 3)):
        images = _images(model, multiples, batch=1)
        inner = tuple(n - 2 * c for n, c in zip(images.shape[2:], crop, strict=True))
        for name, logits in network(images).items():
            seen = f"head {name!r} is {tuple(logits.shape[2:])} for a window {tuple(images.shape[2:])}"
            require(tuple(logits.shape[2:]) == inner, seen, "let no layer have a fixed size, or enlarge `divisor`")


def check_logits(model: Model) -> None:
    """Heads with an activation return logits, before it: some are beyond 0 and 1."""
    network = _built(model)
    found = network(30 * _images(model))
    for head in model.heads():
        if head.activation != "none" and head.kind in (Kind.PROBABILITY, Kind.AFFINITY) and head.name in found:
            low, high = (float(end) for end in found[head.name].detach().aminmax())
            seen = f"all values of head {head.name!r} lie between {low:g} and {high:g}"
            changes = low < high  # not so where the last layer begins with zeros
            require(not changes or low < 0 or high > 1, seen, "leave sigmoid and softmax to the engine: return logits")


def check_batch(model: Model) -> None:
    """A batch of two equals two of one, in evaluation."""
    import torch

    network, images = _built(model).eval(), _images(model)
    with torch.no_grad():
        together, apart = network(images), [network(images[:1]), network(images[1:])]
    for name, logits in together.items():
        other = torch.cat([part[name] for part in apart])
        seen = f"head {name!r} differs by {float((logits - other).abs().max()):g}"
        change = "let crops of a batch not see each other in evaluation mode"
        require(torch.allclose(logits, other, rtol=1e-3, atol=2e-3), seen, change)  # convolutions sum in other orders


def check_gradient(model: Model) -> None:
    """The gradient reaches every parameter."""
    import torch

    network = _built(model)
    found = network(_images(model))
    rng = torch.Generator().manual_seed(1)
    total = sum((values * torch.randn(values.shape, generator=rng)).mean() for values in found.values())
    torch.autograd.backward(total)
    missing = [name for name, values in network.named_parameters() if values.requires_grad and values.grad is None]
    require(not missing, f"no gradient reaches {', '.join(missing[:3])}", "use every layer, or build fewer")


def check_weights_file(model: Model, folder: Path | None = None) -> None:
    """Tensors and header survive a weights file, and a fresh network with them is the same network."""
    import tempfile

    import torch

    from mitocore.header import WeightsHeader, read_header
    from mitocore.learn.checkpoint import save_weights, trained

    header = WeightsHeader(
        component="plugin/model",
        options=model.model_dump(mode="json"),
        channels=model.channels(),
        heads=model.heads(),
        window=model.window(),
        normalizer={"normalizer": "builtin/percentile"},
    )
    network, images = _built(model).eval(), _images(model)
    with tempfile.TemporaryDirectory(dir=folder) as name, torch.no_grad():
        path = Path(name) / "model.safetensors"
        save_weights(path, network.state_dict(), header)
        require(read_header(path) == header, "the header is another when it is read", "let options be plain values")
        same = type(model).model_validate(read_header(path).options)
        require(same == model, f"the options of the header make {same!r}", "let options survive JSON")
        found, expected = trained(same, path)(images), network(images)
        for head, logits in expected.items():
            change = "keep all that is learnt in parameters and registered buffers, and build the same layers each time"
            require(torch.equal(found[head], logits), f"head {head!r} differs after a weights file", change)


def check_learns(model: Model) -> None:
    """Forty steps on one crop reduce the error of the first head."""
    import torch
    from torch.nn import functional

    network, images = _small(model), _images(model, (2, 3, 3))
    head, crop = model.heads()[0], model.window().crop
    z, y, x = (slice(c, n - c) for n, c in zip(images.shape[2:], crop, strict=True))
    smooth = functional.avg_pool3d(images[:, :1], (1, 3, 3), 1, (0, 1, 1))[:, :, z, y, x]  # a window may be one plane
    truth = (smooth > 0).float() if head.activation != "none" else smooth
    truth = truth.expand(-1, len(head.channels), -1, -1, -1)
    optimiser, losses = torch.optim.Adam(network.parameters(), 0.01), []
    for _ in range(40):
        logits = network(images)[head.name]
        if head.activation == "softmax":
            loss = functional.cross_entropy(logits, truth[:, 0].long().clamp(max=len(head.channels) - 1))
        elif head.activation == "sigmoid":
            loss = functional.binary_cross_entropy_with_logits(logits, truth)
        else:
            loss = functional.mse_loss(logits, truth)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        optimiser.step()
        losses.append(loss.item())
        if losses[-1] < 0.7 * losses[0]:
            return
    seen = f"the error of head {head.name!r} goes from {losses[0]:.3g} to {losses[-1]:.3g} in 40 steps"
    require(losses[-1] < 0.9 * losses[0], seen, "look for dead layers, saturated outputs or a detached graph")


def check_locality(model: Model) -> None:
    """A voxel depends on its surroundings, not on the whole window: else tiles show, and overlap must hide them."""
    import torch

    network = _small(model).eval()
    (z, y, x), divisor = _shape(model, (2, 2, 2)), model.window().divisor[2]
    long = -(-max(x + 20 * divisor, 96) // divisor) * divisor  # U-Nets see about 12 times their divisor
    shape = (1, len(model.channels()), z, y, long)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for name, logits in network(images).items():
        gradient = torch.autograd.grad(logits[..., 0].sum(), images, retain_graph=True)[0]
        seen_from = gradient.abs().amax((0, 1, 2, 3)).nonzero()
        reach = int(seen_from.max()) if len(seen_from) else 0  # nothing, where the last layer begins with zeros
        seen = f"a voxel of head {name!r} depends on voxels {reach} away, in a window of {long}"
        change = (
            "use batch norm instead of instance or group norm, no attention over the window; or say in the tests "
            "expected_failures = {'check_locality': 'why overlap is enough'}"
        )
        require(reach < long - divisor, seen, change)


CHECKS: tuple[Check, ...] = (
    check_plan_is_light,
    check_repeats,
    check_heads,
    check_windows,
    check_logits,
    check_batch,
    check_gradient,
    check_weights_file,
    check_learns,
    check_locality,
)


class ModelTests(ComponentTests):
    """Tests of a model. Set `component`, with few features, so that a forward pass takes a moment.

    ```python
    class TestTinyNet(ModelTests):
        component = TinyNet(width=4)
        expected_failures = {"check_locality": "instance norm, blended by overlap"}
    ```
    """

    checks: ClassVar[tuple[Check, ...]] = CHECKS

    def apply(self, check: Check, component: Any, folder: Path) -> None:
        """Hand `check_weights_file` a folder."""
        if check is check_weights_file:
            check_weights_file(component, folder)
        else:
            super().apply(check, component, folder)
