"""The keys of a search (PS3.18 8.3.4.1): which attributes they name, and what each may be asked to match."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from carina.dicom.uids import is_uid
from carina.dicom.values import NUMBER_TEXT, tag_of, vr_of
from carina.service.dicomweb.attributes import known_keyword
from carina.service.dicomweb.json_values import DECIMAL_VRS, UNTOLD_VRS, WHOLE_VRS
from carina.service.problems import NotUnderstood

MOST_UIDS = 100
"""In a list of one request: each study is looked up by itself."""

DEEPEST_KEY = 8
"""Attributes that a key names, each in the sequence before it."""

_DATES = re.compile(r"\d{8}|\d*[*?][\d*?]*|\d{8}-(\d{8})?|-\d{8}", re.ASCII)
"""A date or a range of dates (PS3.4 C.2.2.2.5); with wild cards too, as some clients ask."""

_DAY = re.compile(r"(?<!\d)\d{8}(?![\d*?])", re.ASCII)

_TIME = r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?"
_TIMES = re.compile(rf"[\d.]*[*?][\d.*?]*|{_TIME}(-({_TIME})?)?|-{_TIME}", re.ASCII)

_PRIVATE = re.compile(r"[0-9A-Fa-f]{3}[13579BDFbdf][0-9A-Fa-f]{4}")


def is_universal(value: str) -> bool:
    """Whether everything matches it (PS3.4 C.2.2.2.3): nothing is asked for, or ``*`` of any attribute."""
    return value.strip() in ("", "*")


def key_named(name: str) -> str:
    """The keyword of an attribute that is named by it or by its tag; of one within sequences those before it too.

    A private attribute has no keyword and is named by its tag.

    Raises:
        NotUnderstood: the standard has no such attribute, or none in that place.
    """
    parts = name.strip().split(".")
    if len(parts) > DEEPEST_KEY:
        raise NotUnderstood("dicomweb.query", f"{name[:64]!r} names more than {DEEPEST_KEY} attributes in each other.")
    found = [_keyword(part) for part in parts]
    for sequence in found[:-1]:
        if not leads_to_private(sequence) and vr_of(tag_of(sequence)) != "SQ":
            raise NotUnderstood("dicomweb.query", f"{name[:64]!r}: {sequence} is no sequence and holds no attributes.")
    return ".".join(found)


def _keyword(name: str) -> str:
    keyword = known_keyword(name)
    if keyword is None and _PRIVATE.fullmatch(name):
        return name.upper()
    if keyword is None:
        raise NotUnderstood("dicomweb.query", f"{name[:64]!r} is no attribute; expected a keyword or a tag.")
    return keyword


def leads_to_private(key: str) -> bool:
    """Whether a key leads to or through an attribute that the standard does not name."""
    return any(_PRIVATE.fullmatch(part) for part in key.split("."))


def outermost(key: str) -> str:
    """The attribute of the data set itself in which that of a key lies."""
    return key.partition(".")[0]


def can_be_matched(key: str) -> bool:
    """Whether an attribute's values are compared with what is asked: binary ones and private ones are not."""
    if leads_to_private(key):
        return False
    return vr_of(tag_of(key.rpartition(".")[2])) not in UNTOLD_VRS


def listed_uids(asked: str) -> list[str]:
    """The UIDs of a list (PS3.4 C.2.2.2.2), each once; none where everything matches."""
    return [] if is_universal(asked) else list(dict.fromkeys(asked.strip().replace("\\", ",").split(",")))


def gathered(key: str, value: str, wanted: Mapping[str, str]) -> str:
    """What a key is to match: of UIDs that are asked for again the list of all (PS3.18 8.3.4.1).

    Raises:
        NotUnderstood: another attribute is asked for again, or none of its kind has such a value.
    """
    if key not in wanted:
        return value
    if leads_to_private(key) or vr_of(tag_of(key.rpartition(".")[2])) != "UI":
        raise NotUnderstood("dicomweb.query", f"{key} is asked for more than once; only UIDs can be.")
    known = wanted[key]
    return "" if is_universal(known) or is_universal(value) else f"{known},{value}"


def check_wish(key: str, value: str) -> None:
    """See that an attribute can have what it is asked to match.

    Raises:
        NotUnderstood: it can't, so that nothing would ever be found.
    """
    if is_universal(value) or not can_be_matched(key):
        return
    vr = vr_of(tag_of(key.rpartition(".")[2]))
    if vr == "SQ":
        words = f"{key} is a sequence; name one of its attributes, as in {key}.ATTRIBUTE={value[:20]}"
        raise NotUnderstood("dicomweb.query", f"{words}.")
    if vr == "UI":
        _check_uids(key, value)
    expected = _expected(vr, value.strip())
    if expected:
        raise NotUnderstood("dicomweb.query", f"{key} is {value[:20]!r}; expected {expected}.")


def check_path(key: str, value: str, fixed: Mapping[str, str]) -> None:
    """See that what the path of a request names is not asked to be another.

    Raises:
        NotUnderstood: it is.
    """
    if key in fixed and not is_universal(value) and fixed[key] not in listed_uids(value):
        raise NotUnderstood("dicomweb.query", f"{key} is asked for, and is another than that of the path.")


def _check_uids(key: str, value: str) -> None:
    listed = listed_uids(value)
    if len(listed) > MOST_UIDS:
        words = f"{key} is a list of more than {MOST_UIDS} UIDs; ask for fewer at once."
        raise NotUnderstood("dicomweb.query", words)
    wrong = next((one for one in listed if not is_uid(one)), None)
    if wrong is not None:
        words = f"{key} is {wrong[:20]!r}; expected a whole UID (digits and dots), or several, parted by commas"
        raise NotUnderstood("dicomweb.query", f"{words}.")


def _expected(vr: str, value: str) -> str:
    """What a value was expected to be that is none of its kind; empty where it is one."""
    if vr == "DA" and not _are_dates(value):
        return "YYYYMMDD, or from and to as YYYYMMDD-YYYYMMDD"
    if vr == "TM" and not _TIMES.fullmatch(value):
        return "HHMMSS, or from and to as HHMMSS-HHMMSS"
    if vr in WHOLE_VRS | DECIMAL_VRS and not NUMBER_TEXT.fullmatch(value):
        return "a number"
    return ""


def _are_dates(value: str) -> bool:
    """Whether each day that is named in full is one of the calendar."""
    try:
        for day in _DAY.findall(value):
            datetime.strptime(day, "%Y%m%d")
    except ValueError:
        return False
    return bool(_DATES.fullmatch(value))
