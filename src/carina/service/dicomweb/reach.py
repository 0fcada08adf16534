"""Files of the node that can't be read now: what is gone is gone, all else is said, and nothing is kept of it."""

from __future__ import annotations

import errno
import logging
import stat
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from itertools import chain, islice
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Send

from carina.errors import BadSeries, CarinaError, reason_of
from carina.service.problems import NotThere, OutOfReach

_LOG = logging.getLogger(__name__)

GONE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
"""What the system says of a file that was removed, whatever is in its place or in that of its folder."""

_OF_ALL_FILES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""What the system says where no file can be opened, whichever it is."""

READING = (BadSeries, MemoryError, OSError)
"""What reading a file raises, as the system says it or as a reader tells it."""


def check_reached(error: BaseException, path: Path | None = None) -> None:
    """See that an error met while reading is of the file itself, damaged or gone; the log names one that is not.

    Raises:
        OutOfReach: the system could not give what is there.
    """
    met = error if isinstance(error, OSError | MemoryError) else error.__cause__
    if not isinstance(met, OSError | MemoryError) or isinstance(met, GONE):
        return
    why = reason_of(met) if isinstance(met, OSError) else "no memory is left"
    told = error.message if isinstance(error, CarinaError) else f"can't be read ({why})."
    named = path or (met.filename if isinstance(met, OSError) else None)
    _LOG.warning("%s", f"{named}: {told.removeprefix(f'{Path(named).name}: ')}" if named else told)
    words = f"a file of what is asked for can't be read now ({why}): try again; the node's log has its name."
    out = OutOfReach("dicomweb.unreadable", words)
    out.is_of_one = isinstance(met, OSError) and met.errno not in _OF_ALL_FILES
    raise out from error


def is_file_there(path: Path) -> bool:
    """Whether there is such a file.

    Raises:
        OutOfReach: the system can't say.
    """
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        check_reached(error, path)
        return False


def changed_ns(path: Path) -> int:
    """When a file or folder was changed last; 0 where it is gone.

    Raises:
        OutOfReach: the system can't say.
    """
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        check_reached(error, path)
        return 0


def file_blocks(path: Path, size: int) -> Iterator[bytes]:
    """A file's bytes.

    Raises:
        NotThere: it is gone.
        OutOfReach: it can't be read.
    """
    try:
        with path.open("rb") as stream:
            while block := stream.read(size):
                yield block
    except OSError as error:
        check_reached(error, path)
        raise _gone() from error


def reached(answer: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """A route whose answer says that a file can't be read now, whichever reader met it."""

    @wraps(answer)
    def answered(request: Request) -> Response:
        try:
            return answer(request)
        except READING as error:
            check_reached(error)
            if isinstance(error, GONE) or isinstance(error.__cause__, GONE):
                raise _gone() from error
            raise

    return answered


def _gone() -> NotThere:
    return NotThere("dicomweb.none", "this node holds no such object.")


class FileAnswer(StreamingResponse):
    """An answer that is read from files while it is sent, its first ``sure`` blocks before it begins.

    Where the files end it later, the connection is broken off, so that nobody takes what came for the whole.

    Raises:
        CarinaError: what the first blocks are read from can't be.
    """

    def __init__(
        self, blocks: Iterator[bytes], media_type: str, sure: int = 1, headers: Mapping[str, str] | None = None
    ) -> None:
        first = list(islice(blocks, sure))
        self._broken = ""
        super().__init__(self._until_broken(chain(first, blocks)), headers=headers, media_type=media_type)

    def _until_broken(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        try:
            yield from blocks
        except CarinaError as error:
            self._broken = error.message
        except (MemoryError, OSError) as error:
            self._broken = reason_of(error) if isinstance(error, OSError) else "no memory is left"

    async def stream_response(self, send: Send) -> None:
        """Send it; what is broken off gets no end."""

        async def whole(message: Message) -> None:
            if self._broken and not message.get("more_body", True):
                _LOG.warning("an answer was broken off: %s", self._broken)
                return
            await send(message)

        await super().stream_response(whole)
