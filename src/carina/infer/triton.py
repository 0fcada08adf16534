"""Networks on a Triton server, or any other that speaks the Open Inference Protocol (KServe v2), HTTP or gRPC."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from carina.config import RuntimeSettings
from carina.errors import BadConfig, ModelFailed
from carina.models.bundle import Bundle

Array = npt.NDArray[np.float32]


def open_triton(bundle: Bundle, settings: RuntimeSettings) -> Callable[[Array], Array]:
    """A runtime that asks the server at ``settings.endpoint`` (``http://``, ``https://`` or ``grpc://``).

    The model's name is the bundle's ``served_as``; its first input and first output are used.

    Raises:
        BadConfig: the endpoint is missing or away, not ready, or lacks the model.
    """
    library, connect, limit = _transport(settings)
    model = bundle.served_as
    local = threading.local()

    def client() -> Any:
        """One client for each thread: the HTTP one may not be shared."""
        if not hasattr(local, "client"):
            local.client = connect()
        return local.client

    name, output = _check(client, library, model, settings.endpoint)

    def run(patches: Array) -> Array:
        tensor = library.InferInput(name, list(patches.shape), "FP32")
        tensor.set_data_from_numpy(patches)
        try:
            answer = client().infer(model, [tensor], outputs=[library.InferRequestedOutput(output)], **limit)
        except Exception as error:
            raise ModelFailed(
                "triton.failed", f"Triton at {settings.endpoint}, model {model}: the request failed ({_said(error)})."
            ) from error
        return np.asarray(answer.as_numpy(output), dtype=np.float32)

    return run


def _transport(settings: RuntimeSettings) -> tuple[Any, Callable[[], Any], dict[str, float]]:
    """The client library, what makes a client, and how its requests are told the time limit."""
    scheme, _, address = settings.endpoint.rstrip("/").partition("://")
    if scheme not in ("http", "https", "grpc") or not address:
        raise BadConfig(
            "triton.endpoint",
            f"runtime.endpoint is {settings.endpoint!r}; expected http://host:8000, https://host:8000 or "
            "grpc://host:8001 for runtime.kind triton.",
        )
    try:
        if scheme == "grpc":
            import tritonclient.grpc as library

            return library, lambda: library.InferenceServerClient(address), {"client_timeout": settings.timeout_s}
        import tritonclient.http as library
    except ImportError as error:
        raise BadConfig(
            "runtime.not-installed",
            "The runtime needs the package tritonclient, which is not installed: pip install 'carina-ct[triton]', "
            "or choose another runtime.kind.",
        ) from error
    timeout_s = settings.timeout_s

    def connect() -> Any:
        return library.InferenceServerClient(
            address, ssl=scheme == "https", connection_timeout=timeout_s, network_timeout=timeout_s
        )

    return library, connect, {}


def _check(client: Callable[[], Any], library: Any, model: str, endpoint: str) -> tuple[str, str]:
    """The names of the model's first input and output, after asking whether server and model are ready."""
    where = f"Triton at {endpoint}"
    try:
        ready = client().is_server_ready()
    except Exception as error:
        raise BadConfig(
            "triton.away", f"{where}: no answer ({_said(error)}). Start it, or correct runtime.endpoint."
        ) from error
    if not ready:
        raise BadConfig("triton.not-ready", f"{where}: the server is not ready yet; try again when it is.")
    try:
        if not client().is_model_ready(model):
            raise BadConfig(
                "triton.model",
                f"{where}: it lacks the model {model!r}, or has not loaded it; put the bundle's model.onnx into its "
                "model repository under this name, or set served_as in the bundle.",
            )
        metadata = client().get_model_metadata(model)
    except library.InferenceServerException as error:
        raise BadConfig("triton.model", f"{where}: it can't describe the model {model!r} ({_said(error)}).") from error
    if not isinstance(metadata, dict):
        return metadata.inputs[0].name, metadata.outputs[0].name
    return str(metadata["inputs"][0]["name"]), str(metadata["outputs"][0]["name"])


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
