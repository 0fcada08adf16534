"""Against a real tritonserver: the same masks as in this process, and what the client says when it can't have them."""

from __future__ import annotations

import os
import platform
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import carina
from carina.api.study import RunSettings
from carina.config import Plan, Precision, RuntimeKind, RuntimeSettings, Settings
from carina.errors import BadConfig, ModelFailed
from carina.infer.classify import classify
from carina.infer.runtime import open_runtime
from carina.infer.segment import segment
from carina.models.bundle import Bundle, find_bundle
from carina.models.triton_repository import Backend, write_repository
from carina.operators.catalogue import find_definition
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from carina.testing.ports import free_port
from carina.testing.triton import Triton, triton_folder, tritonserver
from carina.volume.grid import Grid
from carina.volume.volume import Volume
from tiny_networks import mean_bundle, threshold_bundle

IN_PROCESS = RuntimeSettings(precision=Precision.F32, threads=1)
SCHEMES = ("http", "grpc")


@pytest.fixture(autouse=True, scope="module")
def _installed() -> None:
    pytest.importorskip("tritonclient")
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("the wheel nvidia-pytriton has a server for Linux on x86-64 only")
    if triton_folder() is None:
        pytest.skip("tritonserver (the wheel nvidia-pytriton) is not installed; see docs/inference.md")


def served(bundle: Bundle, repository: Path) -> Bundle:
    """The bundle in the repository, run by one thread, so that the server's helpers always find a core."""
    config = write_repository(bundle, repository, backend=Backend.PYTHON, max_batch=2) / "config.pbtxt"
    config.write_text(config.read_text().replace('key: "threads" value { string_value: "0" }', THREADS))
    return bundle


THREADS = 'key: "threads" value { string_value: "1" }'


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """Bundles by name: ``absent`` is in no repository, ``idle`` is not loaded, ``other`` is not what is served."""
    folder = tmp_path_factory.mktemp("bundles")
    threshold = {name: threshold_bundle(folder / name) for name in ("tiny", "broken", "gpu", "idle", "absent")}
    other = threshold_bundle(folder / "other", served_as="mean")
    return {**threshold, "mean": mean_bundle(folder / "mean"), "other": other}


@pytest.fixture(scope="module")
def server(bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A server with models that work, and some that can't be loaded."""
    repository = tmp_path_factory.mktemp("repository")
    for name in ("tiny", "mean", "broken", "idle"):
        served(bundles[name], repository)
    write_repository(bundles["gpu"], repository)  # for a backend that this server lacks
    (repository / "broken" / "1" / "model.onnx").write_bytes(b"no network")
    with tritonserver(repository, load=("tiny", "mean", "broken", "gpu"), wait_for="live", timeout_s=300) as running:
        yield running


def asking(server: Triton, scheme: str, timeout_s: float = 60.0) -> RuntimeSettings:
    return RuntimeSettings(kind=RuntimeKind.TRITON, endpoint=getattr(server, scheme), timeout_s=timeout_s)


@cache
def chest() -> Volume:
    """A phantom made so small that one window holds it: 32 slices of 224 x 224 at 5 x 0.8 x 0.8 mm."""
    phantom = chest_phantom(shape=(32, 224, 224), lesions=3, seed=4).volume
    grid = Grid(shape=phantom.grid.shape, spacing_mm=(5.0, 0.8, 0.8), origin_mm=phantom.grid.origin_mm)
    return Volume(hu=phantom.hu, grid=grid, uid="1.2.3")


@pytest.mark.parametrize("scheme", SCHEMES)
class TestAnswers:
    def test_a_mask_is_that_of_this_process(self, server: Triton, bundles: dict[str, Bundle], scheme: str) -> None:
        volume, bundle = chest(), bundles["tiny"]
        here = segment(volume, bundle, open_runtime(bundle, IN_PROCESS), Plan.FAST)
        there = segment(volume, bundle, open_runtime(bundle, asking(server, scheme)), Plan.FAST)
        assert 0 < np.count_nonzero(here.labels) < here.labels.size
        assert np.array_equal(here.labels, there.labels)

    def test_probabilities_are_those_of_this_process(
        self, server: Triton, bundles: dict[str, Bundle], scheme: str
    ) -> None:
        volume = chest()
        lung = segment(volume, bundles["tiny"], open_runtime(bundles["tiny"], IN_PROCESS), Plan.FAST)
        here, there = (
            classify(volume, lung, bundles["mean"], open_runtime(bundles["mean"], settings))
            for settings in (IN_PROCESS, asking(server, scheme))
        )
        assert here == pytest.approx(there, abs=1e-6)

    def test_windows_of_the_published_size_and_larger(
        self, server: Triton, bundles: dict[str, Bundle], scheme: str
    ) -> None:
        """19 MB there, as much back (a server sends 38): far more than gRPC's own limit of 4 MB."""
        patches = np.random.default_rng(0).random((1, 1, 224, 224, 96), dtype=np.float32)
        scores = open_runtime(bundles["tiny"], asking(server, scheme))(patches)
        assert np.allclose(scores, 40 - 80 * patches, atol=1e-4)

    def test_more_patches_than_the_server_takes_at_once(
        self, server: Triton, bundles: dict[str, Bundle], scheme: str
    ) -> None:
        patches = np.random.default_rng(0).random((5, 1, 4, 5, 6), dtype=np.float32)
        scores = open_runtime(bundles["tiny"], asking(server, scheme))(patches)
        assert np.allclose(scores, 40 - 80 * patches, atol=1e-4)

    def test_several_threads(self, server: Triton, bundles: dict[str, Bundle], scheme: str) -> None:
        run = open_runtime(bundles["tiny"], asking(server, scheme))
        several = [np.full((1, 1, 4 + n % 3, 4, 4), n / 16, dtype=np.float32) for n in range(16)]
        with ThreadPoolExecutor(4) as pool:
            for patches, scores in zip(several, pool.map(run, several), strict=True):
                assert np.allclose(scores[:, 1:], 20 - 40 * patches, atol=1e-4)

    def test_a_network_that_fails_says_why(self, server: Triton, bundles: dict[str, Bundle], scheme: str) -> None:
        run = open_runtime(bundles["tiny"], asking(server, scheme))
        with pytest.raises(ModelFailed, match=r"model tiny: the request failed .*Expected \[-1,1,-1,-1,-1\], got"):
            run(np.zeros((1, 3, 4, 4, 4), dtype=np.float32))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("absent", "triton.model", r"it lacks the model 'absent' \(it has broken, gpu, idle, mean, tiny\)"),
        ("broken", "triton.not-ready", r"the model 'broken' is in its repository but not loaded \(.*model\.onnx"),
        ("gpu", "triton.not-ready", r"the model 'gpu' is in its repository but not loaded \(.*onnxruntime"),
        ("idle", "triton.not-ready", r"the model 'idle' is in its repository but not loaded \(nobody asked for it\)"),
        ("other", "triton.weights", r"the model 'mean' has other weights .* than the bundle other 0\.1\.0"),
    ],
)
def test_why_a_model_can_not_be_had(
    server: Triton, bundles: dict[str, Bundle], scheme: str, name: str, code: str, words: str
) -> None:
    with pytest.raises(BadConfig, match=words) as caught:
        open_runtime(bundles[name], asking(server, scheme))
    assert caught.value.code == code


