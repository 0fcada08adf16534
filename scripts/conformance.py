"""Writes docs/conformance.md from the tables that the code itself works by. Usage: python scripts/conformance.py"""

from __future__ import annotations

import ssl
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pydicom.charset import python_encoding
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet as Get
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove as Move
from starlette.routing import Route

from carina import RESEARCH_ONLY
from carina.config import DicomDestination, DicomSettings
from carina.deliver.answers import CLASS_NOT_SUPPORTED, FAILURES, NO_SUCH_OBJECT, WARNINGS
from carina.deliver.dicomweb import DICOM_JSON
from carina.deliver.find_scu import FIND
from carina.deliver.reported import REPORT_STATUSES
from carina.dicom.headers import CT_CLASSES
from carina.dicom.syntaxes import ENCAPSULATED, NATIVE
from carina.receive.commitment import FAILURE_REASONS, INVALID_ARGUMENT, PROCESSING_FAILURE
from carina.receive.fetch import SYNTAXES
from carina.receive.instance import IMPLEMENTATION_UID, NO_ROOM, NOT_UNDERSTOOD, WRONG_CLASS
from carina.receive.listener import FIRST_WORD_S, NO_SUCH_ACTION
from carina.receive.messages import LARGEST_COMMAND, LARGEST_OTHER, REQUESTS_AHEAD
from carina.receive.owed_reports import GIVEN_UP_H
from carina.receive.reports import INSTANCES_OWED, NOT_AUTHORISED, REQUESTS_OWED, RESOURCE_LIMITATION
from carina.receive.transport import LARGEST_PDU
from carina.receive.web_fetch import AS_STORED
from carina.service.dicomweb.frames import MEDIA_TYPES, OCTETS
from carina.service.dicomweb.json_values import UNTOLD_VRS
from carina.service.dicomweb.qido import COUNTED, INSTANCE_KEYWORDS, SERIES_KEYWORDS, STUDY_KEYWORDS
from carina.service.dicomweb.rendered import PDF, PICTURES
from carina.service.dicomweb.stow import stow_routes
from carina.service.dicomweb.wado import DICOM, dicomweb_routes
from carina.web_settings import TlsSettings

PAGE = Path(__file__).parents[1] / "docs" / "conformance.md"

PLAIN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)

STATUSES = {
    NO_ROOM: "out of resources: the disk is full, or the instance is over `dicom.instance_mb`; may be sent again",
    WRONG_CLASS: "the data set is another instance or class than the request says",
    NOT_UNDERSTOOD: "the data set can't be read, is cut, has a tag twice, no valid UIDs, or another encoding",
    CLASS_NOT_SUPPORTED: "it came in a presentation context for another service, as Verification",
    NOT_AUTHORISED: "the caller was let in for its storage commitment reports alone",
}
"""What else than 0000H a C-STORE is answered with."""

COMMITMENT_STATUSES = {
    PROCESSING_FAILURE: "the request can't be read",
    NO_SUCH_OBJECT: "the Requested SOP Instance UID is not the well-known one",
    INVALID_ARGUMENT: "no valid Transaction UID, no instance named, or one without its SOP class or instance",
    NO_SUCH_ACTION: "another Action Type than 1",
    NOT_AUTHORISED: "the caller is no destination, so that it can't be told, or may not send to the source it called",
    RESOURCE_LIMITATION: f"{REQUESTS_OWED} requests of the caller, or {INSTANCES_OWED:,} instances, wait for reports; "
    "or the database takes none",
}
"""What else than 0000H a request for storage commitment is answered with."""

WEB_REQUESTS = (
    ("Search (QIDO-RS)", "GET /studies", "fetching, `carina echo`"),
    ("Search (QIDO-RS)", "GET /studies/{study}/series", "fetching"),
    ("Search (QIDO-RS)", "GET /studies/{study}/series/{series}/instances", "confirming"),
    ("Retrieve (WADO-RS)", "GET /studies/{study}/series/{series}", "fetching"),
    ("Store (STOW-RS)", "POST /studies", "destinations"),
)
"""What is asked of DICOMweb servers: by ``receive.web_fetch``, ``deliver.qido`` and ``deliver.stow``."""


def page() -> str:
    """The whole page."""
    parts = (_head, _roles, _read, _statuses, _association, _web, _rest)
    return "\n".join(line for part in parts for line in part()) + "\n"


def _head() -> Iterator[str]:
    yield "# Conformance statement"
    yield ""
    yield f"{RESEARCH_ONLY} Written by `scripts/conformance.py` from the code's own tables."
    yield "What is in the objects that Carina writes: [DICOM](dicom-conformance.md)."
    yield ""
    yield f"Implementation Class UID of what the node stores: `{IMPLEMENTATION_UID}`."
    yield ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _named(uid: str) -> str:
    return f"{UID(uid).name} `{uid}`"


