"""A watched folder that can't be read: the check of the settings says so, and the node is not ready meanwhile."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import msgspec
import pytest

from carina.config import FolderSource
from carina.database import Outages
from carina.errors import BadConfig
from carina.receive.folder import WatchedFolder
from carina.service.check import check_across
from carina.service.health import readiness
from carina.service.node import RunningNode
from carina.service.parts import _watch
from served_nodes import opened
from waiting import wait_until

SETTINGS = '[sources.inbox]\nkind = "folder"\npath = "{inbox}"\nquiet_s = 0.02\n'


@pytest.fixture
def node(tmp_path: Path) -> RunningNode:
    (tmp_path / "inbox").mkdir()
    node = opened(tmp_path, SETTINGS.format(inbox=tmp_path / "inbox"))
    node.is_recovered.set()
    return node


def test_a_folder_that_the_user_may_not_read_is_a_mistake(node: RunningNode, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not [one for one in check_across(node.settings) if one.key[0] == "sources"]
    inbox = str(node.folder.parent / "inbox")
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != inbox and allowed(path, mode))
    (mistake,) = [one for one in check_across(node.settings) if one.key[0] == "sources"]
    assert mistake.key == ("sources", "inbox", "path")
    assert mistake.words == f"'{inbox}' can't be read by this user; let the node's user read it"


def test_a_node_is_not_ready_while_a_folder_can_not_be_read(node: RunningNode) -> None:
    source = node.settings.sources["inbox"]
    assert isinstance(source, FolderSource)
    folder, looked = WatchedFolder("inbox", source, node.store), threading.Event()
    tell = folder.outages.tell

    def told(outage: BadConfig) -> None:
        tell(outage)
        looked.set()

    folder.outages.tell = told  # type: ignore[method-assign, assignment]
    Path(source.path).rmdir()
    watching = threading.Thread(target=_watch, args=(node, folder, node.stop), daemon=True)
    watching.start()
    wait_until(looked.is_set)
    words = f"folder of inbox: {source.path} can't be read (No such file or directory)"
    assert any(one.startswith(words) for one in readiness(node).troubles)
    node.stop.set()
    watching.join()


def test_another_project_is_not_told_whose_folder_it_is(node: RunningNode) -> None:
    outages = node.outages["folder inbox"] = Outages("folder of inbox", "")
    outages.tell(BadConfig("receive.folder", "/secret can't be read."))
    assert any("/secret" in one for one in readiness(node).troubles)
    settings = msgspec.structs.replace(node.settings, sources={})
    other = RunningNode(settings=settings, engine=node.engine, outages=node.outages, projects=frozenset({"other"}))
    said = readiness(other).troubles
    assert not any("/secret" in one or "inbox" in one for one in said)
    assert any("a part that is not shown to you" in one for one in said)
