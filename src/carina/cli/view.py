"""``carina view``: the pages of one finished run or of a cohort, on loopback."""

from __future__ import annotations

from pathlib import Path

import click

from carina import RESEARCH_ONLY
from carina.cli.places import PATH
from carina.cli.terminal import say

FREE_PORT = 0


@click.command()
@click.argument("run", type=PATH)
@click.option("--earlier", type=PATH, multiple=True, help="An earlier run of the same patient; may be repeated.")
@click.option("--source", type=PATH, help="What the run was made from; needed to finish a correction as DICOM.")
@click.option("--reader", default="", envvar="CARINA_READER", help="The name under which masks are corrected.")
@click.option("--port", type=click.IntRange(0, 65535), default=FREE_PORT, help="Port (default: a free one).")
@click.option("--browser/--no-browser", default=True, help="Open the page in the browser of this machine.")
def view(run: Path, earlier: tuple[Path, ...], source: Path | None, reader: str, port: int, browser: bool) -> None:
    """Show the findings and images of a finished run in the browser. For research use only. Not for diagnosis.

    RUN is the folder that carina run wrote; that of a cohort (--each) opens with its table. With --earlier, slices of
    the same height are shown side by side, and what changed. The page is served on 127.0.0.1 alone, until Ctrl-C.
    """
    import webbrowser
    from threading import Thread

    from carina.service.viewer.server import loopback_listener, run_app, serve_run

    app = run_app(run, earlier, source, reader)
    listener = loopback_listener(port)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    say(f"{run}: {url} (Ctrl-C ends it)")
    say(RESEARCH_ONLY, dim=True)
    if browser:
        Thread(
            target=webbrowser.open, args=[url], daemon=True
        ).start()  # one in the terminal would keep us from serving
    serve_run(app, listener)
