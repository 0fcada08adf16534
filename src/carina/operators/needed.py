"""Which networks a pipeline needs, told from its definition alone: no operator is imported for it."""

from __future__ import annotations

from collections.abc import Mapping

from carina.pipeline.definition import Definition

NETWORK_IMAGES: Mapping[str, tuple[str, ...]] = {
    "lung": ("clara/ai-lung", "carina/ai-lung"),
    "lesion": ("clara/ai-covid-lesion", "carina/ai-covid-lesion"),
    "covid": ("clara/ai-covid-19", "carina/ai-covid-19"),
}
"""The images of the operators that run a network, by the network's task."""

TASKS = tuple(NETWORK_IMAGES)


def needed_tasks(definition: Definition) -> tuple[str, ...]:
    """The tasks of the networks that a definition's steps run."""
    asked = {step.container.image for step in definition.steps}
    return tuple(task for task, images in NETWORK_IMAGES.items() if asked.intersection(images))
