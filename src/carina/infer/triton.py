"""Networks on a Triton server, or any other that speaks the Open Inference Protocol (KServe v2), HTTP or gRPC.

Readiness, metadata and inference are of the protocol; the repository's index and the model's configuration are
extensions of Triton's, asked only to say more, and not missed where a server lacks them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from http.client import HTTPException
from typing import Any

import numpy as np

from carina.config import RuntimeSettings
from carina.errors import BadConfig, CarinaError, ModelFailed
from carina.models.bundle import Bundle
from carina.models.class_maps import used_outputs
from carina.models.triton_repository import WEIGHTS_PARAMETER
from carina.models.weights_digest import weights_sha256
from carina.volume.arrays import Floats

SCHEMES = ("http", "https", "grpc", "grpcs")

CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
"""gRPC's own limits would refuse a window (4 MB), and wait up to two minutes before asking a restarted server again."""


def open_triton(bundle: Bundle, settings: RuntimeSettings) -> Callable[[Floats], Sequence[Floats]]:
    """A runtime that asks the server at ``settings.endpoint`` (``http://``, ``https://``, ``grpc://``, ``grpcs://``).

    The model's name is the bundle's ``served_as``; its first input and `used_outputs` are used. Connections are kept:
    one for each thread over HTTP, one for all over gRPC. ``settings.timeout_s`` limits each answer.

    Raises:
        BadConfig: the endpoint is missing or away, not ready, lacks the model, or serves other weights.
    """
    model = _Model(bundle, settings)
    name, *outputs = model.checked()
    most = model.max_batch()

    def ask(patches: Floats) -> Sequence[Floats]:
        tensor = model.library.InferInput(name, list(patches.shape), "FP32")
        tensor.set_data_from_numpy(patches)
        wanted = [model.library.InferRequestedOutput(output) for output in outputs]
        try:
            answer = model.client().infer(model.name, [tensor], outputs=wanted, **model.limit)
            return [np.asarray(answer.as_numpy(output), dtype=np.float32) for output in outputs]
        except Exception as error:
            raise model.failed(error) from error

    def run(patches: Floats) -> Sequence[Floats]:
        if not 0 < most < len(patches):
            return ask(patches)
        answers = [ask(patches[start : start + most]) for start in range(0, len(patches), most)]
        return [np.concatenate(parts) for parts in zip(*answers, strict=True)]

    return run


