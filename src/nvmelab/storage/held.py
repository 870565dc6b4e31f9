"""Storage whose operations end when, and in the order in which, a tester says."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from nvmelab.storage.worker import attempt


class HeldWorker:
    """Takes every operation of a controller's storage, reads and writes too, with no thread.

    While `hold` is False each is done as soon as it is handed over. While it is True those that
    come wait, in `waiting`, until they are released; a reset of the controller waits for them too.
    An operation is carried out when it is released: that is when a read fills host memory, and
    when a write takes from it.
    """

    carries_data = True

    def __init__(self) -> None:
        self.hold = False
        self.finished: deque[tuple[object, Exception | None]] = deque()
        self.waiting: list[tuple[object, Callable[[], None]]] = []
        """Handed over and not done, oldest first."""

    def submit(self, token: object, work: Callable[[], None]) -> None:
        """Have `work` done."""
        self.waiting.append((token, work))
        if not self.hold:
            self.release(-1)

    def held(self) -> int:
        """How many operations wait to be released."""
        return len(self.waiting)

    def release(self, index: int = 0) -> None:
        """Do one of the operations that wait, counted from the oldest. Raises IndexError."""
        token, work = self.waiting.pop(index)
        self.finished.append((token, attempt(work)))

    def let_go(self) -> None:
        """Hold nothing back any more, what waits included."""
        self.hold = False
        self.release_all()

    def release_all(self) -> None:
        """Do what waits now, oldest first."""
        for _ in range(len(self.waiting)):
            self.release()
