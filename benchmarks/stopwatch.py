"""Where the seconds go: a stopwatch, and one that listens to a module's functions."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch


class Stopwatch:
    """Seconds by stage; nested stages are subtracted from the outer one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What happens inside counts for ``name``."""
        start = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[name] += spent - self._inner.pop()
            self._inner[-1] += spent

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, its calls counted for ``name``."""

        def call(*args: Any, **keys: Any) -> Any:
            with self.stage(name):
                return function(*args, **keys)

        return call

    @contextmanager
    def listening(self, module: Any, stages: dict[str, str]) -> Iterator[None]:
        """While open, calls of ``module``'s functions (by name) count for their stage."""
        with ExitStack() as stack:
            for function, stage in stages.items():
                stack.enter_context(patch.object(module, function, self.timed(stage, getattr(module, function))))
            yield

    @property
    def total(self) -> float:
        """All stages together."""
        return sum(self.seconds.values())
