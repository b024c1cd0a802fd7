"""Progress of long work: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LOG_INTERVAL_S = 15.0
_LOOK_INTERVAL_S = 2.0


class ProgressBar:
    """Context manager. `update(done, text)` shows how much of `total` is done; `text` may hold a loss, for example."""

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total = name, total
        self._last = time.monotonic()
        self._bar: Progress | None = None
        if sys.stdout.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[note]}"))

    def __enter__(self) -> ProgressBar:
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task(self.name, total=self.total, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        self.total = total or self.total
        if self._bar:
            self._bar.update(self._task, completed=done, note=note, total=self.total)
        elif time.monotonic() - self._last >= _LOG_INTERVAL_S or done == self.total:
            self._last = time.monotonic()
            print(f"{self.name}: {done} of {self.total} {note}".rstrip(), flush=True)


@contextmanager
def watched(name: str, total: int, count: Callable[[], int]) -> Iterator[None]:
    """Progress of work that does not tell any: `count()` is asked every two seconds how much of `total` is done."""
    ended = threading.Event()
    with ProgressBar(name, total) as bar:

        def look() -> None:
            while not ended.wait(_LOOK_INTERVAL_S):
                bar.update(count())

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        try:
            yield
            ended.set()
            watcher.join()
            bar.update(count())
        finally:
            ended.set()
