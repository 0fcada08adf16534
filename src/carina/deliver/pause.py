"""The pause of an association's reactor while its peer is asked something, so that nobody else takes the answer.

In pynetdicom 3.0 every question pauses the thread that serves an association: an event is cleared, and the thread says
that it waits. It may say so still from the question before, when it was told to go on and has not had the processor
since; then it takes the answer, knows no use for it and drops it, and an archive that has an object seems not to.
"""

from __future__ import annotations

import threading

from pynetdicom.association import Association

_LOOKS_AFTER_S = 0.1
"""A thread that has ended waits for nothing: so often it is looked whether it has."""


class ReactorPause(threading.Event):
    """Takes the place of an association's checkpoint: once it is cleared, the thread waits and goes on waiting.

    A thread that was told to go on, and has not had the processor before the next question, goes on waiting.
    """

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association
        self._changed = threading.Condition()
        self._goes_on, self._waits = True, False

    def is_set(self) -> bool:
        """Whether the thread may go on."""
        return self._goes_on

    def set(self) -> None:
        """Let the thread go on."""
        with self._changed:
            self._goes_on = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Let the thread wait, and return once it does: at its next turn, or for ever where it has ended."""
        with self._changed:
            self._goes_on = False
            while not (self._waits or self._is_mine() or not self._association.is_alive()):
                self._changed.wait(_LOOKS_AFTER_S)
            self._association._is_paused = True  # whoever asks looks at nothing else, and would wait for ever

    def wait(self, timeout: float | None = None) -> bool:
        """As the thread itself: return once it may go on."""
        with self._changed:
            self._waits = True
            self._changed.notify_all()
            goes_on = self._changed.wait_for(self.is_set, timeout)
            self._waits = False
            return goes_on

    def _is_mine(self) -> bool:
        """Whether the thread asks by itself, from a handler: then it does nothing else meanwhile."""
        return threading.current_thread() is self._association


def pause_surely(association: Association) -> Association:
    """The association, whose pauses are those of `ReactorPause` from now on."""
    association._reactor_checkpoint = ReactorPause(association)
    return association
