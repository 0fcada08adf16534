"""What the node opens to others goes through one door for each kind, which knows TLS."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src" / "carina"

OPENERS = {
    "associate": {"deliver/association.py"},
    "build_opener": {"deliver/paced_http.py", "cli/health.py"},
    "SMTP": {"deliver/mail.py"},
    "SMTP_SSL": {"deliver/mail.py"},
    "create_connection": {"receive/source_echo.py", "service/endpoint.py", "database/greeting.py"},
    "urlopen": set(),
    "HTTPConnection": {"deliver/paced_http.py", "service/endpoint.py"},
    "HTTPSConnection": {"deliver/paced_http.py"},
    "connect_ex": set(),
}
"""Files that may call, or build upon, what opens a connection.

``health`` and ``reach`` ask this machine's own ports; ``endpoint`` asks the server of networks, whose client is a
library's, whether it is there; ``greeting`` asks a database's, whose client is one too, whether it takes anybody.
"""


def test_each_kind_of_connection_is_opened_in_one_place() -> None:
    found: dict[str, set[str]] = {name: set() for name in OPENERS}
    for file in SOURCE.rglob("*.py"):
        where = file.relative_to(SOURCE).as_posix()
        if where.startswith("testing/"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for name in _used(node):
                if name in OPENERS:
                    found[name].add(where)
    assert found == OPENERS


def _used(node: ast.AST) -> list[str]:
    """What is called here, or built upon."""
    if isinstance(node, ast.ClassDef):
        return [_last(base) for base in node.bases]
    return [_last(node.func)] if isinstance(node, ast.Call) else []


def _last(called: ast.expr) -> str:
    return called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
