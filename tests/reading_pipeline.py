"""The smallest pipeline: it reads a series, and is done in a second."""

from __future__ import annotations

READING = """
api-version: 0.4.0
name: reading
operators:
- name: dicom-reader
  container: {image: carina/dicom-reader}
  input: [{path: /input}]
  output: [{path: /output}]
"""
