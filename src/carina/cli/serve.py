"""``carina serve``: the node."""

from __future__ import annotations

from pathlib import Path

import click

from carina.cli.node import CONFIG, node_settings
from carina.cli.terminal import say


@click.command()
@CONFIG
@click.option("--check", is_flag=True, help="Report mistakes of the settings, by key, and start nothing.")
def serve(config: Path | None, check: bool) -> None:
    """Run the node: receive studies, run pipelines on them, send the results. For research use only."""
    from carina.config import settings_file
    from carina.service.check import as_error, check_across, is_running, settings_remarks

    settings, file = node_settings(config), settings_file(config)
    runs = is_running(settings)  # then its ports are its own; without --check, its folder refuses a second node
    mistakes = check_across(settings, is_running=runs)
    if check:
        from carina.service.check_contents import check_contents
        from carina.service.settings_secrets import open_secrets

        mistakes += check_contents(settings)
    if mistakes:
        raise as_error(mistakes, file)
    if check:
        sources, destinations = ", ".join(settings.sources) or "none", ", ".join(settings.destinations) or "none"
        say(f"{file or 'settings'}: no mistakes; sources: {sources}; destinations: {destinations}")
        for remark in (*settings_remarks(settings), *open_secrets(file)):
            say(remark)
        if runs:
            say("the node runs, so its ports were not tried; it takes these settings once it is started again")
        return
    from carina.service.logs import log_to
    from carina.service.serve import run_node

    log_to()
    run_node(settings)
