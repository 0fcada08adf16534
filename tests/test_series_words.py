"""Words of descriptions, names of kernels: how they are read, whatever they hold."""

from __future__ import annotations

import random
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carina.dicom.find import judge
from carina.dicom.found import Found
from carina.dicom.kernels import Sharpness, sharpness
from carina.dicom.merit import MERITS, Region, region
from carina.dicom.rules import Criterion, Prefer, Rules, load_rules
from carina.dicom.words import first_match, readings

RULES = load_rules()
FAMILIES = tomllib.loads((files("carina.dicom") / "kernels.toml").read_text(encoding="utf-8"))["family"]

KERNELS = {
    Sharpness.SOFT: (
        "B10f, B20f, B30f, B31s, B40f, D30f, D40s, H30s, I26f, I31f\\2, J30s, Q33, U30u, Br32, Br36d, "
        "Br40f\\3, Br44, Bv36, Bf37, Hr40, Hv36, Qr36, Qr40d\\3, Sa36, BR40F, SOFT, STANDARD, STND, STD, "
        "HD STND, HD SOFT, HD_STND, STANDARD\\SS50, A, B, UA, UB, UC, CB, XCA, SB, FC01, FC03, FC08, "
        "FC10, FC13, FC18, FC21, FC13-H, FC64, AiCE BODY, FIRST BODY, B_SOFT_B, H_SMOOTH_A, C_SOFT_AA, "
        "Body Routine, Standard (B), Smooth (A), mediastinum"
    ),
    Sharpness.MEDIUM: (
        "B45f, B46f, B50f, Br49, Bv49, Br51, I50f, STD+, STANDARD+, Standard Plus, DETAIL, HD DETAIL, "
        "CHST, CHEST, C, F, EA, EB, EC, XCC, CD, BODY SHARP, AiCE BODY SHARP"
    ),
    Sharpness.SHARP: (
        "B60f, D60s, Br54, Br59, Bl56, Bl57d, Bl60f\\3, Br62, Hr60, LUNG, HD LUNG, BONE, D, L, YA, YB, "
        "FC50, FC51, FC52, FC53, FC55, AiCE LUNG, B_SHARP_C, LUNG_B, LUNG20, LUNG1, SHARP, Sharp Plus, "
        "Lung Enhanced (L), Y-Sharp (YB)"
    ),
    Sharpness.EDGE: (
        "B70f, B75f, B80f, B90s, I70f, Br64, Br69, Bl64, Br76, Ur77u, U90u, J70h, BONEPLUS, BONE+, "
        "BONE PLUS, HD BONEPLUS, EDGE, ULTRA, E, YC, YD, FC30, FC31, FC35, FC80, FC81, FC86, B_VSHARP_C"
    ),
    Sharpness.UNKNOWN: ("22, 7, EXPERIMENTAL7, ZZ9, ?"),
}
"""Kernels as scanners send them."""

NAMES = [(kind, name) for kind, names in KERNELS.items() for name in names.split(", ")]


@pytest.mark.parametrize(("kind", "kernel"), NAMES)
def test_a_kernel_has_its_class(kind: Sharpness, kernel: str) -> None:
    assert sharpness(kernel) is kind
    assert sharpness(f" {kernel.lower()} ") is kind


def test_every_family_has_a_maker_a_class_and_a_kernel_that_only_it_explains() -> None:
    names = [re.sub(r"[\s_-]+", " ", name.split("\\")[0]).lower() for _, name in NAMES]
    for family in FAMILIES:
        assert family["maker"] and ("sharpness" in family) != ("up_to" in family)
        assert any(re.search(family["pattern"], name) for name in names), family["pattern"]
        limits = [limit for limit, _ in family.get("up_to", [])]
        assert limits == sorted(limits)


