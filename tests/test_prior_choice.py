"""The earlier chest CT of a patient, fetched for a new scan: which of the series that a peer lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from carina.dicom.rules import load_rules
from carina.receive.fetch import FoundSeries
from carina.receive.patient import ScanOf
from carina.receive.prior_choice import earlier_chests

THIS = ScanOf(patient_id="KW-4711", issuer="", studied="20260401101500")


def listed(number: int, description: str = "Thorax 1.0", **more: Any) -> FoundSeries:
    """A series of a study of its own, a month earlier."""
    values: dict[str, Any] = {
        "study_uid": f"1.{number}",
        "study_date": "20260301",
        "patient_id": "KW-4711",
        "instances": 300,
    }
    return FoundSeries(series_uid=f"1.{number}.{len(description)}", description=description, **values | more)


CHOICES: Mapping[str, tuple[list[FoundSeries], list[str]]] = {
    "the chest of a study": (
        [listed(1, "Topogram"), listed(1, "Abdomen 1.0"), listed(1, "Thorax 1.0"), listed(1, "MIP lung")],
        ["Thorax 1.0"],
    ),
    "by body part": ([listed(1, "1.0 I40f", body_part="CHEST"), listed(1, "B", body_part="ABDOMEN")], ["1.0 I40f"]),
    "nothing but elsewhere": ([listed(1, "Abdomen 1.0"), listed(2, "Head 4.0")], []),
    "many slices before one": (
        [listed(1, "Thorax a", instances=1), listed(1, "Thorax lung", instances=90)],
        ["Thorax lung"],
    ),
    "one object of many frames": ([listed(1, "Thorax", instances=1)], ["Thorax"]),
    "the latest studies": (
        [listed(1, "CT Thorax", study_date="20250101"), listed(2, "Chest", study_date="20260101"), listed(3, "Lung")],
        ["Lung", "Chest"],
    ),
    "other patients": (
        [listed(1, patient_id="KW-47110"), listed(2, patient_id="kw-4711"), listed(3, patient_id="")],
        [],
    ),
    "another issuer": ([listed(1, issuer="B")], []),
    "later, at once, and no day": (
        [
            listed(1, study_date="20260402"),
            listed(2, study_date="20260401", study_time="101500"),
            listed(3, study_date=""),
            listed(4, study_date="soon"),
        ],
        [],
    ),
    "the same day, before": ([listed(1, "Chest", study_date="20260401", study_time="081500")], ["Chest"]),
    "the same day, before, to the minute": ([listed(1, "Chest", study_date="20260401", study_time="1014")], ["Chest"]),
    "the same day, later or nobody knows": (
        [listed(number, study_date="20260401", study_time=at) for number, at in enumerate(["1016", "1015", "10", ""])],
        [],
    ),
    "this study": ([listed(0)], []),
    "nothing": ([], []),
}


@pytest.mark.parametrize("name", CHOICES)
def test_the_earlier_chest_is_chosen_from_what_a_peer_lists(name: str) -> None:
    every, wanted = CHOICES[name]
    for order in (every, every[::-1]):
        chosen = earlier_chests(order, THIS, "1.0", load_rules(), 2)
        assert [one.description for one in chosen] == wanted
