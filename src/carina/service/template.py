"""The settings file that a node begins with."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from carina.errors import BadConfig, unwritable

TEMPLATE = Path(__file__).with_name("template.toml")


def write_template(file: Path) -> None:
    """Write the commented settings file, whose folder is made; only its user can read it: passwords come into it.

    Raises:
        BadConfig: ``output.exists``, there is one already; ``output.unwritable``, it can't be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(0o600, exist_ok=False)
        file.write_text(TEMPLATE.read_text(encoding="utf-8"), encoding="utf-8")
    except (OSError, ValueError) as error:
        if os.path.lexists(file):
            message = f"{file}: is there already and stays as it is: move it away, or choose another folder."
            raise BadConfig("output.exists", message) from error
        raise unwritable(error if isinstance(error, OSError) else OSError(errno.EINVAL, str(error)), file) from error
