"""Networks are open while an operator uses them, and no longer."""

from __future__ import annotations

from typing import Any

import pytest

import carina.operators.networks
from carina.config import RuntimeSettings, Settings
from test_operators import NamedNetworks


def test_a_network_is_open_while_somebody_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def open_network(bundle: Any, how: RuntimeSettings) -> Any:
        opened.append(bundle.name)
        return lambda patches: [patches]

    monkeypatch.setattr(carina.operators.networks, "open_network", open_network)
    networks = NamedNetworks(Settings())
    with networks.opened("lung") as first, networks.opened("lung") as second, networks.opened("lesion"):
        assert first is second and opened == ["true-lung", "true-lesion"]
    with pytest.raises(ZeroDivisionError, match="by hand"), networks.opened("lung"):
        raise ZeroDivisionError("by hand")
    with networks.opened("lung") as again:
        assert again is not first and opened == ["true-lung", "true-lesion", "true-lung", "true-lung"]
