"""Whether the node lives, and whether it can do its work now."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import timedelta
from tempfile import TemporaryFile

import msgspec
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from carina import RESEARCH_ONLY, __version__
from carina.database import IDENTITY, IDENTITY_FILE, NOTICE, OTHER_DATABASE, look_at_tables, outage_of, read_only
from carina.deliver.ledger import DeliveryState
from carina.deliver.register import last_trouble
from carina.errors import FULL, one_line, shortened
from carina.sections import RUNS
from carina.service.access.caller import caller_of
from carina.service.dicomweb.left_out import left_out_lately
from carina.service.dicomweb.soundness import MOST_DAMAGED
from carina.service.loops import PartState, PartStatus
from carina.service.metrics import metrics_text
from carina.service.node import RunningNode, file_of_database, seen_node
from carina.service.peer_names import told_to
from carina.service.source_files import source_file_troubles
from carina.service.tls_state import tls_state

LEAST_MB = 1.0
"""With less on the disk no slice finds room, whatever the settings allow."""

_NOT_SHOWN = "a part that is not shown to you does not run; whoever sees the whole node is told which"


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a node can do its work, and what stands against it or soon will (``warnings``), one sentence each."""

    ready: bool
    troubles: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    parts: dict[str, PartState]
    carina: str = __version__
    notice: str = RESEARCH_ONLY


def readiness(node: RunningNode, *, is_database_there: bool = False) -> Readiness:
    """Look at parts, database, disk, networks, the sources' files, certificates and what waits to be sent.

    At all of them whoever asks: only names and sentences are of what they see. Whoever has just had an answer of the
    database says that it is there, and is not warned of what it says, since pages show that themselves.
    """
    every = [part.status for part in node.parts]
    database = [] if is_database_there else _database(node)
    tls = tls_state(node)
    files = source_file_troubles(node.every_setting, node.settings)
    of_work = [*_parts(node, every), *_outlived(node), *database, *_disk(node)]
    unsent = [] if is_database_there else [*_waiting(node), *_notices(node)]
    troubles = _each_once([*of_work, *_networks(node), *files, *tls.troubles])
    if node.stop.is_set():
        troubles.append("the node is being stopped")
    return Readiness(
        ready=not troubles,
        troubles=tuple(troubles),
        warnings=(*tls.warnings, *_resting(node), *_left_out(node), *_damaged(node), *unsent),
        parts={one.name: one.state for one in every if node.shows_part(one.name)},
    )


def _parts(node: RunningNode, every: Sequence[PartStatus]) -> list[str]:
    if not every or (any(one.state is PartState.STOPPED for one in every) and not node.stop.is_set()):
        return ["the node is starting"]
    broken = [one for one in every if one.state is not PartState.RUNNING]
    shown = [f"{one.name}: {one.error}" for one in broken if node.shows_part(one.name)]
    return shown or [_NOT_SHOWN] * bool(broken)


def _outlived(node: RunningNode) -> list[str]:
    """What keeps a part that runs from its work: instances are refused, a watched folder can't be read."""
    lasting = {name: one.lasting for name, one in list(node.outages.items())}
    return [words if node.shows_part(name) else _NOT_SHOWN for name, words in lasting.items() if words]


def _each_once(told: Sequence[str]) -> list[str]:
    """Troubles, none of them twice: of what several say, each with its name in front, one line has all names."""
    said: dict[str, dict[str, str]] = {}
    for line in told:
        name, colon, words = line.partition(": ")
        said.setdefault(words.rstrip(".") if colon else line, {})[name] = line
    return [
        f"{', '.join(lines)}: {words}" if len(lines) > 1 else next(iter(lines.values()))
        for words, lines in said.items()
    ]


def _database(node: RunningNode) -> list[str]:
    is_lost = node.database_file is not None and node.own.is_there()
    if is_lost and node.database_file != file_of_database(node.engine):
        words = "its file was removed or replaced while the node runs, which writes where nobody finds it"
        return [f"database: {words}: stop the node, and put its own back or restore a backup"]
    try:
        with read_only(node.engine) as connection:
            connection.execute(select(IDENTITY.c.uuid)).first()
            look_at_tables(connection)
    except SQLAlchemyError as error:
        if (outage := outage_of(error, node.folder)) is not None and outage.code == OTHER_DATABASE:
            return [f"database: {outage.message.rstrip('.')}"]
        reason = one_line(str(getattr(error, "orig", None) or error).strip().partition("\n")[0])
        return [f"database: does not answer ({shortened(reason)})"]
    return []