def _roles() -> Iterator[str]:
    plain = ", ".join(UID(uid).name for uid in PLAIN)
    asked = ", ".join(UID(uid).name for uid in SYNTAXES)
    yield "## SOP classes and roles"
    yield "Application entities: one for each source of kind `dicom`, under its `ae_title`, on one port."
    yield ""
    rows = [
        (_named(Verification), "SCP, SCU", plain, "`carina echo`"),
        ("every Storage class, private ones too", "SCP", "every one that is proposed", "stored as it came"),
        ("Storage of the objects that a run makes", "SCU", plain, "destinations"),
        (
            _named(StorageCommitmentPushModel),
            "SCP, SCU",
            plain,
            "with `commitment` as SCU, which takes reports on either association",
        ),
        (_named(FIND), "SCU", UID(ImplicitVRLittleEndian).name, "confirming, fetching"),
        (_named(Move), "SCU", UID(ImplicitVRLittleEndian).name, "fetching"),
        (_named(Get), "SCU", UID(ImplicitVRLittleEndian).name, "fetching"),
        (", ".join(map(_named, sorted(CT_CLASSES))), "SCP of C-GET", asked, "what is fetched"),
    ]
    yield from _table(("SOP class", "role", "transfer syntaxes", "for"), rows)


def _read() -> Iterator[str]:
    yield "## Transfer syntaxes that are read"
    yield "What comes in another one is stored, and waits in quarantine."
    yield ""
    yield from _table(
        ("transfer syntax", "UID"),
        [(f"{UID(uid).name}", f"`{uid}`") for uid in (*NATIVE, *ENCAPSULATED)],
    )


def _statuses() -> Iterator[str]:
    yield "## Statuses"
    yield "A C-STORE is answered with 0000H for what is on the disk for good, and else with:"
    yield ""
    yield from _table(("status", "meaning"), _statuses_of(STATUSES))
    yield "A request for storage commitment (N-ACTION) is answered with 0000H before its instances are looked at, and"
    yield "else with:"
    yield ""
    yield from _table(("status", "meaning"), _statuses_of(COMMITMENT_STATUSES))
    yield "The report (N-EVENT-REPORT) comes on an association that the node opens, in the role of SCP, to the"
    yield f"destination that has the caller's AE title; it is tried for {GIVEN_UP_H:g} hours. Failure Reasons in it:"
    yield ""
    yield from _table(("reason", "meaning"), _statuses_of(FAILURE_REASONS))
    yield "A peer's report on what the node asked it about is answered with 0000H where it is believed, and else with:"
    yield ""
    yield from _table(("status", "meaning"), _statuses_of(REPORT_STATUSES))
    yield "Of a peer's answers, these are told by name:"
    yield ""
    yield from _table(("status", "is told as"), _statuses_of({**WARNINGS, **FAILURES}))


def _statuses_of(table: Mapping[int, str]) -> list[tuple[str, str]]:
    return [(f"{status:04X}H", words) for status, words in table.items()]


def _association() -> Iterator[str]:
    own, peer = DicomSettings(), DicomDestination(host="h", port=1, ae_title="A")
    yield "## Associations"
    rows = [
        ("largest PDU that is received", f"{LARGEST_PDU} bytes", "fixed"),
        ("associations at once", str(own.associations), "`dicom.associations`"),
        ("time from the connection to a whole A-ASSOCIATE-RQ, TLS included", f"{FIRST_WORD_S:g} s", "fixed"),
        ("time without progress, as SCP", f"{own.idle_s:g} s", "`dicom.idle_s`"),
        ("the largest instance", f"{own.instance_mb} MB", "`dicom.instance_mb`"),
        ("the largest command set", f"{LARGEST_COMMAND} bytes", "fixed"),
        ("the largest data set of another message", f"{LARGEST_OTHER // 1_000_000} MB", "fixed"),
        ("requests sent before the first is answered", str(REQUESTS_AHEAD), "fixed"),
        ("port", str(own.port), "`dicom.port`"),
        ("time to wait for a peer, as SCU", f"{peer.timeout_s:g} s", "`timeout_s` of the destination"),
        ("calling AE title, as SCU", peer.calling_ae_title, "`calling_ae_title` of the destination"),
        ("asynchronous operations", "none", "fixed"),
    ]
    yield from _table(("", "default", "set by"), rows)


