"""The node: `carina serve` puts receiving, jobs and deliveries together, behind REST, DICOMweb and pages.

This is the composition root; nothing imports it but the command line.
"""
