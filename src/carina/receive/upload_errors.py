"""What is said where an upload, or a part of it, is not taken."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from carina.errors import FULL, CarinaError

TWO_OF_A_NAME = (FileExistsError, NotADirectoryError, IsADirectoryError)


class NoUpload(CarinaError):
    """There is no such upload, or it is somebody else's."""


class UploadRefused(CarinaError):
    """A chunk or an end that doesn't fit what has come: the sender asks what has, and resumes from there."""


class NoRoomForUpload(CarinaError):
    """An upload is larger than what the settings or the disk leave."""


class UploadNotStored(CarinaError):
    """The node's disk does not take an upload: the node's operator must act."""


@contextmanager
def told_disk() -> Iterator[None]:
    """What the disk says as what it means to the sender: without the name of a file, which may be a patient's."""
    try:
        yield
    except TWO_OF_A_NAME:
        raise UploadRefused("upload.name", "a file has the name of a folder of the upload.") from None
    except OSError as error:
        if error.errno in FULL:
            raise NoRoomForUpload("upload.disk-full", "the node's disk is full: make room (node.free_gb).") from None
        if error.errno == errno.ENAMETOOLONG:
            raise UploadRefused("upload.name", "a file has a name that is too long, or lies too deep.") from None
        words = os.strerror(error.errno) if error.errno else type(error).__name__
        raise UploadNotStored("upload.disk", f"the node's disk does not take the upload ({words}).") from None
