"""Paths that the operating system refuses, and a process without root's rights that tries verbs on them.

Run as a program it takes a JSON list of command lines, runs each in this one process, and prints a JSON list of
``[exit code, standard output, error stream]``.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
import tempfile
from pathlib import Path

CAPABILITIES_VERSION = 0x20080522
OVERRIDE = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (capabilities(7)): with them root may read and write everything."""


def inputs(root: Path) -> dict[str, str]:
    """Paths by what is wrong with them, to be read; made below a folder that everybody may enter."""
    _file(root / "plain.txt", b"in the way")
    _file(root / "empty", b"")
    _file(root / "secret.dcm", b"nothing", mode=0)
    _file(root / "listed" / "inside.dcm", b"nothing")
    _file(root / "locked" / "inside.dcm", b"nothing")
    _file(root / "a\nb\x1b[31m\t" / "x.txt", b"nothing")
    (root / "loop").symlink_to("loop")
    (root / "leads nowhere").symlink_to("gone")
    (root / os.fsdecode(b"caf\xe9")).mkdir()
    (root / "listed").chmod(0o644)
    (root / "locked").chmod(0)
    return {
        "a long name": "a" * 300,
        "a long path": "d/" * 2500 + "x",
        "not there": str(root / "gone"),
        "below a file": str(root / "plain.txt" / "x"),
        "no text": os.fsdecode(bytes(root) + b"/caf\xe9"),
        "control characters": str(root / "a\nb\x1b[31m\t"),
        "a file without permission": str(root / "secret.dcm"),
        "a folder without permission": str(root / "locked"),
        "below a folder without permission": str(root / "locked" / "inside.dcm"),
        "a folder that can only be listed": str(root / "listed"),
        "below a folder that can only be listed": str(root / "listed" / "inside.dcm"),
        "a link to itself": str(root / "loop"),
        "a link that leads nowhere": str(root / "leads nowhere"),
        "an empty file": str(root / "empty"),
        "a file of another kind": str(root / "plain.txt"),
        "a device": "/dev/null",
    }


def outputs(root: Path) -> dict[str, str]:
    """Paths by what is wrong with them, to be written."""
    made = inputs(root)
    (root / "read-only").mkdir(mode=0o555)
    names = (
        "a long name",
        "a long path",
        "below a file",
        "a folder without permission",
        "below a folder without permission",
        "a folder that can only be listed",
        "a link to itself",
    )
    return {name: made[name] for name in names} | {
        "a read-only folder": str(root / "read-only"),
        "below a read-only folder": str(root / "read-only" / "x" / "y"),
        "below a device": "/dev/null/x",
        "nowhere to be made": "/proc/carina",
    }


def _file(path: Path, data: bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


def _lose_roots_rights() -> None:
    """Let permissions hold for root too, who runs the tests in a container."""
    system = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("=Ii", CAPABILITIES_VERSION, 0), 8)
    held = ctypes.create_string_buffer(24)
    if system.capget(header, held):
        raise OSError(ctypes.get_errno(), "capget")
    effective, permitted, *rest = struct.unpack("=6I", held.raw)
    kept = struct.pack("=6I", effective & ~OVERRIDE, permitted & ~OVERRIDE, *rest)
    if system.capset(header, ctypes.create_string_buffer(kept, 24)):
        raise OSError(ctypes.get_errno(), "capset")


def _tried(words: list[str]) -> tuple[int, str, str]:
    from carina.cli.main import main

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        kept = os.dup(1), os.dup(2)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.argv = ["carina", *words]
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode("utf-8", "replace"))
        return code, texts[0], texts[1]


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    commands = json.loads(sys.stdin.read())
    if os.geteuid() == 0:
        _lose_roots_rights()
    json.dump([_tried(words) for words in commands], sys.stdout)
