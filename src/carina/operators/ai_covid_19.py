"""ai-covid-19: how likely the scan shows COVID-19."""

from __future__ import annotations

from carina.measure.findings import Classification
from carina.operators.networks import Networks
from carina.operators.segmented import TRITON_IMAGES
from carina.pipeline.operator import Context, Operator
from carina.volume.volume import Mask, Volume

NO_LUNG = "No lung was found, so there is nothing to classify."


def ai_covid_19(volume: Volume, lung: Mask, *, networks: Networks, context: Context) -> Classification:
    """Classify the scan from a crop around its lungs; without a lung the result says that it was not computed."""
    from carina.measure.key_slices import choose

    bundle = networks.bundle("covid")
    slices = choose(volume, lung, None)
    if lung.is_empty:
        context.warn(NO_LUNG)
        return Classification(
            uid=volume.uid, probabilities={}, made_by=bundle.made_by, key_slices=slices, not_computed=NO_LUNG
        )
    from carina.infer.classify import classify

    probabilities = classify(volume, lung, bundle, networks.runtime("covid"))
    context.record("made_by", bundle.made_by)
    context.record("probabilities", {name: round(value, 4) for name, value in probabilities.items()})
    return Classification(uid=volume.uid, probabilities=probabilities, made_by=bundle.made_by, key_slices=slices)


OPERATOR = Operator(
    name="ai-covid-19",
    images=("clara/ai-covid-19", "carina/ai-covid-19"),
    function=ai_covid_19,
    inputs={"/input": "volume", "/label_image": "lung"},
    outputs={"/output": ""},
    services=TRITON_IMAGES,
)
