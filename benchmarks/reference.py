"""The reference way: MONAI transforms, torch, sliding windows over the whole volume, both channels back, argmax.

It is what the published bundles of these networks do at inference, with the weights of our bundles; a bundle's border
rule, which no published one has, is the same code on both sides.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from monai.data import MetaTensor
from monai.inferers import sliding_window_inference
from monai.transforms import LoadImage, Orientation, ScaleIntensityRange, Spacing
from onnx import numpy_helper
from scipy import ndimage
from stopwatch import Stopwatch

from carina.infer.border import border_moved
from carina.models.bundle import Bundle, Lesion, Lung
from carina.models.lung_rules import Components
from carina.models.networks import build_network


def _initialisers(bundle: Bundle) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of the ONNX file by name, those that an Identity hands on too."""
    graph = onnx.load(str(bundle.onnx)).graph
    stored = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in stored:
            stored[node.output[0]] = stored[node.input[0]]
    return stored


def torch_network(bundle: Bundle) -> torch.nn.Module:
    """The bundle's network in torch, its weights read from the ONNX initialisers by their names."""
    network = build_network(bundle.carina.network).eval()
    stored = _initialisers(bundle)
    wanted = network.state_dict()
    missing = [name for name, v in wanted.items() if name not in stored and "num_batches_tracked" not in name]
    if missing:
        raise SystemExit(f"{bundle.onnx}: lacks the initialisers {missing[:5]}; export it without folding.")
    state = {
        name: torch.tensor(stored[name].astype(np.float32)) if name in stored else value
        for name, value in wanted.items()
    }
    network.load_state_dict(state)
    return network


def read(folder: Path, watch: Stopwatch) -> Any:
    """The series with MONAI's reader: channel first, HU, with its affine."""
    with watch.stage("read"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LoadImage(image_only=True, ensure_channel_first=True, reader="PydicomReader")(str(folder))


def segment(image: Any, bundle: Bundle, watch: Stopwatch) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Labels in the order and shape that the reader gave, ``(x, y, z)``, and the affine to RAS."""
    spec = bundle.carina
    assert isinstance(spec, Lung | Lesion)
    with watch.stage("load network"):
        network = torch_network(bundle)
    with watch.stage("resample"):
        orientation = Orientation(spec.orientation)
        spacing = Spacing(spec.spacing_mm, mode="bilinear")
        spaced = spacing(orientation(image))
        low, high = spec.window_hu
        scaled = ScaleIntensityRange(low, high, 0.0, 1.0, clip=True)(spaced)
    with watch.stage("network"), torch.inference_mode():
        scores = sliding_window_inference(
            scaled[None].as_tensor(),
            spec.original.patch,
            1,
            network,
            overlap=spec.original.overlap,
            mode=str(spec.original.blending),
        )[0]
    with watch.stage("restore"), torch.inference_mode():
        probabilities = MetaTensor(torch.softmax(scores, dim=0)).copy_meta_from(spaced)
        probabilities.applied_operations = list(spaced.applied_operations)
        back = orientation.inverse(spacing.inverse(probabilities))
        labels = back.argmax(dim=0).numpy().astype(np.uint8)
    if spec.components:
        with watch.stage("components"):
            labels = _kept(labels, spec.components)
    affine = np.asarray(image.affine)
    if isinstance(spec, Lung) and spec.border:
        with watch.stage("border"):
            spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
            moved = border_moved(labels.T > 0, np.asarray(image[0]).T, spacing_mm[::-1], spec.border)
            labels = moved.T.astype(np.uint8)
    return labels, affine


def _kept(labels: np.ndarray[Any, Any], rule: Components) -> np.ndarray[Any, Any]:
    pieces, count = ndimage.label(labels, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    best = np.argsort(sizes)[::-1][: min(rule.keep, count)]
    keep = [p for n, p in enumerate(best) if n == 0 or sizes[p] > max(rule.min_voxels, rule.min_share * sizes.max())]
    return np.isin(pieces, keep).astype(np.uint8)


def on_grid(labels: np.ndarray[Any, Any], affine: np.ndarray[Any, Any], grid: Any) -> np.ndarray[Any, Any]:
    """The reader's labels on our grid: both hold the same voxels, perhaps in another order."""
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    move = np.linalg.inv(to_lps) @ grid.affine
    order = np.abs(move[:3, :3]).argmax(axis=0)
    view = labels.transpose(order)
    for axis in range(3):
        if move[order[axis], axis] < 0:
            view = np.flip(view, axis)
    if view.shape != grid.shape or not np.allclose(np.abs(move[:3, :3]).max(axis=0), 1, atol=1e-2):
        raise SystemExit(f"The reference's grid {labels.shape} is not ours {grid.shape}.")
    return view
