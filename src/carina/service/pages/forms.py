"""What a form of a page says."""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.requests import Request

from carina.service.rest.operation import body_of


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form that were filled in.

    Raises:
        NotUnderstood: it is larger than any form of ours.
    """
    return dict(await form_pairs(request))


async def form_pairs(request: Request) -> list[tuple[str, str]]:
    """The same of a form that has several fields of one name.

    Raises:
        NotUnderstood: it is larger than any form of ours.
    """
    pairs = parse_qsl((await body_of(request)).decode("utf-8", "replace"), keep_blank_values=True)
    return [(name, value) for name, value in pairs if value]


def own_place(address: str) -> str:
    """An address to go to after a form, if it is one of this node; the worklist otherwise."""
    is_own = address.startswith("/") and not address.startswith(("//", "/\\"))
    return address if is_own and address.isprintable() else "/"
