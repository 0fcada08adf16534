"""What the settings name, opened: pipelines and their graphs, bundles, rules of series."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

from carina.config import SHORTEST_KEY, RuntimeKind, Settings
from carina.dicom.rules import load_rules
from carina.errors import BadConfig
from carina.infer.runtime import open_network
from carina.models.bundle import find_bundle
from carina.models.first_look import first_look_of
from carina.operators.catalogue import definition_file
from carina.operators.containers import find_engine
from carina.operators.deidentify import OPERATOR as DEIDENTIFY
from carina.operators.others import with_others
from carina.pipeline.check import bound
from carina.pipeline.definition import load_definition
from carina.pipeline.graph import Graph
from carina.sections import EngineChoice, OperatorSettings
from carina.toml import Key, Mistake


def check_contents(settings: Settings) -> list[Mistake]:
    """Every mistake in what the settings name. It loads much of Carina, so the server itself does not ask for it."""
    return [*_named(settings), *_triton(settings), *_operators(settings.operators), *_deidentifying(settings)]


def _named(settings: Settings) -> Iterator[Mistake]:
    for key, opened in _openers(settings).items():
        try:
            opened()
        except BadConfig as error:
            yield from (Mistake(key=key, words=line) for line in error.message.split("\n"))


def _openers(settings: Settings) -> Mapping[Key, Callable[[], object]]:
    """What opens each thing that is named, by its key."""
    found: dict[Key, Callable[[], object]] = {}
    if settings.series_rules:
        found["series_rules",] = partial(load_rules, settings.series_rules)
    for task in ("lung", "lesion", "covid"):
        name = getattr(settings.models, task)
        found["models", task] = partial(_check_bundle, name, settings)
    for name, source in settings.sources.items():
        for number, pipeline in enumerate(source.pipelines):
            found["sources", name, "pipelines", str(number)] = partial(_check_pipeline, pipeline, settings.operators)
        if source.series_rules:
            found["sources", name, "series_rules"] = partial(load_rules, source.series_rules)
    return found


def _check_bundle(name: str, settings: Settings) -> None:
    """Open a bundle and the one that it names as its first look, on the Triton server where there is an endpoint."""
    bundle = find_bundle(name, settings.models.folders)
    runtime = settings.runtime
    if runtime.endpoint:
        runtime = msgspec.structs.replace(runtime, kind=RuntimeKind.TRITON)
    for one in (bundle, first_look_of(bundle)):
        if one is not None and (runtime.endpoint or runtime.kind is not RuntimeKind.TRITON):
            open_network(one, runtime)


def _check_pipeline(pipeline: str, operators: OperatorSettings) -> Graph:
    return bound(load_definition(definition_file(pipeline)), with_others(operators))


def _deidentifying(settings: Settings) -> Iterator[Mistake]:
    """A key that a source's pipeline needs to take the patient out, and isn't there."""
    if settings.deidentify.key:
        return
    for name, source in settings.sources.items():
        for pipeline in source.pipelines:
            with suppress(BadConfig):  # told as a mistake of the pipeline
                nodes = _check_pipeline(pipeline, settings.operators).nodes.values()
                if any(node.operator is DEIDENTIFY for node in nodes):
                    words = f"is empty, and pipeline {pipeline} of source {name} needs it"
                    how = f"give one of {SHORTEST_KEY} characters or more: openssl rand -hex 32"
                    yield Mistake(key=("deidentify", "key"), words=f"{words}; {how}")


def _triton(settings: Settings) -> Iterator[Mistake]:
    if settings.runtime.kind is RuntimeKind.TRITON and not settings.runtime.endpoint:
        words = "is empty and kind is triton; expected http://host:8000 or grpc://host:8001"
        yield Mistake(key=("runtime", "endpoint"), words=words)


def _operators(operators: OperatorSettings) -> Iterator[Mistake]:
    """An engine that is asked for by name and doesn't answer, and trusted definitions that aren't there."""
    engine = find_engine(operators.engine)
    if isinstance(engine, str) and operators.engine not in (EngineChoice.AUTO, EngineChoice.NONE):
        yield Mistake(key=("operators", "engine"), words=f"is {operators.engine.value}, and {engine}")
    for file in operators.trusted:
        if not Path(file).is_file():
            yield Mistake(
                key=("operators", "trusted"), words=f"{file!r} is no file that is there; expected a definition"
            )
