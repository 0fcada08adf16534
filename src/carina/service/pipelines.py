"""Which pipelines are asked for over the web: a path would be any file of the machine."""

from __future__ import annotations

from carina.config import Settings
from carina.errors import BadConfig
from carina.operators.catalogue import DEFAULT, known_definitions


def offered_pipelines(settings: Settings) -> tuple[str, ...]:
    """The definitions that ship and those that a source names, the default one first."""
    named = {pipeline for source in settings.sources.values() for pipeline in source.pipelines}
    return (DEFAULT, *sorted((named | known_definitions().keys()) - {DEFAULT}))


def check_offered(settings: Settings, pipeline: str) -> None:
    """See that a pipeline is offered; no file is looked at, so that nothing is learned of one.

    Raises:
        BadConfig: ``definition.unknown``, it is not.
    """
    offered = offered_pipelines(settings)
    if pipeline not in offered:
        words = f"no definition is called {pipeline[:64]!r}; offered over the web: {', '.join(offered)}"
        raise BadConfig("definition.unknown", f"{words}. Use carina submit on the node's machine for others.")
