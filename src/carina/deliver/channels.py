"""What the sender needs of a destination, one class for each kind: objects stored one by one, and asked about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, assert_never

from carina.config import Destination, DicomDestination, DicomwebDestination, FolderDestination
from carina.deliver.answers import Answer
from carina.deliver.association import address
from carina.deliver.find_scu import found_by_query
from carina.deliver.folder import held_in_folder, store_in_folder
from carina.deliver.identity import identity_of
from carina.deliver.proof import Proof
from carina.deliver.qido import found_by_qido
from carina.deliver.store_scu import storing_by_association
from carina.deliver.stow import store_by_stow


class Session(Protocol):
    """A way on which objects can be stored until it closes."""

    @property
    def is_open(self) -> bool:
        """Whether another object can be sent."""

    def store(self, file: Path) -> Answer:
        """Send one object; what the peer says of it."""


class Channel(Protocol):
    """One destination, as the sender sees it. Both calls raise ``DeliveryFailed`` where it can't be reached."""

    @property
    def where(self) -> str:
        """Its address, for messages."""

    @property
    def proof(self) -> Proof:
        """How ``held`` knows."""

    def storing(self, files: Sequence[Path]) -> AbstractContextManager[Session]:
        """A session on which these files can be sent."""

    def held(self, files: Sequence[Path]) -> frozenset[str] | None:
        """The SOP Instance UIDs of those that the destination has; None where it can't be asked."""


@dataclass(frozen=True, kw_only=True)
class DicomChannel:
    """C-STORE and C-FIND."""

    name: str
    peer: DicomDestination
    proof: Proof = Proof.QUERY

    @property
    def where(self) -> str:
        """``AE@host:port``."""
        return address(self.peer)

    def storing(self, files: Sequence[Path]) -> AbstractContextManager[Session]:
        """An association."""
        return storing_by_association(files, self.name, self.peer)

    def held(self, files: Sequence[Path]) -> frozenset[str] | None:
        """Asked by C-FIND."""
        return found_by_query([identity_of(file) for file in files], self.name, self.peer)


@dataclass(frozen=True, kw_only=True)
class WebChannel:
    """STOW-RS, an object in each request, and QIDO-RS. ``is_open`` always: each request is a connection."""

    name: str
    server: DicomwebDestination
    proof: Proof = Proof.QUERY
    is_open: bool = True

    @property
    def where(self) -> str:
        """The service root."""
        return self.server.url

    @contextmanager
    def storing(self, files: Sequence[Path]) -> Iterator[Session]:
        """Nothing has to be opened."""
        yield self

    def store(self, file: Path) -> Answer:
        """One POST."""
        return store_by_stow(file, self.name, self.server)

    def held(self, files: Sequence[Path]) -> frozenset[str] | None:
        """Asked by QIDO-RS."""
        return found_by_qido([identity_of(file) for file in files], self.name, self.server)


@dataclass(frozen=True, kw_only=True)
class FolderChannel:
    """Copies in a folder, compared by digest."""

    name: str
    folder: Path
    proof: Proof = Proof.DIGEST
    is_open: bool = True

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.folder)

    @contextmanager
    def storing(self, files: Sequence[Path]) -> Iterator[Session]:
        """Nothing has to be opened."""
        yield self

    def store(self, file: Path) -> Answer:
        """One copy."""
        return store_in_folder(file, self.folder)

    def held(self, files: Sequence[Path]) -> frozenset[str] | None:
        """Read back."""
        return held_in_folder(files, self.name, self.folder)


def channel_to(name: str, destination: Destination) -> Channel:
    """The way to a destination of the settings."""
    match destination:
        case DicomDestination():
            return DicomChannel(name=name, peer=destination)
        case DicomwebDestination():
            return WebChannel(name=name, server=destination)
        case FolderDestination():
            return FolderChannel(name=name, folder=Path(destination.path))
        case _:
            assert_never(destination)