class _Model:
    """One model of a server: how to ask for it, and what its answers mean."""

    def __init__(self, bundle: Bundle, settings: RuntimeSettings) -> None:
        self.bundle = bundle
        self.name = bundle.served_as
        self.where = f"Triton at {settings.endpoint}"
        self.timeout_s = settings.timeout_s
        self.library, self.client, self.limit = _transport(settings)

    def ask(self, question: str, *arguments: str) -> Any:
        """Ask the client's method ``question``; dictionaries and lists come back the same by both transports."""
        options: dict[str, Any] = dict(self.limit)
        if self.limit and question.startswith("get_"):
            options["as_json"] = True
        return getattr(self.client(), question)(*arguments, **options)

    def checked(self) -> list[str]:
        """The names of the model's first input and used outputs, after asking whether server and model are ready.

        A server whose other models fail calls itself not ready; only this model counts here.
        """
        try:
            if not self.ask("is_server_live") or not self.ask("is_model_ready", self.name):
                raise self.unready()
            metadata = self.ask("get_model_metadata", self.name)
        except CarinaError:
            raise
        except Exception as error:
            raise self.unasked(error) from error
        self.check_weights()
        outputs = metadata["outputs"]
        tensors = [metadata["inputs"][0], *(outputs[k] for k in used_outputs([one["name"] for one in outputs]))]
        for tensor in tensors:
            if tensor["datatype"] != "FP32":
                raise BadConfig(
                    "triton.model",
                    f"{self.where}: the model {self.name!r} takes or gives {tensor['datatype']} as {tensor['name']!r}; "
                    f"the bundle {self.bundle.name} has FP32. Write its model repository again.",
                )
        return [str(tensor["name"]) for tensor in tensors]

    def check_weights(self) -> None:
        """Refuse a model that says it has other weights than the bundle: results name the bundle's."""
        served = self.config().get("parameters", {}).get(WEIGHTS_PARAMETER, {}).get("string_value")
        if served and served != weights_sha256(self.bundle.onnx):
            raise BadConfig(
                "triton.weights",
                f"{self.where}: the model {self.name!r} has other weights (SHA-256 {served[:12]}...) than the bundle "
                f"{self.bundle.made_by}; write the bundle into its model repository again, or choose the bundle "
                "that is served.",
            )

    def max_batch(self) -> int:
        """The most patches of one request; 0 where there is no batching or the server does not say."""
        return int(self.config().get("max_batch_size", 0))

    def config(self) -> Any:
        """The model's configuration, empty where the server does not tell."""
        config = self.extension("get_model_config", self.name) or {}
        return config.get("config", config)

    def unready(self) -> BadConfig:
        """Why the model is not ready, as far as the server tells."""
        index = self.extension("get_model_repository_index")
        if index is None and not self.ask("is_server_ready"):
            return BadConfig("triton.not-ready", f"{self.where}: the server is not ready yet; try again when it is.")
        if index is None:
            return self.lacking("or has not loaded it")
        rows = index.get("models", []) if isinstance(index, dict) else index
        mine = next((row for row in rows if row["name"] == self.name), None)
        if mine is None:
            return self.lacking(f"it has {', '.join(sorted({row['name'] for row in rows})) or 'none'}")
        return self.unloaded(mine.get("state", ""), " ".join(mine.get("reason", "").split()))

    def unloaded(self, state: str, reason: str) -> BadConfig:
        """Why a model that is in the repository is not ready."""
        if state == "LOADING":
            return BadConfig(
                "triton.not-ready", f"{self.where}: it is loading the model {self.name!r}; try again soon."
            )
        return BadConfig(
            "triton.not-ready",
            f"{self.where}: the model {self.name!r} is in its repository but not loaded "
            f"({reason or 'nobody asked for it'}); mend it, or have the server load it (its log says more).",
        )

    def lacking(self, detail: str) -> BadConfig:
        return BadConfig(
            "triton.model",
            f"{self.where}: it lacks the model {self.name!r} ({detail}); write the bundle into its model repository, "
            "or set served_as in the bundle.",
        )

    def extension(self, question: str, *arguments: str) -> Any:
        """The answer to a question that not every server knows; None where it does not."""
        try:
            return self.ask(question, *arguments)
        except self.library.InferenceServerException as error:
            if _is_timeout(error) or _is_away(error):
                raise self.unasked(error) from error
            return None

    def unasked(self, error: Exception) -> BadConfig:
        """A question before the first patch that got no answer, or a wrong one."""
        if _is_timeout(error):
            return self.late()
        if isinstance(error, self.library.InferenceServerException) and not _is_away(error):
            return BadConfig(
                "triton.model", f"{self.where}: it can't describe the model {self.name!r} ({_said(error)})."
            )
        return BadConfig(
            "triton.away", f"{self.where}: no answer ({_said(error)}). Start it, or correct runtime.endpoint."
        )

    def late(self) -> BadConfig:
        return BadConfig(
            "triton.timeout",
            f"{self.where}, model {self.name}: no answer within {self.timeout_s:g} s; look at the server's load, "
            "or raise runtime.timeout_s.",
        )

    def failed(self, error: Exception) -> CarinaError:
        """A patch that got no scores."""
        if _is_timeout(error):
            return self.late()
        if _is_away(error):
            return BadConfig(
                "triton.away",
                f"{self.where}, model {self.name}: the connection broke ({_said(error)}). Start it again, "
                "then repeat the run.",
            )
        return ModelFailed("triton.failed", f"{self.where}, model {self.name}: the request failed ({_said(error)}).")


def _transport(settings: RuntimeSettings) -> tuple[Any, Callable[[], Any], dict[str, float]]:
    """The client library, what gives the client of a thread, and how each request is told the time limit."""
    scheme, _, address = settings.endpoint.rstrip("/").partition("://")
    if scheme not in SCHEMES or not address:
        raise BadConfig(
            "triton.endpoint",
            f"runtime.endpoint is {settings.endpoint!r}; expected http://host:8000, https://host:8000, "
            "grpc://host:8001 or grpcs://host:8001 for runtime.kind triton.",
        )
    secure, timeout_s = scheme.endswith("s"), settings.timeout_s
    try:
        if scheme.startswith("grpc"):
            import tritonclient.grpc as library

            shared = library.InferenceServerClient(address, ssl=secure, channel_args=CHANNEL)
            return library, lambda: shared, {"client_timeout": timeout_s}
        import tritonclient.http as library
    except ImportError as error:
        raise BadConfig(
            "runtime.not-installed",
            "The runtime needs the package tritonclient, which is not installed: pip install 'carina-ct[triton]', "
            "or choose another runtime.kind.",
        ) from error
    local = threading.local()

    def client() -> Any:
        """The HTTP client may not be shared between threads."""
        if not hasattr(local, "client"):
            local.client = library.InferenceServerClient(
                address, ssl=secure, connection_timeout=timeout_s, network_timeout=timeout_s
            )
        return local.client

    return library, client, {}


def _is_timeout(error: Exception) -> bool:
    return isinstance(error, TimeoutError) or _status(error) == "StatusCode.DEADLINE_EXCEEDED"


def _is_away(error: Exception) -> bool:
    """The server is not there, or the connection to it broke: no error of the server's own."""
    return isinstance(error, (OSError, HTTPException)) or _status(error) == "StatusCode.UNAVAILABLE"


def _status(error: Exception) -> str:
    """The status of the client library's own errors, of gRPC or HTTP."""
    return str(error.status()) if hasattr(error, "status") else ""


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
