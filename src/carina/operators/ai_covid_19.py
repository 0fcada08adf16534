"""ai-covid-19: how likely the scan shows COVID-19."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from carina.infer import saliency
from carina.infer.activation import explain
from carina.infer.classify import classifier, classify
from carina.infer.familiar import too_little_marked, unlike_training
from carina.infer.runtime import first_of
from carina.measure.chest import chest_of
from carina.measure.findings import Classification, SaliencyFindings, SaliencyMethod
from carina.measure.key_slices import choose_salient, choose_slices
from carina.operators.needed import NETWORK_IMAGES
from carina.operators.networks import Networks
from carina.operators.ports import ClassificationPort, MaskPort, SaliencyPort, Scene, VolumePort
from carina.operators.segmented import BLUE_DEEP, TRITON_IMAGES, VERMILION, fraction
from carina.operators.text import one_of
from carina.pipeline.operator import Context, Operator, Setting
from carina.volume.volume import Mask, ScalarMap, Volume

if TYPE_CHECKING:
    from carina.infer.runtime import Outputs
    from carina.models.bundle import Bundle, Covid

NOTHING_TO_CLASSIFY = "No lung was found, so there is nothing to classify."
ON, OCCLUSION, OFF = "on", "occlusion", "off"
"""How the saliency is asked for: from the pass that classifies where the network can, by hiding places, not at all."""
SWITCHED_OFF = "The saliency was switched off by CARINA_SALIENCY."


class Classified(NamedTuple):
    """The ports of the classification operator."""

    classification: ClassificationPort
    saliency: SaliencyPort
    rendering: Scene


def ai_covid_19(
    volume: VolumePort,
    lung: MaskPort,
    lesion: MaskPort | None = None,
    *,
    saliency_by: str = ON,
    networks: Networks,
    context: Context,
) -> Classified:
    """Classify the scan from a crop around its lungs; what shows no lungs of a chest is not classified, and says why.

    Where the lesions are given, nor is a scan with so little disease marked that a probability would say nothing.

    The saliency says where the probability comes from: what each place adds to its log-odds, or, with ``occlusion`` and
    for networks that can't tell, by how much it falls when a place is hidden from the network.
    """
    bundle = networks.bundle("covid")
    slices = choose_slices(volume, lung, None)
    reason = _why_not(volume, lung, lesion, bundle)
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
    with networks.passing, networks.opened("covid") as network:
        probabilities, salient = _answer(volume, lung, saliency_by, (bundle, network), context)
    context.record("made_by", bundle.made_by)
    context.record("probabilities", {name: round(value, 4) for name, value in probabilities.items()})
    shown, found = SaliencyPort(map=None, not_computed=SWITCHED_OFF), None
    if salient is not None:
        shown, found = SaliencyPort(map=salient.map), _shown(salient, volume, lung, classifier(bundle))
        context.record("saliency", _range(found, salient.map.unit))
    classification = Classification(
        uid=volume.uid,
        probabilities=probabilities,
        made_by=bundle.made_by,
        key_slices=slices,
        warnings=lung.warnings,
        limits=bundle.carina.validation.limits if bundle.carina.validation else (),
        saliency=found,
    )
    return _classified(classification, shown, volume)


def _why_not(volume: Volume, lung: Mask, lesion: Mask | None, bundle: Bundle) -> str:
    """Why a scan is not classified; empty where it may be."""
    if lung.is_empty:
        return NOTHING_TO_CLASSIFY
    refusals = chest_of(volume, lung).refusals or unlike_training(volume, lung, bundle)
    if not refusals and lesion is not None:
        refusals = tuple(filter(None, [too_little_marked(lesion, lung, bundle)]))
    return " ".join(("Not classified.", *refusals)) if refusals else ""


def _classified(classification: Classification, saliency: SaliencyPort, volume: Volume) -> Classified:
    colours = {-1: BLUE_DEEP, 1: VERMILION}
    scene = Scene(volume=volume, shown=saliency, layer="saliency", order=3, colours=colours, opacity=0.65)
    return Classified(classification, saliency, scene)


class _Salient(NamedTuple):
    """Where a probability comes from: the map, how many places it tells apart along ``(x, y, z)``, how it was made."""

    map: ScalarMap
    blocks: tuple[int, int, int]
    method: SaliencyMethod


def _answer(
    volume: Volume, lung: Mask, saliency_by: str, classifying: tuple[Bundle, Outputs], context: Context
) -> tuple[dict[str, float], _Salient | None]:
    """The probabilities and their saliency: from one pass where that is asked for and the network can."""
    bundle, network = classifying
    if saliency_by == ON:
        probabilities, parts, places = explain(volume, lung, bundle, network)
        if parts is not None:
            return probabilities, _Salient(parts, places, SaliencyMethod.ACTIVATION)
    else:
        probabilities = classify(volume, lung, bundle, first_of(network))
    if saliency_by == OFF:
        return probabilities, None
    hidden = saliency.saliency(volume, lung, bundle, first_of(network), fraction(context))
    return probabilities, _Salient(hidden, saliency.blocks_of(classifier(bundle)), SaliencyMethod.OCCLUSION)


def _shown(salient: _Salient, volume: Volume, lung: Mask, spec: Covid) -> SaliencyFindings:
    """What a report shows of a map."""
    return SaliencyFindings(
        label=spec.labels[spec.saliency.label],
        lowest=float(salient.map.values.min()),
        highest=float(salient.map.values.max()),
        blocks=salient.blocks,
        method=salient.method,
        key_slices=choose_salient(volume, lung, salient.map),
    )


def _range(found: SaliencyFindings, unit: str) -> dict[str, float | str]:
    return {"lowest": round(found.lowest, 4), "highest": round(found.highest, 4), "unit": unit}


OPERATOR = Operator(
    name="ai-covid-19",
    images=NETWORK_IMAGES["covid"],
    function=ai_covid_19,
    inputs={"/input": "volume", "/label_image": "lung", "/lesion": "lesion"},
    outputs={"/output": "classification", "/saliency": "saliency", "/publish": "rendering"},
    places={"/saliency": "saliency", "/publish": "render"},
    variables={
        "CARINA_SALIENCY": Setting(
            parameter="saliency_by",
            read=one_of(ON, OCCLUSION, OFF),
            meaning="how to find out where the probability comes from: on (one pass), occlusion (64 passes), off",
        ),
    },
    services=TRITON_IMAGES,
)
