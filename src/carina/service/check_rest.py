"""What doesn't fit together in settings some of whose keys are wrong by themselves: all is told at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from carina.config import Settings, sound_settings
from carina.errors import BadConfig
from carina.service.check import as_error, check_across, is_running
from carina.service.check_contents import check_contents
from carina.service.check_database import database_mistakes
from carina.service.check_tls import lapsed_mistakes
from carina.toml import Key, Mistake


def with_the_rest(error: BadConfig, file: Path | None, environment: Mapping[str, str], now: datetime) -> BadConfig:
    """An error on keys that are wrong by themselves, with every mistake across the others."""
    if error.code != "config.invalid":
        return error
    settings, gone = sound_settings(file, environment)
    found = [*check_across(settings, is_running=is_running(settings)), *_opened(settings, gone, now)]
    broken = [key[1] for key in gone if key[0] == "destinations" and len(key) == 2]
    rest = [_knowing(broken, one) for one in found if not any(_is_about(one, key) for key in gone)]
    lines = as_error(rest, file, environment).message.split("\n") if rest else []
    return BadConfig(error.code, *error.message.split("\n"), *lines)


def _opened(settings: Settings, gone: Collection[Key], now: datetime) -> list[Mistake]:
    """What is wrong with what the settings name; without the table of the node, no database."""
    is_node_known = "node" not in {key[0] for key in gone}
    of_database = database_mistakes(settings) if is_node_known else ()
    return [*check_contents(settings), *lapsed_mistakes(settings, now), *of_database]


def _is_about(mistake: Mistake, gone: Key) -> bool:
    """Whether it may come of a key that is gone: it is of that key, of what is within it, or names it."""
    shared = min(len(mistake.key), len(gone))
    return mistake.key[:shared] == gone[:shared] or ".".join(gone) in mistake.words or f"'{gone[-1]}'" in mistake.words


def _knowing(broken: Sequence[str], mistake: Mistake) -> Mistake:
    """A mistake whose list of known destinations has those too in which something else is wrong: their names count."""
    said, mark, known = mistake.words.rpartition("; known: ")
    if not broken or not mark or not said.startswith("no destination "):
        return mistake
    names = [name for name in known.split(", ") if name != "none"]
    return Mistake(key=mistake.key, words=f"{said}{mark}{', '.join([*names, *broken])}")
