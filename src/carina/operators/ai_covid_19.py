"""ai-covid-19: how likely the scan shows COVID-19."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from carina.infer import saliency
from carina.infer.classify import classifier, classify
from carina.measure.chest import check_chest
from carina.measure.findings import Classification, SaliencyFindings
from carina.measure.key_slices import choose_salient, choose_slices
from carina.operators.networks import Networks
from carina.operators.ports import ClassificationPort, MaskPort, SaliencyPort, Scene, VolumePort
from carina.operators.segmented import BLUE_DEEP, TRITON_IMAGES, VERMILION, fraction
from carina.operators.text import switch
from carina.pipeline.operator import Context, Operator, Setting
from carina.volume.volume import Mask, Volume

if TYPE_CHECKING:
    from carina.models.bundle import Bundle

NOTHING_TO_CLASSIFY = "No lung was found, so there is nothing to classify."
SWITCHED_OFF = "The saliency was switched off by CARINA_SALIENCY."


class Classified(NamedTuple):
    """The ports of the classification operator."""

    classification: ClassificationPort
    saliency: SaliencyPort
    rendering: Scene


def ai_covid_19(
    volume: VolumePort, lung: MaskPort, *, with_saliency: bool = True, networks: Networks, context: Context
) -> Classified:
    """Classify the scan from a crop around its lungs; what shows no lungs of a chest is not classified, and says why.

    The saliency says where the probability comes from: by how much it falls when a place is hidden from the network.
    """
    bundle = networks.bundle("covid")
    slices = choose_slices(volume, lung, None)
    reason = _why_not(volume, lung)
    if reason:
        context.warn(reason)
        nothing = Classification(
            uid=volume.uid,
            probabilities={},
            made_by=bundle.made_by,
            key_slices=slices,
            warnings=lung.warnings,
            not_computed=reason,
        )
        return _classified(nothing, SaliencyPort(map=None, not_computed=reason), volume)
    probabilities = classify(volume, lung, bundle, networks.runtime("covid"))
    context.record("made_by", bundle.made_by)
    context.record("probabilities", {name: round(value, 4) for name, value in probabilities.items()})
    saliency, found = SaliencyPort(map=None, not_computed=SWITCHED_OFF), None
    if with_saliency:
        saliency, found = _saliency(volume, lung, bundle, networks, context)
    classification = Classification(
        uid=volume.uid,
        probabilities=probabilities,
        made_by=bundle.made_by,
        key_slices=slices,
        warnings=lung.warnings,
        saliency=found,
    )
    return _classified(classification, saliency, volume)


def _why_not(volume: Volume, lung: Mask) -> str:
    """Why a scan is not classified; empty where it may be."""
    if lung.is_empty:
        return NOTHING_TO_CLASSIFY
    refusals = check_chest(volume, lung).refusals
    return " ".join(("Not classified.", *refusals)) if refusals else ""


def _classified(classification: Classification, saliency: SaliencyPort, volume: Volume) -> Classified:
    colours = {-1: BLUE_DEEP, 1: VERMILION}
    scene = Scene(volume=volume, shown=saliency, layer="saliency", order=3, colours=colours, opacity=0.65)
    return Classified(classification, saliency, scene)


def _saliency(
    volume: Volume, lung: Mask, bundle: Bundle, networks: Networks, context: Context
) -> tuple[SaliencyPort, SaliencyFindings]:
    """The map, and what a report shows of it."""
    found = saliency.saliency(volume, lung, bundle, networks.runtime("covid"), fraction(context))
    spec = classifier(bundle)
    lowest, highest = float(found.values.min()), float(found.values.max())
    context.record("saliency", {"lowest": round(lowest, 4), "highest": round(highest, 4), "unit": found.unit})
    return SaliencyPort(map=found), SaliencyFindings(
        label=spec.labels[spec.saliency.label],
        lowest=lowest,
        highest=highest,
        blocks=saliency.blocks_of(spec),
        key_slices=choose_salient(volume, lung, found),
    )


OPERATOR = Operator(
    name="ai-covid-19",
    images=("clara/ai-covid-19", "carina/ai-covid-19"),
    function=ai_covid_19,
    inputs={"/input": "volume", "/label_image": "lung"},
    outputs={"/output": "classification", "/saliency": "saliency", "/publish": "rendering"},
    places={"/saliency": "saliency", "/publish": "render"},
    variables={
        "CARINA_SALIENCY": Setting(
            parameter="with_saliency",
            read=switch,
            meaning="whether to find out where the probability comes from: on, off",
        ),
    },
    services=TRITON_IMAGES,
)
