"""A network that computes its finest maps only where they are wanted, with the very answers of the whole one.

A U-shaped network ends in a few convolutions of the finest map, in which an upsampled coarser one and a skip are added.
Those convolutions reach two voxels or so; what makes a network look far around itself are the coarser maps. So where
only a part of a window is wanted, the last maps are made for that part alone. On OpenVINO's graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from carina.volume.arrays import Box

_POINTWISE = frozenset({"Add", "BatchNormInference", "Multiply", "Relu", "Subtract"})
"""Operations whose answer at a voxel depends on that voxel alone."""

_FIXED = frozenset({"Constant", "Convert", "Reshape", "Concat", "Broadcast", "ShapeOf"})
"""What weights are made of; of data, none of these is followed."""


def answer_part(model: Any, part: Box) -> bool:
    """Let ``model``, of one output ``(n, channels, x, y, z)`` and static shapes, answer for ``part`` of it alone.

    The model is changed in place. False, and the model as it was, where its graph is not of the kind.
    """
    (result,) = model.get_results()
    scores = result.input_value(0)
    wanted = [(one.start, one.stop) for one in part]
    made = _narrow(scores, wanted)
    if made is None:
        return False
    result.input(0).replace_source_output(_sliced(scores, _within(wanted, made)))
    model.validate_nodes_and_infer_types()
    return True


_Region = Sequence[tuple[int, int]]
"""First voxel, and the one after the last, along ``(x, y, z)``."""


def _narrow(output: Any, wanted: _Region) -> _Region | None:
    """Make of ``output`` little more than ``wanted``; the region it holds then, None where that can't be done."""
    join, reach = _last_join(output)
    if join is None:
        return None
    shape = _sides(output)
    region = [
        (max(first - reach, 0) // 2 * 2, min(-(-(last + reach) // 2) * 2, side))
        for (first, last), side in zip(wanted, shape, strict=True)
    ]
    for port in join.inputs():
        source = port.get_source_output()
        if _kind(source) == "Interpolate":
            port.replace_source_output(_upsampled(source, region))
        else:
            port.replace_source_output(_sliced(source, region))
    return region


def _upsampled(output: Any, region: _Region) -> Any:
    """A ``region`` of what an interpolation to twice the size gives, made of as much of its input as that needs."""
    low = output.get_node().input_value(0)
    needed = [
        (max(first // 2 - 1, 0), min(last // 2 + 1, side))
        for (first, last), side in zip(region, _sides(low), strict=True)
    ]
    made = _narrow(low, needed)
    output.get_node().input(0).replace_source_output(_sliced(low, needed if made is None else _within(needed, made)))
    return _sliced(output, _within(region, [(2 * first, 2 * last) for first, last in needed]))


def _last_join(output: Any) -> tuple[Any, int]:
    """The one addition of an upsampled map that all of ``output`` comes through, and how far the rest reaches."""
    joins: dict[str, Any] = {}
    reach = _walk(output, joins)
    return (next(iter(joins.values())), reach) if len(joins) == 1 and reach is not None else (None, 0)


def _walk(output: Any, joins: dict[str, Any]) -> int | None:
    """How far ``output`` reaches in the maps that ``joins`` then holds; None where something else is on the way."""
    node = output.get_node()
    if _is_join(node):
        joins[node.get_name()] = node
        return 0
    own = _own_reach(node)
    reaches = [] if own is None else [_walk(one, joins) for one in _data(node)]
    known = [one for one in reaches if one is not None]
    return None if own is None or not known or len(known) < len(reaches) else own + max(known)


def _is_join(node: Any) -> bool:
    return node.get_type_name() == "Add" and any(_doubles(one) for one in node.input_values())


def _own_reach(node: Any) -> int | None:
    """How far an operation looks around a voxel; None where that is not known."""
    if node.get_type_name() in _POINTWISE:
        return 0
    is_known = node.get_type_name() == "Convolution" and _keeps_shape(node)
    return _sides(node.input_value(1))[0] // 2 if is_known else None


def _data(node: Any) -> Iterator[Any]:
    """The inputs of an operation that are no weights."""
    return (one for one in node.input_values() if _kind(one) not in _FIXED)


def _doubles(output: Any) -> bool:
    """Whether it is an interpolation, linear between the middles of voxels, to twice the size along each axis."""
    node = output.get_node()
    if _kind(output) != "Interpolate":
        return False
    told = node.get_attributes()
    before, after = _sides(node.input_value(0)), _sides(output)
    linear = told["mode"] == "linear_onnx" and told["coordinate_transformation_mode"] == "half_pixel"
    return linear and after == [2 * side for side in before]


def _keeps_shape(node: Any) -> bool:
    """Whether a convolution has as many voxels out as in, and the same reach along each axis."""
    sides = _sides(node.input_value(1))
    told = node.get_attributes()
    odd = len(set(sides)) == 1 and sides[0] % 2 == 1
    padded = all(list(told[pads]) == [sides[0] // 2] * 3 for pads in ("pads_begin", "pads_end"))
    return odd and padded and set(told["strides"]) == set(told["dilations"]) == {1}


def _sliced(output: Any, region: _Region) -> Any:
    from openvino import opset13 as ops

    first, last = (np.array(side, dtype=np.int64) for side in zip(*region, strict=True))
    if not first.any() and list(last) == _sides(output):
        return output
    axes = np.arange(2, 5, dtype=np.int64)
    return ops.slice(output, first, last, np.ones(3, dtype=np.int64), axes).output(0)


def _within(region: _Region, other: _Region) -> _Region:
    """A region, counted from the corner of another."""
    return [(first - start, last - start) for (first, last), (start, _) in zip(region, other, strict=True)]


def _sides(output: Any) -> list[int]:
    return list(output.get_shape())[2:]


def _kind(output: Any) -> str:
    return str(output.get_node().get_type_name())
