"""What many tests make in the same way is made once in a process: it costs more than most of what they look at."""

from __future__ import annotations

import asyncio
import copy
import functools
import os
import sqlite3
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import httpx._config
import httpx._transports.default
import pytest
import uvicorn.server
from argon2 import PasswordHasher
from sqlalchemy import Connection, update

from carina.database import IDENTITY, open_database, upgrade
from carina.service.access import credentials
from carina.synth import phantom

MOST_VOXELS = 4_000_000
"""The size of the largest phantom that is kept."""


def remember(patch: pytest.MonkeyPatch) -> None:
    """Remember phantoms, the first schema of a database and the system's certificates, for as long as ``patch``.

    Passwords are hashed in a millisecond: what makes them dear to guess would be paid at each log-in of a test. A
    server looks 50 times a second whether it is to end, not 10: hundreds of tests wait for that of theirs.
    """
    patch.setattr(uvicorn.server, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": _nap}))
    patch.setattr(credentials, "_HASHER", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
    patch.setattr(phantom, "chest_phantom", _phantoms(phantom.chest_phantom))
    patch.setattr(upgrade, "_migrate", _schemas(upgrade._migrate))
    trusting = _trust(httpx._config.create_ssl_context)
    patch.setattr(httpx._transports.default, "create_ssl_context", trusting)


async def _nap(delay_s: float) -> None:
    await asyncio.sleep(min(delay_s, 0.02))


def _phantoms(make: Any) -> Any:
    """Phantoms of the same words are copies of one: its 5,800 vessels take 0.7 s of a processor at any size."""
    kept = functools.lru_cache(maxsize=32)(make)

    @functools.wraps(make)
    def copied(*, shape: tuple[int, int, int] = (120, 256, 256), **words: Any) -> phantom.Phantom:
        if shape[0] * shape[1] * shape[2] > MOST_VOXELS:
            return cast("phantom.Phantom", make(shape=shape, **words))
        fixed = {key: tuple(value) if isinstance(value, Sequence) else value for key, value in words.items()}
        return cast("phantom.Phantom", copy.deepcopy(kept(shape=shape, **fixed)))

    return copied


def _schemas(migrate: Any) -> Any:
    """An empty SQLite database gets its tables as a copy of one that was migrated: 0.17 s of a processor less."""
    made: list[str] = []

    def copied(connection: Connection, found: str | None) -> None:
        if found is not None or connection.dialect.name != "sqlite":
            migrate(connection, found)
            return
        if not made:
            engine = open_database("sqlite://")
            with engine.begin() as first:
                migrate(first, None)
            with engine.connect() as first:
                dump = cast("sqlite3.Connection", first.connection.driver_connection).iterdump()
                made.extend(line for line in dump if line not in ("BEGIN TRANSACTION;", "COMMIT;"))
            engine.dispose()
        for statement in made:
            connection.exec_driver_sql(statement)
        connection.execute(update(IDENTITY).values(uuid=uuid4().hex))

    return copied


def _trust(make: Any) -> Any:
    """A request of httpx's reads the list of authorities, 0.03 to 0.15 s of a processor, even if it is none of TLS."""

    @functools.cache
    def usual(**_where: object) -> Any:
        return make()

    def trusting(*, verify: Any, cert: Any, trust_env: bool) -> Any:
        if verify is not True or cert is not None or not trust_env:
            return make(verify=verify, cert=cert, trust_env=trust_env)
        return usual(file=os.environ.get("SSL_CERT_FILE"), folder=os.environ.get("SSL_CERT_DIR"))

    return trusting
