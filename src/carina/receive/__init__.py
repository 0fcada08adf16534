"""What comes in: the DICOM listener, and what becomes of an instance until its series is complete.

`store` accepts one instance for good, `listener` takes it from the network (on `transport`, which is bounded),
`complete` says when a series is there.
"""
