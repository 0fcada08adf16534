"""Delivery of result objects to folders, DICOM nodes and DICOMweb servers."""
