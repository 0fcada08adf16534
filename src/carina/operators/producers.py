"""Who made a result: the facts that go into every DICOM object."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from carina import __version__
from carina.dicom.objects import Producer
from carina.measure.findings import Classification, RatioFindings
from carina.operators.networks import Networks

if TYPE_CHECKING:
    from carina.dicom.objects import Producer
    from carina.models.validation import Validation

CREATOR = "Carina"


def producer(made_by: str, networks: Networks, when: dt.datetime) -> Producer:
    """The producer of a result, from the words in its ``made_by`` (``name version hash``) and the bundles at hand."""
    runtime = networks.runtime_settings
    bundle = networks.made(made_by)
    name, version, sha256 = ([*made_by.split(" "), "", "", ""] if made_by else ["", "", ""])[:3]
    return Producer(
        model_creator=CREATOR,
        model_name=bundle.name if bundle else name or "no model",
        model_version=bundle.version if bundle else version or "0",
        bundle_sha256=bundle.sha256 if bundle else sha256,
        software_version=__version__,
        when=when,
        settings=f"{runtime.precision.value} {runtime.plan.value}",
    )


def makers(result: Classification | RatioFindings, networks: Networks, when: dt.datetime) -> tuple[Producer, ...]:
    """The producers of a result, one for each bundle that it was made by."""
    return tuple(producer(words, networks, when) for words in _made_by(result))


def validations_of(result: Classification | RatioFindings, networks: Networks) -> dict[str, Validation]:
    """What the bundles that made a result say of their worth, by name; those that say nothing are left out."""
    bundles = (networks.made(words) for words in _made_by(result))
    return {one.name: one.carina.validation for one in bundles if one is not None and one.carina.validation}


def _made_by(result: Classification | RatioFindings) -> tuple[str, ...]:
    return (result.made_by,) if isinstance(result, Classification) else result.made_by or ("",)
