"""The gallery's page is what its script writes, and shows no case without its origin."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gallery_script", ROOT / "scripts" / "gallery.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_the_page_begins_as_the_script_begins_it(script: ModuleType) -> None:
    head, _, _ = script.page([], []).partition("## Hard cases")
    assert PAGE.startswith(head.rstrip() + "\n")


def test_every_chest_that_is_shown_has_its_origin_and_licence(script: ModuleType) -> None:
    shown = re.findall(r"^### (\S+)\n(.*?) *$", PAGE, re.MULTILINE)
    assert shown and [(name, script.ORIGINS[name]) for name, _ in shown] == shown
    assert [origin for origin in script.ORIGINS.values() if not re.search(r", CC BY \d\.0; ", origin)] == []


def test_volume_files_are_cases_and_masks_beside_them_are_not(script: ModuleType, tmp_path: Path) -> None:
    for name in ("b_ct.nii.gz", "b_lung.nii.gz", "a-1_ct.nii.gz"):
        (tmp_path / name).touch()
    assert [name for _, name in script.volume_files(tmp_path)] == ["a-1", "b"]
