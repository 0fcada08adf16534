"""Numbers on the command line: what each may be is said before anything is made, opened or asked for."""

from __future__ import annotations

from typing import Any

import click
from click.types import IntParamType

LARGEST = 2**62
"""As in REST; every database can hold it."""


class NodeNumber(IntParamType):
    """The number of a job, an arrival or a delivery."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number; what can't be one is refused as wrong usage."""
        number = int(super().convert(value, param, ctx))
        if not 1 <= number <= LARGEST:
            self.fail("a node numbers what it has from 1 on, up to 2^62.", param, ctx)
        return number


NODE_NUMBER = NodeNumber()

BEFORE = click.option(
    "--before", type=NODE_NUMBER, metavar="ID", help="Only those with an id below this one: the next page."
)

SLICE_COUNT = click.IntRange(2, 4096)
PIXEL_COUNT = click.IntRange(2, 4096)
LESIONS_ASKED = click.IntRange(0, 254)
"""A phantom's: each lesion has a label of its own."""

SEED = click.IntRange(0, 2**63 - 1)
CASES_ASKED = click.IntRange(1, 1_000_000)
SHARE_ASKED = click.FloatRange(0, 1)