@pytest.mark.parametrize(
    ("description", "kind"),
    [
        ("Thorax  5.0  B30f", Sharpness.SOFT),
        ("ThorRoutine  5.0  B70s", Sharpness.EDGE),
        ("Chest FC52", Sharpness.SHARP),
        ("Lunge 1.0", Sharpness.SHARP),
        ("Mediastinum 5", Sharpness.SOFT),
        ("Weichteil", Sharpness.SOFT),
        ("Parties molles", Sharpness.SOFT),
        ("Knochen", Sharpness.EDGE),
        ("肺窗", Sharpness.SHARP),
        ("縦隔条件", Sharpness.SOFT),
        ("T12 L5", Sharpness.UNKNOWN),
        ("", Sharpness.UNKNOWN),
    ],
)
def test_without_a_kernel_the_description_lets_guess(description: str, kind: Sharpness) -> None:
    assert sharpness("", description) is kind
    assert sharpness("BONEPLUS", description) is Sharpness.EDGE


@pytest.mark.parametrize(
    ("text", "pattern", "is_said"),
    [
        ("CHEST_MIP_10", r"\bmip\b", True),
        ("AxMIP", r"\bmip\b", True),
        ("MIP10", r"\bmip\b", True),
        ("MIPs", r"\bmips\b", True),
        ("MinIP", r"\bmin ?ip\b", True),
        ("CTThorax", r"\bthorax\b", True),
        ("ThorAbdRoutine", r"\babd\b", True),
        ("Płuca", r"\bpluca\b", True),
        ("SCHÄDEL", r"\bschadel\b", True),
        ("Übersicht", "Übersicht", True),
        ("\uff34\uff28\uff2f\uff32\uff21\uff38", "thorax", True),
        ("胸部CT平扫", r"\bct\b", True),
        ("simple", r"\bmip\b", False),
        ("respiratory", r"\bespir", False),
    ],
)
def test_words_end_where_a_reader_sees_it(text: str, pattern: str, is_said: bool) -> None:  # noqa: FBT001
    assert bool(first_match((pattern,), text)) is is_said


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80), st.text(max_size=30), st.text(max_size=30))
def test_any_text_is_judged(description: str, kernel: str, body_part: str) -> None:
    ways = readings(description)
    assert ways[0] == description.lower() and all(way == way.lower() for way in ways[1:])
    judged = judge([series(description=description, kernel=kernel, body_part=body_part), series(uid="1.3")], RULES)
    assert sum(one.taken for one in judged) == 1 and all(one.reason for one in judged)


def series(**facts: Any) -> Found:
    common = {
        "path": Path("x"),
        "uid": "1.2",
        "modality": "CT",
        "description": "Chest",
        "kernel": "STANDARD",
        "body_part": "CHEST",
        "image_type": ("ORIGINAL", "PRIMARY", "AXIAL"),
        "slices": 150,
        "matrix": (512, 512),
        "pixel_spacing_mm": (0.7, 0.7),
        "slice_spacing_mm": 2.0,
        "plane": "axial",
        "degrees_from_plane": 0.0,
    }
    return Found(**{**common, **facts})


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_the_verdict_does_not_depend_on_the_order_of_what_was_found(seed: int) -> None:
    rng = random.Random(seed)
    kernels = ["B30f", "Bl57", "LUNG", "", "FC08"]
    found = [
        series(
            uid=f"1.{k}",
            kernel=rng.choice(kernels),
            description=rng.choice(["Chest", "Abdomen", "", "Thorax exp", "CHEST W", "70 keV"]),
            slices=rng.choice([20, 60, 150]),
            slice_spacing_mm=rng.choice([1.0, 2.0, 5.0]),
        )
        for k in range(6)
    ]
    shuffled = rng.sample(found, len(found))
    assert [one.uid for one in judge(found, RULES)] == [one.uid for one in judge(shuffled, RULES)]


