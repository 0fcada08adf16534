"""``carina health``: what a supervisor asks of a running node."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import click

from carina.cli.node import CONFIG, node_settings
from carina.cli.terminal import SOME_FAILED, complain, say
from carina.errors import BadConfig
from carina.pipeline.json_text import read_json

if TYPE_CHECKING:
    from carina.config import Settings
    from carina.web_settings import WebSettings

ANSWER_WITHIN_S = 8.0


@click.command()
@click.option("--live", is_flag=True, help="Only whether the process answers, not whether it can do its work.")
@CONFIG
def health(live: bool, config: Path | None) -> None:
    """Ask the node of the settings, on this machine, how it is; exit code 3 where it can't work or isn't there.

    Of a node that is ready, what soon won't work is said as well.

    In a container whose pages listen on loopback only, probes ask with this from inside.
    """
    from urllib.error import HTTPError, URLError
    from urllib.request import HTTPSHandler, ProxyHandler, build_opener

    settings = node_settings(config)
    url = f"{_on_this_machine(settings.web)}/health/{'live' if live else 'ready'}"
    # its certificate is for the name that others call it by, and this is loopback
    secure = HTTPSHandler(context=ssl._create_unverified_context())
    try:
        with build_opener(ProxyHandler({}), secure).open(url, timeout=ANSWER_WITHIN_S) as answer:
            told = [] if live else _sentences(answer.read(), "warnings")
            say("the node is alive" if live else "the node is ready", *told)
    except HTTPError as error:
        complain(f"{url}: {error.code}: {_troubles(error.read())}")
        raise SystemExit(SOME_FAILED) from error
    except (URLError, OSError) as error:
        complain(f"{url}: does not answer ({getattr(error, 'reason', error)}); {_where(settings)}")
        raise SystemExit(SOME_FAILED) from error


def _where(settings: Settings) -> str:
    """Where the node may be: on another host, if one works on it, which has it alone."""
    from carina.jobs.signs import check_host

    try:
        check_host(settings)
    except BadConfig as error:
        return f"ask there where it runs: {error.message}"
    return "is `carina serve` running?"


def _on_this_machine(web: WebSettings) -> str:
    """The address of the listener, as it is reached from here."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(web.host, web.host)
    return f"{'https' if web.tls else 'http'}://{f'[{host}]' if ':' in host else host}:{web.port}"


def _troubles(body: bytes) -> str:
    """What stands against the node's work, of its answer."""
    return "; ".join(one.rstrip(".") for one in _sentences(body, "troubles")) or body.decode(errors="replace")[:200]


def _sentences(body: bytes, which: str) -> list[str]:
    """Sentences of an answer; none where it is another's, or a node's of before."""
    try:
        return [str(one) for one in read_json(body)[which]]
    except (ValueError, KeyError, TypeError):
        return []
