"""Which of the three networks a state dictionary belongs to, and with which sizes.

Weights tell everything but what has none: the groups of a group norm and the mode of an upsampling. Those come from
the description of the network (a class name of MONAI and its arguments), and what it says otherwise is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from carina.errors import BadConfig

if TYPE_CHECKING:
    from torch import Tensor

_FIRST_KEY = {
    "ahnet": "layer1.0.conv1.weight",
    "segresnet": "convInit.conv.weight",
    "densenet121": "features.conv0.weight",
}
_CLASSES = {"ahnet": "AHNet", "segresnet": "SegResNet", "densenet121": "DenseNet121"}
_FULL_WIDTH = 64


def network_spec(state: Mapping[str, Tensor], declared: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The specification for ``build_network`` of the network that ``state`` belongs to.

    ``declared`` holds what its description says: MONAI's class under ``name``, and its arguments; {} says nothing.
    ``source`` is named in messages.

    Raises:
        BadConfig: it is none of the three networks, or a variant of one that Carina does not build.
    """
    kind = next((kind for kind, key in _FIRST_KEY.items() if key in state), None)
    name = declared.get("name", "")
    if kind is None or (name and str(name).lower() != kind):
        known = ", ".join(_CLASSES.values())
        seen = f"the description says {name}" if name else "no description names the network"
        belongs = _CLASSES[kind] if kind else f"none of {known}"
        raise BadConfig(
            "import.network",
            f"{source}: {seen}, the weights belong to {belongs}. Carina takes {known} in 3D; export another network to "
            "ONNX and import that with a card.",
        )
    for argument, value in declared.items():
        _check(argument, value, kind, source)
    readers: dict[str, Callable[[Mapping[str, Tensor], Mapping[str, Any]], dict[str, Any]]] = {
        "ahnet": _ahnet,
        "segresnet": _segresnet,
        "densenet121": _densenet121,
    }
    try:
        return {"kind": kind, **readers[kind](state, declared)}
    except KeyError as error:
        raise BadConfig(
            "weights.keys",
            f"{source}: the weights lack {error.args[0]}, which {_CLASSES[kind]} has. Is the file whole?",
        ) from error


_NEEDED: dict[str, dict[str, tuple[Any, ...]]] = {
    "ahnet": {
        "spatial_dims": (3,),
        "in_channels": (1,),
        "progestive_growing": (False,),
        "layers": ([3, 4, 6, 3],),
    },
    "segresnet": {
        "spatial_dims": (3,),
        "upsample_mode": ("nontrainable",),
        "use_conv_final": (True,),
        "in_channels": (1,),
        "norm_name": ("group",),
        "act": ("relu", "RELU", ["RELU", {"inplace": True}]),
    },
    "densenet121": {"spatial_dims": (3,), "in_channels": (1,), "norm": ("batch", "BATCH"), "act": ("relu", "RELU")},
}
"""Arguments that a description may state, with the values that Carina builds."""


def _check(argument: str, value: Any, kind: str, source: str) -> None:
    taken = _NEEDED[kind].get(argument)
    if taken is None or value in taken or (isinstance(value, tuple | list) and list(value) in taken):
        return
    if argument == "act" and isinstance(value, list | tuple) and str(value[0]).lower() == "relu":
        return
    raise BadConfig(
        "import.network",
        f"{source}: {_CLASSES[kind]} with {argument}={value!r} is not built here, only with {taken[0]!r}. Export it to "
        "ONNX and import that with a card.",
    )


def _ahnet(state: Mapping[str, Tensor], declared: Mapping[str, Any]) -> dict[str, Any]:
    """Carina's own AH-Net, of any width, where it has neither pyramid pooling nor transposed convolutions."""
    classes = int(state["final.conv.weight"].shape[0])
    pools = sum(key.startswith("psp.project_modules.") and key.endswith(".weight") for key in state)
    mode = "transpose" if "up0.up.weight" in state else str(declared.get("upsample_mode", "trilinear"))
    if not pools and mode == "trilinear":
        return {"classes": classes, "width": int(state["conv1.weight"].shape[0]) / _FULL_WIDTH}
    return {"kind": "ahnet-pyramid", "classes": classes, "psp_block_num": pools, "upsample_mode": mode}


def divisors(network: Mapping[str, Any]) -> tuple[int, int, int]:
    """What the sides ``(x, y, z)`` of a network's input must be divisible by; ``network`` is its specification.

    An AH-Net with pyramid pooling and transposed convolutions pools in the plane over up to 64 voxels, of maps of half
    the input's size (MONAI's ``AHNet``).
    """
    kind = str(network.get("kind"))
    side = 32 if kind.startswith("ahnet") else 1
    if kind == "segresnet":
        side = int(2 ** (len(network.get("blocks_down", (1, 2, 2, 4))) - 1))
    if kind == "ahnet-pyramid" and network["upsample_mode"] == "transpose":
        flat = max(side, 2 ** (network["psp_block_num"] + 3))
        return flat, flat, side
    return side, side, side


def reach(network: Mapping[str, Any]) -> int | None:
    """How many voxels of its input, along each axis, a network's answer at a voxel depends on to either side at most.

    None where it depends on the whole window (group norm), or where nobody has counted. For a SegResNet with constant
    norms: a convolution of 3 voxels adds the spacing of its maps, two in each block and one before each level; a
    linear upsampling adds that of the maps that it takes.
    """
    if network.get("kind") != "segresnet" or network.get("norm") != "constant":
        return None
    down, up = network.get("blocks_down", (1, 2, 2, 4)), network.get("blocks_up", (1, 1, 1))
    levels = range(1, len(down))
    convolutions = 1 + sum(2 * blocks * 2**level for level, blocks in enumerate(down))
    strides = sum(2 ** (level - 1) for level in levels)
    upsamplings = sum(2**level for level in levels)
    decoder = sum(2 * blocks * 2 ** (len(up) - 1 - step) for step, blocks in enumerate(up))
    return int(convolutions + strides + upsamplings + decoder)


def _segresnet(state: Mapping[str, Tensor], declared: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "classes": int(state["conv_final.2.conv.weight"].shape[0]),
        "init_filters": int(state["convInit.conv.weight"].shape[0]),
        "blocks_down": _blocks(state, "down_layers", first=1),
        "blocks_up": _blocks(state, "up_layers", first=0),
        "groups": _groups(declared),
        **({"norm": "constant"} if "conv_final.0.variance" in state else {}),
    }


def _blocks(state: Mapping[str, Tensor], part: str, *, first: int) -> list[int]:
    """How many residual blocks each level has; each begins with its ``conv1``."""
    levels: dict[int, int] = {}
    for key in state:
        words = key.split(".")
        if words[0] == part and words[-3:] == ["conv1", "conv", "weight"]:
            levels[int(words[1])] = levels.get(int(words[1]), 0) + 1
    if not levels:
        raise KeyError(f"{part}.0.{first}.conv1.conv.weight")
    return [levels[level] for level in sorted(levels)]


def _groups(declared: Mapping[str, Any]) -> int:
    norm = declared.get("norm")
    if isinstance(norm, list | tuple) and len(norm) == 2 and isinstance(norm[1], Mapping):
        return int(norm[1].get("num_groups", 8))
    return int(declared.get("num_groups", 8))


def _densenet121(state: Mapping[str, Tensor], declared: Mapping[str, Any]) -> dict[str, Any]:
    return {"classes": int(state["class_layers.out.weight"].shape[0])}
