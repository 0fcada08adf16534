"""Of how many patients slices are, whoever named them."""

from __future__ import annotations

from itertools import permutations

import pytest

from carina.dicom.patients import are_several

ONE = ["", "A", "AA", "A-", "AA--", "--", "ABC", "ABCD"]
"""Slices by their patients, of one patient or of nobody; ``-`` names none. Where each names another, it is a name for a
file."""

SEVERAL = ["AB", "AAB", "AABB", "AABC", "AB-", "AB--", "AAB-", "ABC-", "ABC--", "ABCD-", "A-B-"]
"""Of several. Whoever gave every file a name would have left none without: A, B and one without are two patients."""


@pytest.mark.parametrize("slices", [*ONE, *SEVERAL])
def test_slices_are_of_several_patients_in_whatever_order_they_come(slices: str) -> None:
    named = ["" if one == "-" else one for one in slices]
    assert {are_several(order) for order in permutations(named)} == {slices in SEVERAL}
