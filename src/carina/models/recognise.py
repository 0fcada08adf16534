"""The ``carina`` object of somebody else's package: what its transforms say, put into Carina's words.

What nothing says is asked for, all of it at once; a card gives it. For an MMAR of one of the three published networks
the published description fills the gaps, and every such key is noted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carina.errors import BadConfig
from carina.models.architecture import divisors
from carina.models.foreign import MonaiStep, Package

NOISE_OF_AIR_HU = -950.0
"""A crop to what lies above a window's lower end cuts air away only if that end lies above the noise of air."""

_TASKS = (("covid", ("classif", "diagnos")), ("lesion", ("lesion", "opacit", "infect")), ("lung", ("lung",)))
_LABELS = {
    "lung": {"1": "lung"},
    "lesion": {"1": "lesion"},
    "covid": {"0": "non-COVID-19", "1": "COVID-19"},
}
_WINDOWS = {"patch": [224, 224, 32]}
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "lung": {
        "spacing_mm": [0.8, 0.8, 5.0],
        "window_hu": [-1500.0, 500.0],
        "original": {**_WINDOWS, "overlap": 0.25},
        "restore": "nearest",
        "components": {"keep": 2, "min_voxels": 5000, "min_share": 0.1},
    },
    "lesion": {
        "spacing_mm": [0.8, 0.8, 5.0],
        "window_hu": [-1000.0, 500.0],
        "original": {**_WINDOWS, "overlap": 0.6},
        "restore": "linear",
    },
    "covid": {"window_hu": [-1000.0, 500.0], "size": [192, 192, 64], "margin_voxels": 5, "order": "default"},
}
"""The published models by their task (Clara Train model cards; Clara Deploy's COVID-19 pipeline)."""

_NEEDED = {
    "lung": ("spacing_mm", "window_hu", "original"),
    "lesion": ("spacing_mm", "window_hu", "original"),
    "covid": ("window_hu", "size"),
}


