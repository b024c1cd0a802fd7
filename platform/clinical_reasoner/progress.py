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
        self._first: tuple[float, int] | None = None
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
            return
        now = time.monotonic()
        self._first = self._first or (now, done)
        if now - self._last >= _LOG_INTERVAL_S or done == self.total:
            self._last = now
            parts = (f"{self.name}: {done} of {self.total}", note, self._left(now, done))
            print(" ".join(part for part in parts if part), flush=True)

    def _left(self, now: float, done: int) -> str:
        """Time that the rest will take at the speed since the first look, which counts what an earlier run had done."""
        then, before = self._first or (now, done)
        if done <= before or done >= self.total:
            return ""
        seconds = (self.total - done) * (now - then) / (done - before)
        return f"about {seconds / 60:.0f} min left" if seconds >= 60 else f"about {seconds:.0f} s left"


@contextmanager
def watched(name: str, total: int, look: Callable[[], tuple[int, str]]) -> Iterator[None]:
    """Progress of work that does not tell any: `look()` is asked every two seconds how much of `total` is done, and
    what else there is to say."""
    ended = threading.Event()
    with ProgressBar(name, total) as bar:

        def keep_looking() -> None:
            while not ended.wait(_LOOK_INTERVAL_S):
                bar.update(*look())

        watcher = threading.Thread(target=keep_looking, daemon=True)
        watcher.start()
        try:
            yield
            ended.set()
            watcher.join()
            bar.update(*look())
        finally:
            ended.set()
