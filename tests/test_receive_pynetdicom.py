"""What our acceptor takes of pynetdicom that is private there: a version that lacks a name fails here, by its name."""

from __future__ import annotations

import ast
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pynetdicom
import pytest
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.fsm import TRANSITION_TABLE
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

SOURCE = Path(__file__).parents[1] / "src" / "carina"
ROOMS = ("receive", "deliver", "testing")


@pytest.fixture
def owners() -> Iterator[dict[str, object]]:
    """Each private name and the object that has it."""
    association = Association(AE(), "requestor")
    with socket.socket() as connection:
        yield {
            "_accepted_cx": association,
            "_bind_defaults": ThreadedAssociationServer,
            "_config": pynetdicom,
            "_create_association": RequestHandler,
            "_INTERVENTION_EVENTS": evt,
            "_is_connected": AssociationSocket(association, client_socket=connection),
            "_is_paused": association,
            "_kill": association,
            "_kill_thread": association.dul,
            "_reactor_checkpoint": association,
            "_run_loop_delay": association.dul,
            "_serve_request": association,
            "_server": association,
            "_servers": AE(),
        }


def trees() -> Iterator[ast.AST]:
    """The modules that use pynetdicom."""
    texts = (file.read_text(encoding="utf-8") for room in ROOMS for file in (SOURCE / room).glob("*.py"))
    yield from (ast.parse(text) for text in texts if "from pynetdicom" in text)


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def own_names() -> set[str]:
    """What the rooms define themselves."""
    found: set[str] = set()
    for node in (node for tree in trees() for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def names_of_others() -> set[str]:
    """Private attributes that no module of the rooms makes, and private names that are imported from pynetdicom."""
    found: set[str] = set()
    for node in (node for tree in trees() for node in ast.walk(tree)):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("pynetdicom"):
            found |= {one.name for one in node.names}
    return {name for name in found if private(name)} - own_names()


def test_every_private_name_that_is_used_is_asked_for_and_there(owners: dict[str, object]) -> None:
    assert names_of_others() <= set(owners), "a name that this test does not ask for"
    assert {"_kill", "_run_loop_delay", "_INTERVENTION_EVENTS", "_config"} <= names_of_others()
    lacking = [name for name, owner in owners.items() if not hasattr(owner, name)]
    assert lacking == [], f"pynetdicom {pynetdicom.__version__} has no {', '.join(lacking)}"


def test_the_switch_for_unknown_storage_classes_is_there() -> None:
    assert isinstance(_config.UNRESTRICTED_STORAGE_SERVICE, bool)


def test_every_event_that_is_named_is_one_of_the_state_machines() -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in (SOURCE / "receive").glob("*.py"))
    used = {one.group(1) for one in re.finditer(r'"(Evt\d+)"', text)}
    assert {"Evt17", "Evt18", "Evt19"} <= used <= {event for event, _ in TRANSITION_TABLE}
