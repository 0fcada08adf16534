"""The files of a run: a list of all of them, one of them, and the pages inside an Encapsulated PDF object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from carina.api.result import Run
from carina.errors import BadConfig, with_words
from carina.operators.deidentify import MAP_FILE
from carina.pipeline.folder import LOCK, WRITING
from carina.pipeline.places import below
from carina.pipeline.ports import FILE_ERRORS
from carina.service.sizes import size_words

PDF_OBJECTS = ("volume-ratio", "classification")
"""Names of the report objects of the pipeline that ships; others are found by their suffix all the same."""

CHANGE_OBJECT = "change"
"""Name of the report on what changed, which joins the objects of a run that is over."""

NEVER_SHOWN = frozenset({LOCK, WRITING, MAP_FILE})
"""What in a run's folder is no result; who a de-identified patient was is for the node's user alone."""


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file below a run's folder; ``sha256`` is what the manifest says, empty where it says nothing."""

    name: str
    size: int
    sha256: str

    @property
    def size_text(self) -> str:
        """The size as people read it."""
        return size_words(self.size)


def stored_files(run: Run) -> list[StoredFile]:
    """Every file of a run, links that lead out of its folder left out."""
    known = {name: digest.sha256 for one in run.manifest.operators.values() for name, digest in one.files.items()}
    found = []
    for path in sorted(run.folder.rglob("*")):
        name = path.relative_to(run.folder).as_posix()
        if _is_never_shown(name) or not _is_own(run, name):
            continue
        found.append(StoredFile(name=name, size=path.stat().st_size, sha256=known.get(name, "")))
    return found


def _is_never_shown(name: str) -> bool:
    """Whether a file is no result: locks and what is half written begin with a dot."""
    parts = name.split("/")
    return parts[0] in NEVER_SHOWN or any(part.startswith(".") for part in parts)


def _is_own(run: Run, name: str) -> bool:
    try:
        return below(run.folder, name).is_file()
    except BadConfig:
        return False


def stored_file(run: Run, name: str) -> Path:
    """One file of a run.

    Raises:
        BadConfig: ``output.outside``, the name leads out of the folder; ``run.no-file``, there is none.
    """
    try:
        path = below(run.folder, name)
    except BadConfig as error:  # which says where on this machine the folder is
        words = f"{name!r} does not lie in this folder: only files of the run are shown; the page Files lists them."
        raise BadConfig(error.code, words) from error
    if _is_never_shown(path.relative_to(run.folder).as_posix()) or not path.is_file():
        raise BadConfig("run.no-file", f"{name!r}: this run has no such file.")
    return path


def report_names(run: Run) -> list[str]:
    """The report objects that hold a PDF, by file name without suffix."""
    written = [name for one in run.manifest.operators.values() for name in one.all_files]
    names = {Path(name).stem for name in written if name.startswith("dicom/") and name.endswith(".dcm")}
    found = [name for name in PDF_OBJECTS if name in names]
    return found + ([CHANGE_OBJECT] if (run.folder / "dicom" / f"{CHANGE_OBJECT}.dcm").is_file() else [])


def pdf_inside(run: Run, name: str) -> bytes:
    """The pages that an Encapsulated PDF object holds: what went to the PACS, byte for byte.

    Raises:
        BadConfig: ``run.no-file`` or ``run.damaged``.
    """
    path = stored_file(run, f"dicom/{name}.dcm")
    try:
        dataset = dcmread(path)
        pdf, length = dataset.get("EncapsulatedDocument"), dataset.get("EncapsulatedDocumentLength")
    except (InvalidDicomError, *FILE_ERRORS) as error:
        words = f"{path}: can't be read ({type(error).__name__}); the same command makes it again."
        raise with_words(BadConfig("run.damaged", words), error) from error
    if not isinstance(pdf, bytes):
        raise BadConfig("run.no-file", f"{name!r}: this object holds no PDF.")
    return pdf[: int(length)] if length else pdf