@pytest.mark.parametrize(
    ("description", "body_part", "named"),
    [
        ("CHEST ABDOMEN PELVIS", "", Region.CHEST),
        ("NECK AND CHEST", "NECK", Region.DISPUTED),
        ("Cervico-thoraco-abdomino-pelvien", "", Region.CHEST),
        ("", "CHESTABDPELVIS", Region.CHEST),
        ("Chest", "BRAIN", Region.DISPUTED),
        ("Liver", "CHEST", Region.ELSEWHERE),
        ("THORACIC SPINE", "CHEST", Region.ELSEWHERE),
        ("胸椎", "", Region.ELSEWHERE),
        ("5 MM STD", "", Region.UNTOLD),
        ("5 MM STD", "ABDOMEN", Region.ELSEWHERE),
    ],
)
def test_the_region_is_what_the_texts_name(description: str, body_part: str, named: Region) -> None:
    assert region(series(description=description, body_part=body_part), RULES.prefer)[0] is named


POSITIONS = (
    "Feet first, FEET FIRST, FeetFirst, feet-first, FEET_FIRST, Foot first, Head first, HEAD-FIRST, HeadFirst supine, "
    "HFS, FFP, supine, prone, decubitus left, Arms above head, arms up, Hands over the head, "
    "ARMS OVERHEAD, arms by side, "
    "hand behind head, feet to head, toward the head, craniocaudal, Cranio-Caudal, caudo-cranial, caudocranial, "
    "Bauchlage, BAUCHLAGERUNG, Bauch liegend, Rückenlage, Kopf voran, Füße voran, FUSS VORAN, Kopftieflage, "
    "Arme über Kopf, kraniokaudal, tête première, pieds en avant, bras au-dessus de la tête, procubitus, "
    "cabeza primero, pies primero, decúbito ventral, decúbito abdominal, testa avanti, cabeça primeiro, "
    "hoofd eerst, voeten eerst, buikligging, na brzuchu, 足先, 头先进, 頭側, 腹臥位, 俯卧, 腹卧位, "
    "головой вперёд, на животе"
)


@pytest.mark.parametrize("position", POSITIONS.split(", "))
@pytest.mark.parametrize("text", ["{}", "{} 5 mm", "5.0 {} STD", "CT_{}_1.25"])
def test_how_a_patient_lies_is_no_region(text: str, position: str) -> None:
    lying = text.format(position)
    assert region(series(description=lying, body_part=""), RULES.prefer)[0] is Region.UNTOLD
    assert region(series(description=lying, body_part="CHEST"), RULES.prefer)[0] is Region.CHEST
    assert region(series(description=lying, body_part="ABDOMEN"), RULES.prefer)[0] is Region.ELSEWHERE
    for elsewhere in ("Abdomen", "Head", "Neck", "Foot", "腹部", "Hand"):
        named = region(series(description=f"{elsewhere}, {lying}", body_part="CHEST"), RULES.prefer)[0]
        assert named is Region.ELSEWHERE, (elsewhere, lying)
    assert region(series(description=f"Thorax {lying}", body_part=""), RULES.prefer)[0] is Region.CHEST
    (one,) = judge([series(description=lying, body_part="")], RULES)
    assert one.taken and "not the chest" not in one.reason


def test_own_groups_of_kernels_come_first() -> None:
    rules = Rules(prefer=Prefer(kernel=("^bone",)))
    judged = judge([series(kernel="STANDARD"), series(uid="1.9", kernel="BONE")], rules)
    assert judged[0].uid == "1.9" and "its kernel BONE is preferred to STANDARD" in judged[1].reason


def test_every_criterion_has_its_merit_and_is_in_the_shipped_order() -> None:
    assert set(MERITS) == set(RULES.prefer.order) == set(get_args(Criterion))


def test_a_lone_series_of_another_region_is_taken_with_a_warning() -> None:
    (one,) = judge([series(description="Abdomen 5.0", body_part="")], RULES)
    assert one.taken and one.reason.endswith("Series Description is Abdomen 5.0, not the chest")


def test_between_small_fields_of_like_size_coverage_does_not_decide() -> None:
    soft = series(uid="1.1", kernel="Qr40", slices=14, slice_spacing_mm=4.0)
    sharp = series(uid="1.2", kernel="Bl60", slices=14, slice_spacing_mm=5.0)
    judged = judge([soft, sharp], Rules(prefer=RULES.prefer))
    assert judged[0].uid == "1.1" and "slices are 4.00 mm apart, here 5.00" in judged[1].reason
