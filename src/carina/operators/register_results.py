"""register-results: results go to their destinations, scenes to the viewer's folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec

from carina.config import Settings
from carina.deliver.deliver import deliver
from carina.deliver.folder import deliver_to_folder
from carina.deliver.onward import SENT_FROM, Onward, dicom_files, not_sent_yet
from carina.deliver.receipt import DeliveryReceipt, sop_instance_uid
from carina.errors import BadConfig, DeliveryFailed
from carina.operators.ports import DicomObjects, Scene
from carina.operators.text import one_of, text_list
from carina.pipeline.json_text import as_pretty_json, read_json
from carina.pipeline.operator import Context, Operator, Setting
from carina.pipeline.places import below, copy_whole, file_name, make_below, write_whole

SCU, RENDER = "ClaraSCU", "renderserver"

_SCENE_LOCK = Lock()


def register_results(
    results: DicomObjects | Scene,
    *,
    agent: str,
    destinations: tuple[str, ...] = (),
    settings: Settings,
    context: Context,
    onward: Onward | None = None,
) -> None:
    """Send DICOM objects to the destinations (agent ClaraSCU), or put a scene before the viewer (renderserver).

    On a node, which sends a run's objects itself once it has ended, ``onward`` says where; nothing is sent here. What
    an operator of others left elsewhere is put among them.

    Raises:
        BadConfig: the agent does not take this kind of result.
        DeliveryFailed: a destination did not store every object; every other one was tried.
    """
    if isinstance(results, DicomObjects) and agent == SCU:
        _send(dicom_files(context.saved(results)), destinations, _Way(settings, onward), context)
    elif isinstance(results, Scene) and agent == RENDER:
        _show(context.saved(results)[0], context)
    else:
        kind = "DICOM objects" if isinstance(results, DicomObjects) else "a scene"
        raise BadConfig("register.agent", f"operator '{context.step}': agent {agent} does not take {kind}.")


@dataclass(frozen=True)
class _Way:
    """How objects get to a destination: from here, or on a node not at all."""

    settings: Settings
    onward: Onward | None

    def sends_any(self, names: Sequence[str]) -> bool:
        """Whether the node sends the run's objects to any of these destinations."""
        return self.onward is not None and any(name in self.onward.destinations for name in names)

    def receipt(self, files: Sequence[Path], name: str, context: Context) -> DeliveryReceipt | None:
        """What became of objects; None where the node sends them."""
        folder = below(context.folder, file_name(name))
        if self.onward is None:
            return deliver(files, name, self.settings, folder)
        warning = self.onward.why_not(name, folder.name)
        return deliver_to_folder(files, name, folder, warning=warning) if warning else None


def _send(files: Sequence[Path], destinations: Sequence[str], way: _Way, context: Context) -> None:
    receipts, failed = [], []
    copies = _among_results(files, context) if way.sends_any(destinations) else []
    for name in destinations:
        try:
            receipt = way.receipt(files, name, context)
        except DeliveryFailed as error:
            failed.append(error)
            continue
        if receipt is None:
            continue
        receipts.append(receipt)
        if receipt.warning:
            context.warn(receipt.warning)
            copies += [f"{file_name(name)}/{sent.file}" for sent in receipt.sent]
    context.record("deliveries", receipts)
    context.record("files", copies)
    if len(failed) == 1:
        raise failed[0]
    if failed:
        raise DeliveryFailed("delivery.incomplete", " ".join(error.message for error in failed))


def _among_results(files: Sequence[Path], context: Context) -> list[str]:
    """Copy objects to where the node finds what it sends; gives their places in the run."""
    outside = not_sent_yet(files, context.folder)
    placed = {f"{SENT_FROM}/{context.step}/{file_name(sop_instance_uid(file))}.dcm": file for file in outside}
    for place, file in placed.items():
        target = below(context.folder, place)
        make_below(context.folder, target.parent)
        copy_whole(file, target)
    return list(placed)


def _show(layer_file: Path, context: Context) -> None:
    """Add a layer to the scene that the viewer opens; several operators add theirs to one scene."""
    layer = read_json(layer_file.read_bytes())
    if "not_computed" in layer["layer"]:
        context.record("not_shown", layer["layer"]["not_computed"])
        return
    path = layer_file.with_name("scene.json")
    with _SCENE_LOCK:
        scene = _scene(path)
        if scene.get("volume") != layer["volume"]:
            scene = {
                "notice": layer["notice"],
                "volume": layer["volume"],
                "window_hu": layer["window_hu"],
                "layers": [],
            }
        others = [one for one in scene["layers"] if one["name"] != layer["layer"]["name"]]
        scene["layers"] = sorted([*others, layer["layer"]], key=lambda one: (one["order"], one["name"]))
        write_whole(path, as_pretty_json(scene))
    if path.is_relative_to(context.folder):  # an operator by itself has its input elsewhere
        context.record("files", [path.relative_to(context.folder).as_posix()])


def _scene(path: Path) -> dict[str, Any]:
    """The scene so far; a file that is no scene, because it was cut, is begun anew."""
    try:
        scene = read_json(path.read_bytes(), dict[str, Any])
        layers = msgspec.convert(scene.get("layers"), list[dict[str, Any]])
    except (FileNotFoundError, ValueError):
        return {}
    return scene if all({"name", "order"} <= layer.keys() for layer in layers) else {}


OPERATOR = Operator(
    name="register-results",
    images=("clara/register-results", "carina/register-results"),
    function=register_results,
    inputs={"/input": "results"},
    options={
        "--agent": Setting(parameter="agent", read=one_of(SCU, RENDER), meaning="ClaraSCU or renderserver"),
        "--data": Setting(parameter="destinations", read=text_list, meaning="names of destinations, a JSON list"),
    },
)
