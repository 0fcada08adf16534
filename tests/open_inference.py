"""A small server that speaks the Open Inference Protocol over HTTP, binary tensors included, around any function."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np


class Server(ThreadingHTTPServer):
    model: str
    run: Callable[[np.ndarray], np.ndarray]
    ready = True
    fails = ""
    requests = 0


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        here = f"/v2/models/{self.server.model}"
        if self.path == "/v2/health/live":
            self.answer(200)
        elif self.path in ("/v2/health/ready", f"{here}/ready"):
            self.answer(200 if self.server.ready else 400)
        elif self.path == here:
            tensor = {"datatype": "FP32", "shape": [-1, 1, -1, -1, -1]}
            body = {
                "name": self.server.model,
                "inputs": [{"name": "in", **tensor}],
                "outputs": [{"name": "out", **tensor}],
            }
            self.answer(200, json.dumps(body).encode())
        else:
            self.answer(400, json.dumps({"error": "unknown model"}).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if not self.path.endswith("/infer"):
            self.answer(404, json.dumps({"error": "not of the protocol"}).encode())
            return
        self.server.requests += 1
        if self.server.fails:
            self.answer(500, json.dumps({"error": self.server.fails}).encode())
            return
        header = int(self.headers["Inference-Header-Content-Length"])
        tensor = json.loads(body[:header])["inputs"][0]
        assert tensor["name"] == "in"
        patches = np.frombuffer(body[header:], dtype="<f4").reshape(tensor["shape"])
        scores = np.ascontiguousarray(self.server.run(patches), dtype="<f4")
        output = {
            "name": "out",
            "datatype": "FP32",
            "shape": list(scores.shape),
            "parameters": {"binary_data_size": scores.nbytes},
        }
        text = json.dumps({"model_name": self.server.model, "outputs": [output]}).encode()
        self.answer(200, text + scores.tobytes(), len(text))

    def answer(self, status: int, body: bytes = b"", header: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream" if header else "application/json")
        self.send_header("Content-Length", str(len(body)))
        if header:
            self.send_header("Inference-Header-Content-Length", str(header))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(model: str, run: Callable[[np.ndarray], np.ndarray]) -> Iterator[tuple[Server, str]]:
    """The server and its endpoint."""
    server = Server(("127.0.0.1", 0), Handler)
    server.model, server.run = model, run
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