def _disk(node: RunningNode) -> list[str]:
    if not node.own.is_there():
        words = f"the node's folder is not there (no {IDENTITY_FILE} of its own): is what it lies on mounted?"
        return [f"disk: {words} Instances are refused, and all else waits"]
    try:
        free_gb = shutil.disk_usage(node.folder).free / 1e9
        of_runs_gb = shutil.disk_usage(node.folder / RUNS).free / 1e9 if (node.folder / RUNS).is_dir() else free_gb
    except OSError as error:
        return [f"disk: the node's folder can't be looked at ({error.strerror}): is what it lies on mounted?"]
    if why := _unwritable(node):
        return [f"disk: the node's folder can't be written ({why}): instances are refused, and jobs fail"]
    least = node.settings.node.free_gb
    if free_gb < least:
        return [f"disk: {free_gb:.1f} GB are free, {least:g} must be: senders are refused"]
    if of_runs_gb < least:
        return [f"disk: {of_runs_gb:.1f} GB are free for runs, {least:g} must be: jobs wait where they find no room"]
    return ["disk: no space is left: instances are refused; make room"] if free_gb * 1000 < LEAST_MB else []


def _unwritable(node: RunningNode) -> str:
    """Why nothing can be written in the node's folder, as after a fault of its disk; empty where it can, or is full."""
    try:
        with TemporaryFile(dir=node.folder):
            return ""
    except OSError as error:
        return "" if error.errno in FULL else str(error.strerror)


def _networks(node: RunningNode) -> list[str]:
    """What their jobs fail by; where it lies is for the log and the check, since strangers may ask too."""
    return [
        f"networks: {key} can't be used, and jobs that need it fail: carina serve --check says why"
        for key in node.network_troubles
    ]


def _resting(node: RunningNode) -> list[str]:
    """Folders that can't be used now; of disk, watched folders and TLS more is said elsewhere."""
    shown = {("destinations", name, "path") for name in node.settings.destinations} | {("node", "submit_below")}
    keys = dict.fromkeys(".".join(one.key) for one in list(node.resting) if one.key in shown)
    return [
        f"{key}: its folder can't be used now, and what needs it rests: carina serve --check says why" for key in keys
    ]


def _left_out(node: RunningNode) -> list[str]:
    """What DICOMweb does not list though it is there; which it is, is for the log, since strangers may ask."""
    number = left_out_lately(node.left_out, node.now())
    words = "studies or results of jobs are left out of searches, since files of them can't be read: the log names them"
    return [f"DICOMweb: {number} {words}"] if number else []


def _damaged(node: RunningNode) -> list[str]:
    """Files that lost what they held, as far as somebody asked for them or the node has looked at them since."""
    words = "stored file(s) of what was accepted or made are damaged or missing: the log names them, and what helps"
    number = len(node.damaged)
    return [f"disk: {number}{' or more' * (number >= MOST_DAMAGED)} {words}"] if number else []


def _waiting(node: RunningNode) -> list[str]:
    """What does not get out of the node: it is tried again, or waits for a destination that is not in the settings."""
    told = []
    try:
        of_states = node.tallies.now().deliveries
        waiting = {name: number for name, states in of_states.items() if (number := states[DeliveryState.WAITING])}
        with read_only(node.engine) as connection:
            codes = {name: last_trouble(connection, name) for name in waiting if name in node.every_destination}
    except SQLAlchemyError:  # told as a trouble of the database
        return []
    for name, number in waiting.items():
        why = f"the last that was tried failed [{codes[name]}]" if name in codes else "the settings don't have it"
        if codes.get(name, "unknown"):
            told.append(f"destinations.{name}: {number} object(s) wait, since {why}: carina deliveries list says more")
    return told


def _notices(node: RunningNode) -> list[str]:
    """What of the last day did not reach everybody; who that is, is for the log, since strangers may ask."""
    lately = (NOTICE.c.created_at > node.now() - timedelta(days=1)) & (NOTICE.c.error != "")
    try:
        with read_only(node.engine) as connection:
            number = connection.execute(select(func.count()).where(lately)).scalar_one()
    except SQLAlchemyError:  # told as a trouble of the database
        return []
    words = "notice(s) of the last day did not reach everybody so far: the log says whom, and why"
    return [f"notices: {number} {words}"] if number else []


async def live(_: Request) -> Response:
    """``/health/live``: the process answers."""
    return PlainTextResponse("alive\n")


def ready(request: Request) -> Response:
    """``/health/ready``: 200 or 503, with the reasons."""
    node = seen_node(request)
    seen = told_to(readiness(node), caller_of(request), node.every_setting)
    body = msgspec.json.encode(seen)
    return Response(body, status_code=200 if seen.ready else 503, media_type="application/json")


def metrics(request: Request) -> Response:
    """``/metrics``."""
    return Response(metrics_text(seen_node(request)), media_type="text/plain; version=0.0.4; charset=utf-8")
