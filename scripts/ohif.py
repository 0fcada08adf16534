"""OHIF in a browser, reading from a node: for whoever wants to see a node's series and masks in a viewer of others.

Usage: scripts/ohif.py DIST [--node http://127.0.0.1:8042] [--port 3000] [--token TOKEN] [--requests FILE]

DIST is the folder ``package/dist`` of the npm package ``@ohif/app`` (MIT, 50 MB; ``npm pack @ohif/app`` and unpack it),
which stays as it is. Pages and DICOMweb come from one origin, so that the node needs to trust no other: what OHIF asks
for below ``/dicom-web`` is passed on to the node. ``--requests`` notes what it asks for, a line each.

It needs httpx, which a node alone does not: ``pip install httpx``.
"""

from __future__ import annotations

import argparse
import json
import mimetypes
import os
from collections.abc import AsyncIterator
from pathlib import Path

try:
    import httpx
except ImportError:
    raise SystemExit("scripts/ohif.py needs httpx, which a node alone does not: pip install httpx") from None
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

ROOT = "/dicom-web"
PASSED = ("accept", "host", "range")
"""The node then names its objects by the address that the browser knows."""
GIVEN = ("content-type", "warning", "content-range")

SOURCE = {
    "friendlyName": "Carina",
    "name": "carina",
    "qidoRoot": ROOT,
    "wadoRoot": ROOT,
    "wadoUriRoot": ROOT,
    "qidoSupportsIncludeField": True,
    "supportsFuzzyMatching": False,
    "supportsWildcard": True,
    "imageRendering": "wadors",
    "thumbnailRendering": "wadors",
    "enableStudyLazyLoad": True,
    "omitQuotationForMultipartRequest": True,
    "bulkDataURI": {"enabled": True},
}
"""How OHIF is told to read from a node."""

NAMESPACE = "@ohif/extension-default.dataSourcesModule.dicomweb"


def app_config() -> str:
    """OHIF's settings, in place of those of its package."""
    settings = {
        "routerBasename": "/",
        "extensions": [],
        "modes": [],
        "showStudyList": True,
        "defaultDataSourceName": "carina",
        "dataSources": [{"namespace": NAMESPACE, "sourceName": "carina", "configuration": SOURCE}],
    }
    return f"window.config = {json.dumps(settings, indent=2)};\n"


class Front:
    """OHIF's files, and the node behind them."""

    def __init__(self, dist: Path, client: httpx.AsyncClient, requests: Path | None) -> None:
        self._dist, self._client, self._requests = dist.resolve(), client, requests

    async def config(self, _: Request) -> Response:
        """The settings."""
        return Response(app_config(), media_type="text/javascript")

    async def file(self, request: Request) -> Response:
        """A file of OHIF, its one page for every other path."""
        found = (self._dist / request.path_params["path"]).resolve()
        if not found.is_file() or not found.is_relative_to(self._dist):
            found = self._dist / "index.html"
        return FileResponse(found, media_type=mimetypes.guess_type(found.name)[0])

    async def node(self, request: Request) -> Response:
        """What the node answers."""
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        shown = {name: request.headers[name] for name in PASSED if name in request.headers}
        answer = await self._client.send(self._client.build_request("GET", path, headers=shown), stream=True)
        if self._requests is not None:
            with self._requests.open("a", encoding="utf-8") as file:
                file.write(f"{answer.status_code} {path} {shown.get('accept', '')}\n")
        headers = {name: answer.headers[name] for name in GIVEN if name in answer.headers}
        return StreamingResponse(_body(answer), status_code=answer.status_code, headers=headers)


async def _body(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for part in answer.aiter_raw():
            yield part
    finally:
        await answer.aclose()


def front_of(dist: Path, node: str, token: str, requests: Path | None) -> Starlette:
    """The application."""
    headers = {"accept-encoding": "identity"} | ({"authorization": f"Bearer {token}"} if token else {})
    front = Front(dist, httpx.AsyncClient(base_url=node, headers=headers, timeout=120), requests)
    return Starlette(
        routes=[
            Route("/app-config.js", front.config),
            Route(ROOT + "/{path:path}", front.node),
            Route("/{path:path}", front.file),
        ]
    )


def main() -> None:
    """Serve until asked to end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dist", type=Path)
    parser.add_argument("--node", default="http://127.0.0.1:8042")
    parser.add_argument("--port", type=int, default=3000)
    parser.add_argument("--token", default=os.environ.get("CARINA_TOKEN", ""), help="of a node with log-in")
    parser.add_argument("--requests", type=Path)
    wanted = parser.parse_args()
    if not (wanted.dist / "index.html").is_file():
        raise SystemExit(f"{wanted.dist}: no index.html there; expected package/dist of the npm package @ohif/app.")
    print(f"OHIF on http://127.0.0.1:{wanted.port}/ reads from {wanted.node}. For research use only.", flush=True)
    app = front_of(wanted.dist, wanted.node, wanted.token, wanted.requests)
    uvicorn.run(app, host="127.0.0.1", port=wanted.port, log_level="warning")


if __name__ == "__main__":
    main()
