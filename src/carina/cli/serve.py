"""``carina serve``: the node."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from carina.cli.node import CONFIG, node_settings
from carina.cli.terminal import say
from carina.errors import BadConfig

if TYPE_CHECKING:
    from carina.config import Settings

_LOG = logging.getLogger(__name__)


@click.command()
@CONFIG
@click.option("--check", is_flag=True, help="Report every mistake of the settings, by key, and start nothing.")
def serve(config: Path | None, check: bool) -> None:
    """Run the node: receive studies, run pipelines on them, send the results. For research use only."""
    from carina.config import settings_file
    from carina.service.check import as_error, is_running, start_mistakes
    from carina.service.remarks import settings_remarks

    file = settings_file(config)
    settings = _every_mistake_told(config, file) if check else node_settings(config)
    runs = is_running(settings)  # then its ports are its own; without --check, its folder refuses a second node
    mistakes = start_mistakes(settings, is_running=runs)
    if check:
        from carina.service.check_bundles import bundle_remarks
        from carina.service.check_contents import check_contents
        from carina.service.check_database import database_mistakes, database_remarks
        from carina.service.check_passing import passing_mistakes
        from carina.service.check_tls import ending_remarks, lapsed_mistakes
        from carina.service.settings_secrets import open_secrets

        now = datetime.now(UTC)
        mistakes += [*passing_mistakes(settings), *check_contents(settings), *lapsed_mistakes(settings, now)]
        mistakes += database_mistakes(settings)
    if mistakes:
        raise as_error(mistakes, file, os.environ)
    if check:
        sources, destinations = ", ".join(settings.sources) or "none", ", ".join(settings.destinations) or "none"
        say(f"{file or 'settings'}: no mistakes; sources: {sources}; destinations: {destinations}")
        say(*settings_remarks(settings), *ending_remarks(settings, now), *open_secrets(file))
        say(*database_remarks(settings), *bundle_remarks(settings))
        if runs:
            say("the node runs, so its ports were not tried; it takes these settings once it is started again")
        return
    from carina.service.logs import log_to
    from carina.service.serve import run_node

    log_to()
    for remark in settings_remarks(settings):
        _LOG.warning("a remark on the settings", extra={"remark": remark})
    run_node(settings)


def _every_mistake_told(config: Path | None, file: Path | None) -> Settings:
    """The settings; where keys are wrong by themselves, what doesn't fit together is told with them."""
    from carina.service.check_rest import with_the_rest

    try:
        return node_settings(config)
    except BadConfig as error:
        raise with_the_rest(error, file, os.environ, datetime.now(UTC)) from error
