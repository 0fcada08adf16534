"""The node: `carina serve` puts receiving, jobs and deliveries together, behind REST, DICOMweb and pages.

This is the composition root; nothing imports it but the command line.
"""

from __future__ import annotations

from starlette.convertors import IntegerConvertor, register_url_convertor


class WholeNumber(IntegerConvertor):
    """``{name:int}`` of every path here: of so many digits as an id in the database may have; a longer one is 404."""

    regex = "[0-9]{1,18}"


register_url_convertor("int", WholeNumber())