def _web() -> Iterator[str]:
    yield "## DICOMweb (PS3.18)"
    routes = [route for route in (*dicomweb_routes(), *stow_routes()) if isinstance(route, Route)]
    rows = [(_service(route), f"`{_methods(route)} {route.path}`") for route in routes]
    yield "As origin server:"
    yield ""
    yield from _table(("transaction", "request"), rows)
    yield from _searches()
    yield from _forms()
    yield "As user agent, of a destination of kind `dicomweb`:"
    yield ""
    asked = [(transaction, f"`{request}`", purpose) for transaction, request, purpose in WEB_REQUESTS]
    yield from _table(("transaction", "request", "for"), asked)
    yield f"Instances are retrieved as `{AS_STORED}`."
    yield ""


def _searches() -> Iterator[str]:
    yield "What a search tells at each level, those above it included; `includefield` asks for more:"
    yield ""
    levels = (("study", STUDY_KEYWORDS), ("series", SERIES_KEYWORDS), ("instance", INSTANCE_KEYWORDS))
    rows = [(level, ", ".join(f"`{one}`" for one in keywords)) for level, keywords in levels]
    counted = ", ".join(f"`{one}`" for one in COUNTED)
    yield from _table(("level", "attributes"), [*rows, ("counted or made by the node", counted)])
    unmatched = ", ".join(sorted(UNTOLD_VRS))
    yield from textwrap.wrap(
        "Any attribute of the dictionary is a matching key at every resource, those within sequences too, by keywords "
        "or tags with dots between (`RequestAttributesSequence.ScheduledProcedureStepID`). A study or series matches "
        "by a key of a level below its own where something in it does; attributes of its own level, and of none above, "
        "are looked for in the first object of what came or was made together in each series, in a search for "
        "instances in each. A study of several patients is listed for each with what is theirs. Matching: of UIDs "
        "single values and lists (by commas, or the key again); ranges of dates and times; numbers by value; all else "
        "wild cards, names "
        "whatever the case and by any of their component groups (`PatientName==X*`: by the second alone), codes lists "
        "too. An empty value or `*` alone matches everything, of every key. "
        "`fuzzymatching` is not supported, nor are private attributes and those of the VRs "
        f"{unmatched} as keys: they are ignored, and the answer says so (`Warning: 299`). A value that none of the "
        "attribute's kind can be (a UID with wild cards, a day that there is not), or a key that is no attribute, is "
        "400 with a sentence.",
        120,
        break_on_hyphens=False,
    )
    yield ""


def _forms() -> Iterator[str]:
    yield "Forms, by `Accept` or the parameter `accept`; whoever takes none gets 406, and nothing is stored then:"
    yield ""
    frames = ", ".join(f"`{one}`" for one in sorted({*MEDIA_TYPES.values()}))
    pictures = ", ".join(f"`{one}`" for one in PICTURES)
    rows = [
        ("searches, metadata, what became of stored instances", f"`{DICOM_JSON}`, `application/json`"),
        ("studies, series", f'`multipart/related; type="{DICOM}"`, objects as they are stored'),
        ("one object", f"the same, or `{DICOM}` alone"),
        ("frames", f"`{OCTETS}` (Explicit VR Little Endian), or as stored ({frames}); several at once multipart"),
        ("rendered", f"{pictures}; of a document `{PDF}`; `window` linear, no region in `viewport`"),
        ("bulk data", f"`{OCTETS}`; of a document `{PDF}` too; alone or multipart"),
    ]
    yield from _table(("what", "media types"), rows)


def _methods(route: Route) -> str:
    return ", ".join(sorted((route.methods or set()) - {"HEAD"}))


def _service(route: Route) -> str:
    if "POST" in (route.methods or ()):
        return "Store (STOW-RS)"
    return "Search (QIDO-RS)" if route.path.endswith(("studies", "series", "instances")) else "Retrieve (WADO-RS)"


def _rest() -> Iterator[str]:
    tls = sorted(TlsSettings.__struct_fields__)
    yield "## Security"
    yield f"TLS {_tls_version()} and later on either listener (`dicom.tls`, `web.tls`: {', '.join(tls)}); with"
    yield "`trusted`, callers must show a certificate. As SCU, TLS is spoken where the destination has `tls_trusted`."
    yield "Callers are let in by the AE title that they call, their own, and their address. De-identification: the"
    yield "operator `deidentify` ([pipelines](pipelines.md#without-the-patient))."
    yield "The audit trail is a table of the node's database."
    yield ""
    yield "## Character sets"
    yield "Objects are written in ISO_IR 192 (UTF-8), and so is what DICOMweb tells of those in other sets. Read are:"
    yield ""
    yield from _table(("defined term",), [(f"`{term}`",) for term in _terms()])


def _terms() -> list[str]:
    """Defined Terms of Specific Character Set by which texts are read."""
    return sorted(term for term in python_encoding if term)


def _tls_version() -> str:
    return ssl.TLSVersion.TLSv1_2.name.removeprefix("TLSv").replace("_", ".")


if __name__ == "__main__":
    PAGE.write_text(page().rstrip("\n") + "\n", encoding="utf-8")
