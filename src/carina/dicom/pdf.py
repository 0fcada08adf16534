"""A PDF report as a DICOM object that any PACS stores beside the images (PS3.3 A.45.1, C.24.2)."""

from __future__ import annotations

from pydicom import Dataset
from pydicom.uid import EncapsulatedPDFStorage

from carina.dicom.codes import CHEST_CT
from carina.dicom.objects import Producer, new_object, references, stamp
from carina.dicom.series import Series
from carina.errors import ModelFailed

PDF_SERIES_NUMBERS = {
    "COVID-19 classification": 9201,
    "Lesion to lung volume ratio": 9202,
    "Change since earlier scans": 9204,
}

OTHER_SERIES_NUMBER = 9203


def encapsulated_pdf(pdf: bytes, series: Series, producer: Producer, title: str, *, digest: str) -> Dataset:
    """The PDF, byte for byte, in a new series of the source's study.

    ``digest`` stands for what the report says (``report.facts.said_sha256``). The UIDs follow from it, the series, the
    producer and the title, not from the bytes: a report shows the time of its run, and a repeated run has to give the
    same object.

    Raises:
        ModelFailed: the bytes are no PDF.
    """
    if not pdf.startswith(b"%PDF-"):
        raise ModelFailed("pdf.invalid", f"the report {title!r} is no PDF: it starts with {pdf[:8]!r}, not %PDF-.")
    dataset = new_object(series, producer, sop_class_uid=EncapsulatedPDFStorage, modality="DOC")
    dataset.SeriesInstanceUID = producer.uid(series, "pdf series", title, digest)
    dataset.SOPInstanceUID = producer.uid(series, "pdf", title, digest)
    dataset.SeriesNumber = PDF_SERIES_NUMBERS.get(title, OTHER_SERIES_NUMBER)
    dataset.InstanceNumber = 1
    dataset.ConversionType = "WSD"
    dataset.AcquisitionDateTime = ""
    dataset.BurnedInAnnotation = "YES"
    dataset.SourceInstanceSequence = references(series)
    dataset.DocumentTitle = title
    concept = Dataset()
    concept.CodeValue = CHEST_CT.value
    concept.CodingSchemeDesignator = CHEST_CT.scheme_designator
    concept.CodeMeaning = CHEST_CT.meaning
    dataset.ConceptNameCodeSequence = [concept]
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    dataset.EncapsulatedDocumentLength = len(pdf)
    stamp(dataset, producer, title)
    return dataset
