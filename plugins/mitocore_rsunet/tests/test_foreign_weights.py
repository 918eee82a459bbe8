"""Checkpoints of other programs, written down here by their naming rules, in our networks.

What a checkpoint means is computed here from its tensors one operation at a time, and is what our network must give.
"""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mitocore.learn.initial import take_initial
from mitocore_rsunet.models import FPN, ResidualUNet, RSUNet

PLANE, CUBE, EDGE = (1, 3, 3), (3, 3, 3), (1, 5, 5)


class Tensors(dict):
    """A state dict that is filled layer by layer, with random numbers."""

    def __init__(self):
        super().__init__()
        self.rng = torch.Generator().manual_seed(7)

    def _random(self, *shape):
        shape = torch.Size(shape)
        return torch.randn(shape, generator=self.rng) / max(shape[1:].numel() if len(shape) > 1 else 8, 1) ** 0.5

    def conv(self, name, inputs, outputs, kernel, bias=False, transposed=False):
        first = (inputs, outputs) if transposed else (outputs, inputs)
        self[f"{name}.weight"] = self._random(*first, *kernel)
        if bias:
            self[f"{name}.bias"] = self._random(outputs)

    def norm(self, name, width):
        self[f"{name}.weight"], self[f"{name}.bias"] = 1 + self._random(width), self._random(width)
        self[f"{name}.running_mean"], self[f"{name}.running_var"] = self._random(width), 1 + self._random(width).abs()
        self[f"{name}.num_batches_tracked"] = torch.tensor(3)

    def layer(self, name, inputs, outputs, kernel, early=False):
        self.conv(f"{name}.{2 if early else 0}", inputs, outputs, kernel)
        self.norm(f"{name}.{0 if early else 1}", inputs if early else outputs)

    def block(self, name, kind, inputs, outputs, kernel=PLANE):
        early, excite = kind.endswith("_pa"), "_se" in kind
        inner = f"{name}.conv.0" if excite else f"{name}.conv"
        self.layer(f"{inner}.0", inputs, outputs, kernel, early)
        self.layer(f"{inner}.1", outputs, outputs, kernel, early)
        if excite:
            self[f"{name}.conv.1.fc.0.weight"] = self._random(outputs // 4, outputs)
            self[f"{name}.conv.1.fc.2.weight"] = self._random(outputs, outputs // 4)
        if inputs != outputs:
            self.layer(f"{name}.projector", inputs, outputs, (1, 1, 1))


def unet_3d(filters, isotropy, kind, outputs, plus=False):
    made, kernels = Tensors(), [CUBE if deep else PLANE for deep in isotropy]
    made.layer("conv_in", 1, filters[0], EDGE)
    made.conv("conv_out.0", filters[0], outputs, EDGE, bias=True)
    for level, width in enumerate(filters):
        made.layer(f"down_layers.{level}.1", filters[max(level - 1, 0)], width, kernels[level])
        made.block(f"down_layers.{level}.2", kind, width, width)
    for level, width in enumerate(filters[:-1]):
        made.layer(f"up_layers.{level}.0", filters[level + 1], width, kernels[level + 1])
        made.block(f"up_layers.{level}.1", kind, width, width)
        if plus:
            made.layer(f"feat_layers.{level}", filters[-1], width, (1, 1, 1))
    if plus:
        deep = filters[-1]
        for name in ("g", "theta", "phi"):
            made.conv(f"non_local.{name}", deep, deep // 2, (1, 1, 1), bias=True)
        made.conv("non_local.W.0", deep // 2, deep, (1, 1, 1), bias=True)
        made.norm("non_local.W.1", deep)
    return dict(made)


def fpn_3d(filters, isotropy, blocks, kind, outputs):
    made, kernels = Tensors(), [CUBE if deep else PLANE for deep in isotropy]
    made.layer("backbone.layer0", 1, filters[0], EDGE)
    for level, count in enumerate(blocks, start=1):
        for number in range(count):
            inputs = filters[level if number else level - 1]
            made.block(f"backbone.layer{level}.{number}", kind, inputs, filters[level], kernels[level])
    for level, width in enumerate(filters):
        made.layer(f"latlayers.{level}", width, filters[0], (1, 1, 1))
        made.layer(f"smooth.{level}", filters[0], filters[0], kernels[level])
    made.conv("conv_out.0", filters[0], outputs, EDGE, bias=True)
    return dict(made)


def rs_unet(widths):
    made = Tensors()

    def module(name, inputs, outputs):
        for number in (1, 2, 3):
            made.conv(f"{name}.conv{number}", inputs if number == 1 else outputs, outputs, CUBE, bias=True)
            made.norm(f"{name}.bn{number}", outputs)

    stem, a, b, c, d, deepest = widths
    made.conv("conv0", 1, stem, (5, 5, 5), bias=True)
    for name, inputs, outputs in [("1", stem, a), ("2", a, b), ("3", b, c), ("4", c, d), ("_bottleneck", d, deepest)]:
        module(f"conv{name}", inputs, outputs)
    for number, inputs, raised, skip in [(5, deepest, d, c), (6, c, b, b), (7, b, a, a), (8, a, stem, stem)]:
        made.conv(f"up{number}", inputs, raised, (2, 2, 2), bias=True, transposed=True)
        module(f"conv{number}", raised + skip, skip)
    made.conv("conv9", stem, 1, (5, 5, 5), bias=True)
    return dict(made)


class Means:
    """What the layers of a state dict do to features."""

    def __init__(self, state: Mapping[str, Tensor]):
        self.state = state

    def conv(self, name, x, stride=1, mode="replicate", around=None):
        weight = self.state[f"{name}.weight"]
        z, y, x_ = around or [k // 2 for k in weight.shape[2:]]
        padded = functional.pad(x, (x_, x_, y, y, z, z), mode=mode)
        return functional.conv3d(padded, weight, self.state.get(f"{name}.bias"), stride)

    def norm(self, name, x):
        s = self.state
        means = s[f"{name}.running_mean"], s[f"{name}.running_var"], s[f"{name}.weight"], s[f"{name}.bias"]
        return functional.batch_norm(x, *means, eps=1e-5)

    def layer(self, name, x, stride=1, around=None):
        return functional.elu(self.norm(f"{name}.1", self.conv(f"{name}.0", x, stride, around=around)))

    def block(self, name, x):
        """With squeeze and excitation."""
        found = self.norm(f"{name}.conv.0.1.1", self.conv(f"{name}.conv.0.1.0", self.layer(f"{name}.conv.0.0", x)))
        squeezed = functional.elu(found.mean(dim=(2, 3, 4)) @ self.state[f"{name}.conv.1.fc.0.weight"].T)
        scale = torch.sigmoid(squeezed @ self.state[f"{name}.conv.1.fc.2.weight"].T)
        return functional.elu(x + found * scale[..., None, None, None])

    def unet_plus_3d(self, x, steps):
        x = self.layer("conv_in", x)
        skips = []
        for level, step in enumerate(steps):
            x = self.block(f"down_layers.{level}.2", self.layer(f"down_layers.{level}.1", x, step))
            skips.append(x)
        flat = {name: self.conv(f"non_local.{name}", x).flatten(2) for name in ("g", "theta", "phi")}
        alike = torch.einsum("ncv,ncw->nvw", flat["theta"], flat["phi"]).softmax(dim=2)
        seen = torch.einsum("nvw,ncw->ncv", alike, flat["g"]).reshape(x.shape[0], -1, *x.shape[2:])
        x = deepest = x + self.norm("non_local.W.1", self.conv("non_local.W.0", seen))
        for level, skip in reversed(list(enumerate(skips[:-1]))):
            wide = self.layer(f"feat_layers.{level}", deepest, around=(1, 1, 1))
            x = _enlarged(self.layer(f"up_layers.{level}.0", x), skip) + skip + _enlarged(wide, skip)
            x = self.block(f"up_layers.{level}.1", x)
        return self.conv("conv_out.0", x)

    def module(self, name, x):
        first = functional.elu(self.norm(f"{name}.bn1", self.conv(f"{name}.conv1", x, mode="constant")))
        found = functional.elu(self.norm(f"{name}.bn2", self.conv(f"{name}.conv2", first, mode="constant")))
        return functional.elu(self.norm(f"{name}.bn3", self.conv(f"{name}.conv3", found, mode="constant") + first))

    def encoder(self, x):
        found = [functional.elu(self.conv("conv0", x, mode="constant"))]
        for number in (1, 2, 3, 4):
            x = found[-1] if number == 1 else functional.max_pool3d(found[-1], 2)
            found.append(self.module(f"conv{number}", x))
        return [*found, self.module("conv_bottleneck", functional.max_pool3d(found[-1], 2))]

    def rs_unet(self, x):
        *skips, _, x = self.encoder(x)
        for number, skip in zip((5, 6, 7, 8), reversed(skips), strict=True):
            weight, bias = self.state[f"up{number}.weight"], self.state[f"up{number}.bias"]
            x = functional.conv_transpose3d(x, weight, bias, stride=2)
            z, y, w = ((have - want) // 2 for have, want in zip(skip.shape[2:], x.shape[2:], strict=True))
            middle = skip[:, :, z:, y:, w:][:, :, : x.shape[2], : x.shape[3], : x.shape[4]]
            x = self.module(f"conv{number}", torch.cat([x, middle], dim=1))
        return self.conv("conv9", x, mode="constant")


def _enlarged(x, like):
    return functional.interpolate(x, like.shape[2:], mode="trilinear", align_corners=True)


def file_of_connectomics(folder, state):
    path = folder / "checkpoint_100000.pth.tar"
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    optimizer = {"state": {0: {"step": 5, "momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.04}]}
    schedule = {"base_lrs": [0.04], "last_epoch": 100000, "warmup_method": "linear"}
    content = {"iteration": 100000, "state_dict": wrapped, "optimizer": optimizer, "lr_scheduler": schedule}
    torch.save(content, path)
    return path


def file_of_catena(folder, state):
    path = folder / "test_epoch80_iou0.8123.pth"
    content = {"epoch": 79, "model_state_dict": state, "optimizer_state_dict": {"state": {}, "param_groups": []}}
    torch.save({**content, "best_iou": 0.8123, "run_losses": [0.4, 0.3], "test_losses": [0.5]}, path)
    return path


DEFAULT = ((28, 36, 48, 64, 80), (False, False, False, True, True))
SMALL = {"filters": (4, 8, 12), "isotropy": (False, False, True)}


@pytest.mark.parametrize(
    ("state", "model"),
    [
        (unet_3d(*DEFAULT, "residual_se", 1), ResidualUNet()),
        (
            unet_3d((32, 64, 96, 128, 160), DEFAULT[1], "residual_se", 2, plus=True),
            ResidualUNet(filters=(32, 64, 96, 128, 160), plus=True, outputs="bc"),
        ),
        (unet_3d(*SMALL.values(), "residual", 3), ResidualUNet(**SMALL, block_type="residual", outputs="a")),
        (unet_3d(*SMALL.values(), "residual_pa", 1), ResidualUNet(**SMALL, block_type="residual_pa")),
        (unet_3d(*SMALL.values(), "residual_se_pa", 1), ResidualUNet(**SMALL, block_type="residual_se_pa")),
        (fpn_3d(*DEFAULT, (2, 2, 2, 2), "residual", 1), FPN(block="residual")),
        (fpn_3d(*SMALL.values(), (1, 3), "residual_se", 4), FPN(**SMALL, blocks=(1, 3), outputs="ac")),
    ],
    ids=["unet_3d", "unet_plus_3d BC", "residual", "residual_pa", "residual_se_pa", "fpn_3d", "fpn_3d blocks"],
)
def test_every_tensor_of_a_checkpoint_of_pytorch_connectomics_has_its_place(tmp_path, state, model):
    network = model.build()
    report = take_initial(network, model, file_of_connectomics(tmp_path, state))
    assert (report.missing, report.mismatched, report.unknown) == ((), (), ())
    assert len(report.matched) == len(state) == len(network.state_dict())


def test_a_checkpoint_of_pytorch_connectomics_gives_what_it_gives_there(tmp_path):
    state = unet_3d(*SMALL.values(), "residual_se", 2, plus=True)
    model = ResidualUNet(**SMALL, plus=True, outputs="bc")
    network = model.build().eval()
    take_initial(network, model, file_of_connectomics(tmp_path, state))
    x = torch.randn(2, 1, 5, 17, 33, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = Means(state).unet_plus_3d(x, [1, (1, 2, 2), 2])
        found = torch.cat(list(network(x).values()), dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1


def test_a_checkpoint_of_catena_gives_what_it_gives_there(tmp_path):
    state, model = rs_unet(widths := (2, 3, 4, 5, 6, 7)), RSUNet(widths=(2, 3, 4, 5, 6, 7), catena_compat=True)
    network = model.build().eval()
    report = take_initial(network, model, file_of_catena(tmp_path, state))
    assert (report.missing, report.mismatched, report.unknown) == ((), (), ())
    assert len(report.matched) == len(state) == 201
    assert len(widths) == len(model.widths)
    x = torch.randn(1, 1, 16, 32, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(network(x)["foreground"], Means(state).rs_unet(x), rtol=1e-4, atol=1e-4)


def test_the_encoder_of_catena_serves_the_network_with_aligned_skips(tmp_path):
    state, model = rs_unet((2, 3, 4, 5, 6, 7)), RSUNet(widths=(2, 3, 4, 5, 6, 7))
    network = model.build().eval()
    report = take_initial(network, model, file_of_catena(tmp_path, state))
    encoder = model.parts()["encoder"]
    assert not [name for name in (*report.missing, *report.mismatched) if name.startswith(encoder)]
    x = torch.randn(1, 1, 16, 16, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = network.net.down[0](network.net.stem(x))
        for pool, block in zip(network.net.pool, network.net.down[1:], strict=True):
            features = block(pool(features))
        torch.testing.assert_close(features, Means(state).encoder(x)[-1], rtol=1e-4, atol=1e-4)


def test_options_are_taken_under_the_names_of_pytorch_connectomics():
    theirs = {
        "filters": (8, 16),
        "isotropy": (False, True),
        "block_type": "residual_pa",
        "act_mode": "leaky_relu",
        "norm_mode": "gn",
        "pad_mode": "zeros",
        "pooling_layer": True,
    }
    ours = ResidualUNet(
        widths=(8, 16),
        isotropic=(False, True),
        block="residual_pa",
        act="leakyrelu",
        norm="group",
        groups=8,
        padding="zeros",
        pooling=True,
    )
    assert ResidualUNet(**theirs) == ours
    assert ResidualUNet(act_mode="efficient_swish", norm_mode="sync_bn") == ResidualUNet(act="silu")
