"""A classifier's second output: what each place of its last feature map adds to each class (class activation).

Where a network ends in a mean over all places and one linear layer (Zhou and others, "Learning deep features for
discriminative localization", CVPR 2016), the mean and the layer can change places, so that a score is the layer's bias
plus the mean of its class map: exact, and from the pass that classifies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

CLASS_MAPS = "class_maps"
"""The output's name; ``(n, classes, x, y, z)``, without the bias."""


def add_class_maps(model: Any) -> bool:
    """Give an ONNX ``model`` the output `CLASS_MAPS`, if it ends in global mean, flatten and one linear layer."""
    from onnx import TensorProto, helper

    made = {name: node for node in model.graph.node for name in node.output}
    ends, names = [], [model.graph.output[0].name]
    for wanted in ("Gemm", "Flatten", "GlobalAveragePool"):
        node = made.get(names[-1])
        if node is None or node.op_type != wanted:
            return False
        ends.append(node)
        names.append(node.input[0])
    linear = ends[0]
    if not any(one.name == "transB" and one.i == 1 for one in linear.attribute):
        return False
    classes = helper.make_node(
        "Einsum", [names[-1], linear.input[1]], [CLASS_MAPS], name=CLASS_MAPS, equation="ncxyz,kc->nkxyz"
    )
    model.graph.node.append(classes)
    sides = ["n", *(f"class_maps_{side}" for side in ("classes", "x", "y", "z"))]
    model.graph.output.append(helper.make_tensor_value_info(CLASS_MAPS, TensorProto.FLOAT, sides))
    return True


def used_outputs(names: Sequence[str]) -> list[int]:
    """Which of a network's outputs are asked for, by their numbers: the first, its scores, and class maps."""
    return [number for number, name in enumerate(names) if number == 0 or name == CLASS_MAPS]
