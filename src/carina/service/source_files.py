"""Whether the pipelines and series rules that the sources name can be used: read anew only where a file changed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from carina.config import AnySource, Settings
from carina.dicom.rules import load_rules
from carina.errors import BadConfig
from carina.operators.catalogue import definition_file
from carina.pipeline.definition import load_definition

FileVersion = tuple[int, ...]
"""What is another once a file was written, replaced or removed."""

_NOT_SHOWN = "a file that a source not shown to you names can't be used; whoever sees the whole node is told which"


def version_of(file: Path) -> FileVersion:
    """The version of a file; empty where it can't be looked at."""
    try:
        state = file.stat()
    except OSError:
        return ()
    return (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


def source_file_troubles(every: Settings, shown: Settings) -> Iterator[str]:
    """What their series or jobs fail by, one sentence each; where it lies is for the check, since strangers may ask.

    Of sources that only ``every`` has, that there is something, once.
    """
    if _is_wrong(every.series_rules, is_rules=True):
        yield f"series_rules: {_words(every.series_rules)}, and every series waits in quarantine: {_HOW}"
    told = {name: list(_of_source(name, source)) for name, source in every.sources.items()}
    for name in shown.sources:
        yield from told.get(name, ())
    if any(told[name] for name in told.keys() - shown.sources.keys()):
        yield _NOT_SHOWN


def _of_source(name: str, source: AnySource) -> Iterator[str]:
    for one in source.pipelines:
        if _is_wrong(one, is_rules=False):
            yield f"sources.{name}.pipelines: {_words(one)}, and jobs that run it fail: {_HOW}"
    if _is_wrong(source.series_rules, is_rules=True):
        yield f"sources.{name}.series_rules: {_words(source.series_rules)}, and its series wait: {_HOW}"


_HOW = "carina serve --check says why"


def _words(named: str) -> str:
    return f"{Path(named).name} can't be used"


def _is_wrong(named: str, *, is_rules: bool) -> bool:
    if not named:
        return False
    try:
        file = Path(named) if is_rules else definition_file(named)
    except BadConfig:
        return True
    return _is_refused(file, version_of(file), is_rules=is_rules)


@lru_cache(maxsize=64)
def _is_refused(file: Path, _: FileVersion, *, is_rules: bool) -> bool:
    try:
        load_rules(file) if is_rules else load_definition(file)
    except BadConfig:
        return True
    return False
