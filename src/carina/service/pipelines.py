"""Which pipelines are asked for over the web, where a path would be any file of the machine, and what they are called.

Whoever only reads is told a definition that is a file by the file's name, and can ask for its jobs by that.
"""

from __future__ import annotations

from pathlib import PurePath

from sqlalchemy import Connection, func, select

from carina.config import Settings
from carina.database import JOB, each_project
from carina.errors import BadConfig
from carina.operators.catalogue import DEFAULT, known_definitions


def offered_pipelines(settings: Settings) -> tuple[str, ...]:
    """The definitions that ship and those that a source names, the default one first."""
    named = {pipeline for source in settings.sources.values() for pipeline in source.pipelines}
    return (DEFAULT, *sorted((named | known_definitions().keys()) - {DEFAULT}))


def pipeline_name(pipeline: str) -> str:
    """A pipeline without its place: of one that is a file, the file's name without folder and suffix."""
    path = PurePath(pipeline)
    return path.stem if path.name != pipeline or path.suffix in (".yaml", ".yml") else pipeline


def pipelines_called(connection: Connection, settings: Settings, name: str) -> tuple[str, ...]:
    """The pipelines that a name, as readers are told it, or a path stands for; none without either."""
    if not name:
        return ()
    known = {*offered_pipelines(settings), *_run_pipelines(connection)}
    return tuple(sorted(one for one in known if name in (one, pipeline_name(one))))


def _run_pipelines(connection: Connection) -> set[str]:
    """The pipelines of the jobs that are seen; an index leads from each to the next, however many jobs it has."""
    found = set()
    for of_project in each_project(connection, JOB):
        following = select(func.min(JOB.c.pipeline)).where(*of_project)
        last = connection.execute(following).scalar()
        while last is not None:
            found.add(last)
            last = connection.execute(following.where(JOB.c.pipeline > last)).scalar()
    return found


def check_offered(settings: Settings, pipeline: str) -> None:
    """See that a pipeline is offered; no file is looked at, so that nothing is learned of one.

    Raises:
        BadConfig: ``definition.unknown``, it is not.
    """
    offered = offered_pipelines(settings)
    if pipeline not in offered:
        words = f"no definition is called {pipeline[:64]!r}; offered over the web: {', '.join(offered)}"
        raise BadConfig("definition.unknown", f"{words}. Use carina submit on the node's machine for others.")
