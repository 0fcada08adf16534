"""Constant norms: a voxel's answer depends on what the convolutions reach, and on nothing else in the window."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

if TYPE_CHECKING:
    import onnx
    import torch
else:
    torch = pytest.importorskip("torch", reason="the train extra is not installed")
    onnx = pytest.importorskip("onnx", reason="the train extra is not installed")
pytest.importorskip("monai", reason="the train extra is not installed")

from carina.cases.purpose import Task
from carina.errors import BadConfig
from carina.models.architecture import network_spec
from carina.models.bundle import Bundle, load_bundle
from carina.models.export import check_parity, export_onnx
from carina.models.monai_native import native_network
from carina.models.networks import LESION_NETWORK, build_network
from carina.models.weights import load_weights, read_onnx, trained_network
from carina.train import configure
from carina.train.examples import Example, NamedExample
from carina.train.fit import fresh_inputs
from carina.train.norms import fix_norms
from carina.train.publish import Facts, publish
from carina.train.settings import Device, Patch, TrainSettings
from carina.train.training import How, initialise, start_from

SMALL: dict[str, Any] = {"kind": "segresnet", "init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1], "groups": 4}
CONSTANT = {**SMALL, "norm": "constant"}
SETTINGS = TrainSettings(
    task=Task.LESION,
    name="tiny",
    network=SMALL,
    patches=(Patch(shape=(16, 24, 8), batch=2),),
    window_hu=(-1000.0, 500.0),
    window=(16, 24, 8),
    steps=1,
    settle=3,
    device=Device.CPU,
    tensorboard=False,
)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def _network(spec: dict[str, Any], seed: int = 1) -> torch.nn.Module:
    """A network with weights of no special values, norms included."""
    torch.manual_seed(seed)
    network = build_network(spec)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return network.eval()


def _fixed(spec: dict[str, Any], inputs: torch.Tensor) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A network with group norms, and the one with constants in their places."""
    grouped, constant = _network(spec), build_network({**spec, "norm": "constant"}).eval()
    fix_norms(constant, grouped, [inputs])
    return grouped, constant


def test_on_the_patch_that_gave_the_constants_nothing_changes() -> None:
    patch = torch.rand(1, 1, 16, 24, 8)
    grouped, constant = _fixed(SMALL, patch)
    assert torch.allclose(constant(patch), grouped(patch), atol=1e-5)
    other = torch.rand(1, 1, 16, 24, 8) ** 3
    assert not torch.allclose(constant(other), grouped(other), atol=1e-2)


def test_constants_are_means_over_patches_by_group() -> None:
    batches = [torch.rand(2, 1, 8, 8, 8), torch.rand(1, 1, 8, 8, 8) * 3]
    grouped, constant = _network(SMALL), build_network(CONSTANT)
    fix_norms(constant, grouped, batches)
    maps = torch.cat([grouped.convInit(batch) for batch in batches]).reshape(3, 4, -1)
    state = constant.state_dict()
    name = "down_layers.0.1.norm1"
    assert torch.allclose(state[f"{name}.mean"], maps.mean(dim=2).mean(dim=0).repeat_interleave(2), atol=1e-6)
    variance = maps.var(dim=2, correction=0).mean(dim=0).repeat_interleave(2)
    assert torch.allclose(state[f"{name}.variance"], variance, atol=1e-6)
    with pytest.raises(ValueError, match="there is no patch"):
        fix_norms(constant, grouped, [])


@pytest.mark.parametrize("norm", ["constant", "group"])
def test_what_lies_far_off_changes_no_answer_but_through_group_norm(norm: str) -> None:
    """The published network reaches less than 130 voxels: four levels, 2 to 16 convolutions on each."""
    near, far = torch.rand(1, 1, 320, 8, 8), slice(240, None)
    grouped, constant = _fixed(dict(LESION_NETWORK), near[:, :, :32])
    network = constant if norm == "constant" else grouped
    changed = near.clone()
    changed[:, :, far] = 1.0 - 0.1 * changed[:, :, far]
    difference = (network(near) - network(changed)).abs().amax(dim=(0, 1, 3, 4))
    assert difference[far].min() > 1e-3
    assert (float(difference[:110].max()) == 0) == (norm == "constant")