@contextmanager
def hung(server: Triton) -> Iterator[None]:
    """The server's process stands still: its ports are open, and nobody answers."""
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        while any(_state(task) not in "tTZX" for task in Path(f"/proc/{server.process.pid}/task").iterdir()):
            time.sleep(0.01)  # threads on other processors stop a little later
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


def _state(task: Path) -> str:
    """The state of a thread, as the system names it by a letter."""
    return (task / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_that_hangs(server: Triton, bundles: dict[str, Bundle], scheme: str) -> None:
    settings = asking(server, scheme, timeout_s=1.5)
    patches = np.full((1, 1, 4, 4, 4), 0.5, dtype=np.float32)
    run = open_runtime(bundles["tiny"], settings)
    with hung(server):
        with pytest.raises(BadConfig, match=r"no answer within 1\.5 s; .* raise runtime\.timeout_s") as caught:
            run(patches)
        assert caught.value.code == "triton.timeout"
        with pytest.raises(BadConfig, match=r"no answer within 1\.5 s"):
            open_runtime(bundles["tiny"], settings)
    assert np.allclose(run(patches), 0, atol=1e-4)


def test_a_server_that_goes_and_comes_back(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    bundle = served(bundles["tiny"], tmp_path)
    ports = free_port(), free_port()
    patches = np.full((1, 1, 4, 4, 4), 0.5, dtype=np.float32)
    with tritonserver(tmp_path, ports=ports, timeout_s=300) as running:
        settings = [asking(running, scheme) for scheme in SCHEMES]
        runs = [open_runtime(bundle, one) for one in settings]
        for run in runs:
            run(patches)
    for one, run in zip(settings, runs, strict=True):
        with pytest.raises(BadConfig, match=r"model tiny: the connection broke .* Start it again") as caught:
            run(patches)
        assert caught.value.code == "triton.away"
        with pytest.raises(BadConfig, match=rf"Triton at {one.endpoint}: no answer .* Start it"):
            open_runtime(bundle, one)
    with tritonserver(tmp_path, ports=ports, timeout_s=300):
        time.sleep(1.2)  # gRPC asks again within a second
        for run in runs:
            assert np.allclose(run(patches), 0, atol=1e-4)


def test_a_model_that_can_not_be_loaded_is_named_at_the_start(tmp_path: Path, bundles: dict[str, Bundle]) -> None:
    write_repository(bundles["gpu"], tmp_path)
    with pytest.raises(RuntimeError, match=r"tritonserver is not ready; .*gpu"), tritonserver(tmp_path):
        pass


def test_a_whole_run_on_a_server(tmp_path: Path) -> None:
    """The shipped bundles on one server: every mask and finding is that of a run in this process."""
    write_ct_series(chest(), tmp_path / "series")
    text = find_definition("default").read_text()
    image = "{image: carina/ai-covid-19}"
    assert image in text
    definition = tmp_path / "without-saliency.yaml"
    definition.write_text(text.replace(image, f'{image[:-1]}, variables: {{CARINA_SALIENCY: "off"}}}}'))
    for name in ("lung-ahnet", "lung-first-look", "lesion-segresnet", "lesion-first-look", "covid-densenet"):
        served(find_bundle(name), tmp_path / "repository")

    def run(where: str, settings: RuntimeSettings) -> carina.Run:
        how = RunSettings(settings=Settings(runtime=settings), pipeline=definition)
        return carina.run(tmp_path / "series", tmp_path / where, how)

    here = run("here", IN_PROCESS)
    with tritonserver(tmp_path / "repository", timeout_s=300) as running:
        there = run("there", asking(running, "grpc"))
    assert here.findings.iloc[0].lung_ml > 100
    assert here.findings.equals(there.findings)
    assert here.probabilities == pytest.approx(there.probabilities, abs=1e-5)
    for part in ("lung", "lesion"):
        voxels = [sorted((one.folder / part).glob("*.*raw")) for one in (here, there)]
        assert voxels[0] and voxels[0][0].read_bytes() == voxels[1][0].read_bytes()
