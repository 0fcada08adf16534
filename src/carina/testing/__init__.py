"""Synthetic DICOM, a loopback PACS and a Triton server, for our tests and for users' tests."""