def recognised(
    package: Package, network: Mapping[str, Any], card: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The ``carina`` object of a package, and a sentence for each thing that had to be supposed.

    ``network`` is the specification of its network ({}: unknown, an ONNX file); ``card`` holds keys of the object that
    go before everything else.

    Raises:
        BadConfig: something needed is said nowhere (all of it is listed), or a step can't be done here.
    """
    task = card.get("task") or _task(package, network)
    if not task:
        raise _missing(package, ["task (lung, lesion or covid)"])
    spec: dict[str, Any] = {"task": task, "labels": _labels(package, task), **_from_steps(package, task)}
    supposed, notes = _supposed(package, network, {**spec, **card})
    spec |= {**supposed, **_of_network(network, task), **card}
    if task != "covid" and len(spec["labels"]) > 1:
        spec.setdefault("restore", "nearest")
    missing = [key for key in _NEEDED[task] if key not in spec]
    if missing:
        raise _missing(package, missing)
    return spec, tuple(notes)


def _supposed(
    package: Package, network: Mapping[str, Any], said: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """What a package leaves open and its kind suggests, and a sentence for each."""
    supposed: dict[str, Any] = {}
    if package.kind == "Clara MMAR" and network:
        supposed = {key: value for key, value in PUBLISHED[said["task"]].items() if key not in said}
    notes = [f"{key} = {value}, as published: the package does not say" for key, value in supposed.items()]
    if "orientation" not in {**said, **supposed}:
        supposed["orientation"] = "RAS"
        notes.append("orientation = RAS: the package turns no image, so this is a guess")
    return supposed, notes


def _of_network(network: Mapping[str, Any], task: str) -> dict[str, Any]:
    """The network's specification and what follows from it."""
    if not network:
        return {}
    if task == "covid":
        return {"network": dict(network)}
    sides = divisors(network)
    return {"network": dict(network), "divisor": list(sides) if len(set(sides)) > 1 else sides[0]}


def _missing(package: Package, keys: list[str]) -> BadConfig:
    return BadConfig(
        "import.missing",
        f"{package.source}: this {package.kind} does not say: {', '.join(keys)}. Write them into a file and give it as "
        "--card; docs/bundles.md lists the keys.",
    )


def _task(package: Package, network: Mapping[str, Any]) -> str:
    if network.get("kind") == "densenet121":
        return "covid"
    words = f"{package.words} {' '.join(_channels(package).values())}".lower()
    return next((task for task, signs in _TASKS if any(sign in words for sign in signs)), "")


def _channels(package: Package) -> dict[str, str]:
    outputs = package.metadata.get("network_data_format", {}).get("outputs", {})
    first: Mapping[str, Any] = next(iter(outputs.values()), {})
    return {str(number): str(name) for number, name in first.get("channel_def", {}).items()}


def _labels(package: Package, task: str) -> dict[str, str]:
    channels = _channels(package)
    if task != "covid":
        channels = {number: name for number, name in channels.items() if number != "0"}
    return channels or _LABELS[task]


def _from_steps(package: Package, task: str) -> dict[str, Any]:
    spec: dict[str, Any] = {}
    for step in package.before:
        spec |= _from_step(package, step)
    if task == "covid":
        return spec | _crop(package)
    if "window_hu" in spec and any(step.name == "CropForeground" for step in package.before):
        spec["crop_to_body"] = spec["window_hu"][0] > NOISE_OF_AIR_HU
    return spec | _windows(package) | _reading(package)


def _from_step(package: Package, step: MonaiStep) -> dict[str, Any]:
    """What one step of the preparation says; nothing for those that Carina does by itself."""
    if step.name == "Orientation":
        return {"orientation": _value(package, step, "axcodes")}
    if step.name == "Spacing":
        return {"spacing_mm": [float(side) for side in _value(package, step, "pixdim")]}
    if step.name == "ScaleIntensityRange":
        return {"window_hu": _window(package, step)}
    if step.name in ("NormalizeIntensity", "ScaleIntensity"):
        raise BadConfig(
            "import.step",
            f"{package.source}: {step.name} depends on each image's own values; Carina has a fixed window_hu only. "
            "Say which window to use in --card and take this step out of the package.",
        )
    return {}


def _window(package: Package, step: MonaiStep) -> list[float]:
    low, high = (float(_value(package, step, key)) for key in ("a_min", "a_max"))
    onto = tuple(step.keys.get(key, default) for key, default in (("b_min", 0), ("b_max", 1), ("clip", False)))
    if onto != (0, 1, True):
        raise BadConfig(
            "import.step",
            f"{package.source}: ScaleIntensityRange maps to b_min, b_max, clip = {onto}; Carina maps window_hu to "
            "0 .. 1 and clips. A network trained on another range can't be imported.",
        )
    return [low, high]


def _crop(package: Package) -> dict[str, Any]:
    """A classifier's crop around the lungs, and whether the window comes before the resize."""
    spec: dict[str, Any] = {}
    names = [step.name for step in package.before]
    for step in package.before:
        if step.name == "Resize":
            spec["size"] = [int(side) for side in _value(package, step, "spatial_size")]
        elif step.name == "CropForeground" and "margin" in step.keys:
            spec["margin_voxels"] = int(_value(package, step, "margin"))
    if "Resize" in names and "ScaleIntensityRange" in names:
        early = names.index("ScaleIntensityRange") < names.index("Resize")
        spec["order"] = "default" if early else "naturecomm"
    return spec


def _windows(package: Package) -> dict[str, Any]:
    """MONAI's own defaults: overlap 0.25, constant blending."""
    step = package.inferer
    if step is None or step.name != "SlidingWindowInferer":
        return {}
    overlap = float(_value(package, step, "overlap")) if "overlap" in step.keys else 0.25
    patch = [int(side) for side in _value(package, step, "roi_size")]
    blending = str(step.keys.get("mode", "constant")).lower().rpartition(".")[2]
    return {"original": {"patch": patch, "overlap": overlap, "blending": blending}}


def _reading(package: Package) -> dict[str, Any]:
    """How the scores become labels on the input grid."""
    spec: dict[str, Any] = {}
    order = [step.name for step in package.after]
    if "KeepLargestConnectedComponent" in order:
        spec["components"] = {"keep": 1, "min_voxels": 0, "min_share": 0.0}
    said = [step.keys["nearest_interp"] for step in package.after if _says_interpolation(step)]
    if said:
        spec["restore"] = "nearest" if said[-1] else "linear"
    elif "AsDiscrete" in order:
        is_late = "Invert" in order[: order.index("AsDiscrete")]
        spec["restore"] = "linear" if is_late else "nearest"
    return spec


def _says_interpolation(step: MonaiStep) -> bool:
    return step.name == "Invert" and "nearest_interp" in step.keys


def _value(package: Package, step: MonaiStep, key: str) -> Any:
    """An argument as plain data; one that is code, or a variable that nothing fills, is asked for."""
    found = step.keys.get(key)
    if found is None or (isinstance(found, str) and found[:1] in "$@{"):
        seen = "is not there" if found is None else f"is {found!r}, which is code or a variable; Carina runs neither"
        raise BadConfig(
            "import.step", f"{package.source}: {step.name}.{key} {seen}. Write the value there, as plain data."
        )
    return found
