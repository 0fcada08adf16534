"""What the settings name, opened: pipelines and their graphs, bundles, rules of series, the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from carina.config import RuntimeKind, Settings
from carina.database import open_database
from carina.dicom.rules import load_rules
from carina.errors import BadConfig
from carina.models.bundle import find_bundle
from carina.operators.catalogue import definition_file
from carina.operators.containers import find_engine
from carina.operators.others import with_others
from carina.pipeline.check import bound
from carina.pipeline.definition import load_definition
from carina.sections import EngineChoice, OperatorSettings
from carina.toml import Key, Mistake


def check_contents(settings: Settings) -> list[Mistake]:
    """Every mistake in what the settings name. It loads much of Carina, so the server itself does not ask for it."""
    return [*_named(settings), *_triton(settings), *_operators(settings.operators)]


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
    if settings.node.database:
        found["node", "database"] = lambda: open_database(settings.node.database).dispose()
    for task in ("lung", "lesion", "covid"):
        name = getattr(settings.models, task)
        found["models", task] = partial(find_bundle, name, settings.models.folders)
    for name, source in settings.sources.items():
        for number, pipeline in enumerate(source.pipelines):
            found["sources", name, "pipelines", str(number)] = partial(_check_pipeline, pipeline, settings.operators)
        if source.series_rules:
            found["sources", name, "series_rules"] = partial(load_rules, source.series_rules)
    return found


def _check_pipeline(pipeline: str, operators: OperatorSettings) -> None:
    bound(load_definition(definition_file(pipeline)), with_others(operators))


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
