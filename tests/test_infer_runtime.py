"""One contract for every runtime, and what each says when it can't run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from carina.config import Precision, RuntimeKind, RuntimeSettings
from carina.errors import BadConfig, ModelFailed
from carina.infer.runtime import OPENERS, Runtime, open_runtime, with_precision
from carina.models.bundle import Bundle
from open_inference import serving
from tiny_networks import mean_bundle, threshold_bundle


def known(patches: np.ndarray) -> np.ndarray:
    return np.concatenate([40 * patches - 20, 20 - 40 * patches], axis=1)


def difference(patches: np.ndarray) -> np.ndarray:
    return 40 - 80 * patches


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return threshold_bundle(tmp_path / "tiny")


@pytest.fixture(params=list(RuntimeKind))
def runtime(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[Runtime]:
    kind = request.param
    pytest.importorskip("tritonclient" if kind is RuntimeKind.TRITON else str(kind))
    if kind is RuntimeKind.TRITON:
        with serving("tiny", known) as (_, endpoint):
            yield open_runtime(bundle, RuntimeSettings(kind=kind, precision=Precision.F32, endpoint=endpoint))
    else:
        yield open_runtime(bundle, RuntimeSettings(kind=kind, precision=Precision.F32, threads=1))


def test_the_table_is_complete() -> None:
    assert set(OPENERS) == set(RuntimeKind)


@pytest.mark.parametrize("shape", [(1, 1, 8, 9, 10), (3, 1, 4, 4, 4), (1, 1, 16, 4, 2)])
def test_contract_known_answer(runtime: Runtime, shape: tuple[int, ...]) -> None:
    patches = np.random.default_rng(0).random(shape, dtype=np.float32)
    before = patches.copy()
    scores = runtime(patches)
    assert scores.dtype == np.float32
    assert np.allclose(scores, difference(patches), atol=1e-4)
    assert np.array_equal(patches, before)


def test_contract_views_threads_and_results_that_last(runtime: Runtime) -> None:
    rng = np.random.default_rng(1)
    several = [rng.random((6, 5, 4), dtype=np.float32).transpose(2, 1, 0)[None, None] for _ in range(8)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(runtime, several))
    for patches, scores in zip(several, answers, strict=True):
        assert np.allclose(scores, difference(patches), atol=1e-4)


def test_a_classifier_gives_one_row_for_each_patch(tmp_path: Path) -> None:
    runtime = open_runtime(mean_bundle(tmp_path / "mean"))
    scores = runtime(np.stack([np.full((1, 16, 16, 8), v, dtype=np.float32) for v in (0.0, 0.5)]))
    assert np.allclose(scores, [[0, 0], [0, 2]], atol=1e-5)


def test_bf16_is_near(bundle: Bundle) -> None:
    patches = np.random.default_rng(0).random((1, 1, 16, 16, 16), dtype=np.float32)
    scores = open_runtime(bundle, RuntimeSettings(precision=Precision.BF16))(patches)
    assert np.allclose(scores, difference(patches), atol=0.5)


def test_broken_weights_are_named(bundle: Bundle) -> None:
    bundle.onnx.write_bytes(b"no network")
    for kind in (RuntimeKind.OPENVINO, RuntimeKind.ONNXRUNTIME):
        pytest.importorskip(str(kind))
        with pytest.raises(BadConfig, match=r"model\.onnx: the weights can't be loaded"):
            open_runtime(bundle, RuntimeSettings(kind=kind, precision=Precision.F32))


def test_scores_that_are_no_numbers_are_not_passed_on(bundle: Bundle) -> None:
    with pytest.raises(ModelFailed, match="Bundle tiny: the network gave scores that are no finite numbers"):
        open_runtime(bundle)(np.full((1, 1, 4, 4, 4), np.nan, dtype=np.float32))


@pytest.mark.parametrize("kind", list(RuntimeKind))
def test_a_missing_package_says_what_to_install(
    bundle: Bundle, kind: RuntimeKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("openvino", "onnxruntime", "tritonclient", "tritonclient.http"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        BadConfig, match=r"is not installed: pip install ('carina-ct\[[a-z]+\]'|openvino)[ .,]"
    ) as caught:
        open_runtime(bundle, RuntimeSettings(kind=kind, precision=Precision.F32, endpoint="http://127.0.0.1:1"))
    assert caught.value.code == "runtime.not-installed"


class TestTriton:
    @pytest.fixture(autouse=True)
    def _client(self) -> None:
        pytest.importorskip("tritonclient")

    @pytest.mark.parametrize("endpoint", ["", "host:8000", "ftp://host", "http://"])
    def test_an_endpoint_without_a_scheme(self, bundle: Bundle, endpoint: str) -> None:
        with pytest.raises(BadConfig, match=r"expected http://host:8000"):
            open_runtime(bundle, RuntimeSettings(kind=RuntimeKind.TRITON, endpoint=endpoint))

    @pytest.mark.parametrize("scheme", ["http", "grpc"])
    def test_away(self, bundle: Bundle, scheme: str) -> None:
        settings = RuntimeSettings(kind=RuntimeKind.TRITON, endpoint=f"{scheme}://127.0.0.1:9", timeout_s=2)
        with pytest.raises(BadConfig, match=rf"Triton at {scheme}://127\.0\.0\.1:9: no answer .* Start it"):
            open_runtime(bundle, settings)

    def test_not_ready(self, bundle: Bundle) -> None:
        with serving("tiny", known) as (server, endpoint):
            server.ready = False
            with pytest.raises(BadConfig, match="the server is not ready yet"):
                open_runtime(bundle, RuntimeSettings(kind=RuntimeKind.TRITON, endpoint=endpoint))

    def test_lacks_the_model(self, bundle: Bundle) -> None:
        with serving("another", known) as (_, endpoint), pytest.raises(BadConfig, match="it lacks the model 'tiny'"):
            open_runtime(bundle, RuntimeSettings(kind=RuntimeKind.TRITON, endpoint=endpoint))

    def test_served_under_another_name(self, tmp_path: Path) -> None:
        bundle = threshold_bundle(tmp_path / "tiny", served_as="segmentation_ct_lung_v1")
        with serving("segmentation_ct_lung_v1", known) as (server, endpoint):
            runtime = open_runtime(bundle, RuntimeSettings(kind=RuntimeKind.TRITON, endpoint=endpoint))
            assert runtime(np.zeros((1, 1, 2, 2, 2), dtype=np.float32))[0, :, 0, 0, 0].tolist() == [40]
            assert server.requests == 1

    def test_a_failure_during_a_run_is_a_failed_model(self, bundle: Bundle) -> None:
        with serving("tiny", known) as (server, endpoint):
            runtime = open_runtime(bundle, RuntimeSettings(kind=RuntimeKind.TRITON, endpoint=endpoint))
            server.fails = "out of memory"
            with pytest.raises(ModelFailed, match=r"model tiny: the request failed .*out of memory"):
                runtime(np.zeros((1, 1, 2, 2, 2), dtype=np.float32))


def test_auto_is_settled_to_the_arithmetic_that_runs() -> None:
    found = with_precision(RuntimeSettings()).precision
    assert found in (Precision.F32, Precision.BF16)
    assert with_precision(RuntimeSettings(precision=Precision.F32)).precision is Precision.F32
    assert with_precision(RuntimeSettings(kind=RuntimeKind.ONNXRUNTIME)).precision is Precision.F32