def test_export_has_no_statistics_and_its_weights_come_back(tmp_path: Path) -> None:
    _, network = _fixed(dict(LESION_NETWORK), torch.rand(2, 1, 32, 48, 16))
    path = tmp_path / "model.onnx"
    export_onnx(network, path, (32, 48, 16))
    check_parity(network, path, (32, 48, 16))
    check_parity(network, path, (64, 48, 32))
    kinds = {node.op_type for node in onnx.load(str(path)).graph.node}
    assert not [kind for kind in kinds if kind.startswith(("Reduce", "Instance", "Group", "Layer"))]
    again = build_network({**LESION_NETWORK, "norm": "constant"}).eval()
    load_weights(again, read_onnx(path), path)
    inputs = torch.rand(1, 1, 16, 16, 16)
    assert torch.equal(again(inputs), network(inputs))


def test_group_norm_stays_the_default_and_monais_own() -> None:
    from monai.networks.nets import SegResNet

    reference = SegResNet(init_filters=8, in_channels=1, out_channels=2).state_dict()
    for spec in (dict(LESION_NETWORK), {**LESION_NETWORK, "norm": "group"}):
        network = build_network(spec)
        assert [(k, v.shape) for k, v in network.state_dict().items()] == [(k, v.shape) for k, v in reference.items()]
        assert native_network(spec) is not None
    assert native_network({**LESION_NETWORK, "norm": "constant"}) is None
    with pytest.raises(BadConfig, match="has no norm 'batch'; known are: group, constant"):
        build_network({**SMALL, "norm": "batch"})


def test_a_state_dictionary_tells_its_norm() -> None:
    for spec in (SMALL, CONSTANT):
        found = network_spec(build_network(spec).state_dict(), {"num_groups": 4}, "weights.pt")
        assert found == {"classes": 2, **spec}


class Grey:
    """Random images, which teach nothing."""

    def draw(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> Example:
        image = rng.random(shape, dtype=np.float32)
        return image, (image > 0.5).astype(np.int64)

    def validation(self) -> Iterator[NamedExample]:
        yield from ()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small network with group norms, as a training leaves it."""
    folder = tmp_path_factory.mktemp("start")
    return publish(_network(SMALL), SETTINGS, Facts(steps=1, data="none"), folder)


def _changed(init: str = "", **network: Any) -> TrainSettings:
    return msgspec.structs.replace(SETTINGS, network={**SETTINGS.network, **network}, init=init)


def test_a_bundle_with_group_norms_starts_a_network_with_constants(bundle: Bundle, tmp_path: Path) -> None:
    settings = _changed(str(bundle.folder), norm="constant", groups=8)
    network = build_network(settings.network)
    initialise(network, settings, Grey(), How())
    grouped, expected = trained_network(bundle), build_network(CONSTANT)
    fix_norms(expected, grouped, list(fresh_inputs(Grey(), settings, torch.device("cpu"))))
    for name, value in expected.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name
    written = publish(network, settings, Facts(steps=1, data="none"), tmp_path)
    assert load_bundle(written.folder).carina.network["norm"] == "constant"
    again = build_network(settings.network)
    initialise(again, _changed(str(written.folder), norm="constant"), Grey(), How())
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    with pytest.raises(BadConfig, match=r"not of this network: .*\.mean"):
        start_from(build_network(SMALL), str(written.folder))


def test_random_weights_get_constants_too() -> None:
    settings = _changed(norm="constant")
    network = build_network(settings.network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    initialise(network, settings, Grey(), How())
    after = network.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items() if not k.endswith(("mean", "variance")))
    assert all(not torch.equal(after[k], v) for k, v in before.items() if k.endswith("mean"))
    other = build_network(SMALL)
    same = {name: value.clone() for name, value in other.state_dict().items()}
    initialise(other, SETTINGS, Grey(), How())
    assert all(torch.equal(other.state_dict()[k], v) for k, v in same.items())


def test_constants_need_batches_to_come_from() -> None:
    changes = ["network={kind='segresnet', norm='constant'}", "settle=0"]
    with pytest.raises(BadConfig, match="settle 0 must be at least 1: constant norms"):
        configure.load_train_settings(Task.LESION, preset="starter", changes=changes)
