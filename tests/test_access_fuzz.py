"""schemathesis over the document of the REST interface: whatever it thinks of, the node does not break."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance

from access_nodes import Guarded, guarded
from carina.service.rest.routes import EVERY_OPERATION, PREFIX, node_document

EXAMPLES = 12
"""Of each operation, those that fit the document and those that don't."""

SCHEMA = schemathesis.openapi.from_dict(node_document())


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(tmp_path_factory.mktemp("fuzzed")) as served:
        yield served


@pytest.fixture(scope="module")
def session(node: Guarded) -> Iterator[requests.Session]:
    with requests.Session() as opened:
        opened.headers["authorization"] = f"Bearer {node.tokens['operator']}"
        yield opened


def confined(case: Case[Any]) -> Case[Any]:
    """The case, its path below the working folder: a walk over the whole disk is no fault of the interface."""
    body: Any = case.body
    if isinstance(body, dict) and isinstance(body.get("path"), str):
        body["path"] = body["path"].replace("/", "_").replace("..", "_")
    return case


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
@pytest.mark.parametrize("operation", EVERY_OPERATION, ids=lambda one: one.name)
def test_nothing_that_is_asked_breaks_the_node(
    node: Guarded,
    session: requests.Session,
    operation: Any,
    mode: GenerationMode,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    described = SCHEMA[PREFIX + operation.path][operation.method]
    tried: list[int] = []

    @seed(20261127)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=described.as_strategy(generation_mode=mode))
    def ask(case: Case[Any]) -> None:
        answer = confined(case).call(base_url=node.url, session=session)
        tried.append(answer.status_code)
        case.validate_response(answer, checks=[not_a_server_error, response_schema_conformance])

    if mode is GenerationMode.POSITIVE or described.body or described.query or described.path_parameters:
        ask()
        assert tried
