"""The work of one generation in the run folder: the prompts, and the blocks of rows that are answered already."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from clinical_reasoner.llm.generation import FAILURE, PLACE, Row, is_final
from clinical_reasoner.runs import RunError, RunFolder

_RATE_S = 60.0
"""Over which the rate of tokens is shown."""


@dataclass(frozen=True)
class Work:
    """Prompts and answered rows below one folder of a run. Every prompt has a number, its PLACE."""

    run: RunFolder
    folder: str

    @property
    def prompts(self) -> str:
        return f"{self.folder}/prompts"

    @property
    def generated(self) -> str:
        return f"{self.folder}/generated"

    def write_prompts(self, rows: Iterable[Row], schema: pa.Schema) -> tuple[int, int]:
        """Number and write them; how many prompts there are, and about how many patients. The same rows again change
        nothing."""
        patients, last = 0, None
        with self.run.table_writer(self.prompts, schema.append(pa.field(PLACE, pa.int64()))) as writer:
            for place, row in enumerate(rows):
                writer.add({**row, PLACE: row.get(PLACE, place)})
                patients += row["patient_id"] != last  # a patient's rows are adjacent
                last = row["patient_id"]
        return writer.rows, patients

    def failures(self) -> Counter[str]:
        """Kinds of errors of the rows that are generated."""
        kinds: Counter[str] = Counter()
        for part in self.run.parts(self.generated):
            with self.run.parquet(part) as file:
                kinds.update(file.read([FAILURE])[FAILURE].drop_null().to_pylist())
        return kinds

    def to_ask_again(self, schema: pa.Schema) -> Iterator[Row]:
        """Prompts on which the engine failed, without those that it refused."""
        places: set[int] = set()
        for part in self.run.parts(self.generated):
            with self.run.parquet(part) as file:
                rows = file.read([PLACE, FAILURE])
            failed = rows.filter(pc.is_valid(rows[FAILURE])).to_pylist()
            places.update(row[PLACE] for row in failed if not is_final(row[FAILURE]))
        for batch in self.run.batches(self.prompts, schema.append(pa.field(PLACE, pa.int64()))):
            yield from (row for row in batch.to_pylist() if row[PLACE] in places)

    def in_order(self, total: int, again: Work | None) -> Iterator[Row]:
        """The generated rows in the order of their prompts, those of `again` in place of the ones that failed. Only the
        rows of blocks that overtook others are in memory. Raises RunError when a row is missing, double or of no
        prompt."""
        parts = [*_places(self, replaced=again is not None), *(_places(again, replaced=False) if again else [])]
        waiting: dict[int, Row] = {}
        double, due = 0, 0
        for _, work, part, replaced in sorted(parts, key=lambda found: found[0]):
            with work.run.parquet(part) as file:
                rows = file.read().to_pylist()
            for row in rows:
                if replaced and row[FAILURE] and not is_final(row[FAILURE]):
                    continue
                if due <= row[PLACE] < total and row[PLACE] not in waiting:
                    waiting[row[PLACE]] = row
                else:
                    double += 1
            while due in waiting:
                yield waiting.pop(due)
                due += 1
        missing = total - due - len(waiting)
        if double or missing:
            raise RunError(
                f"{self.folder} in the run folder: {double} rows double and {missing} missing; "
                "remove that folder and start again"
            )


def _places(work: Work, replaced: bool) -> Iterator[tuple[int, Work, str, bool]]:
    """First place, file and whether its failed rows stand elsewhere, of each block."""
    for part in work.run.parts(work.generated):
        with work.run.parquet(part) as file:
            if file.metadata.num_rows:
                first = pc.min(file.read([PLACE])[PLACE]).as_py()
                yield first, work, part, replaced


class Watch:
    """How far a generation is: called again and again, it reads only blocks that are new."""

    def __init__(self, work: Work, total: int, patients: int) -> None:
        self._work, self._total, self._patients = work, total, patients
        self._seen: set[str] = set()
        self._rows = self._rejected = self._tokens = 0
        self._rates: deque[tuple[float, int]] = deque()

    def __call__(self) -> tuple[int, str]:
        """Rows that are done, and what else there is to say."""
        for part in self._work.run.parts(self._work.generated):
            if part not in self._seen:
                # No footer yet, or just now moved to its own name.
                with suppress(pa.ArrowInvalid, FileNotFoundError):
                    self._read(part)
                    self._seen.add(part)
        return self._rows, self._note()

    def _read(self, part: str) -> None:
        with self._work.run.parquet(part) as file:
            table = file.read(["accepted", "output_tokens"])
        self._rows += table.num_rows
        self._rejected += table.num_rows - (pc.sum(table["accepted"]).as_py() or 0)
        self._tokens += pc.sum(table["output_tokens"]).as_py() or 0

    def _note(self) -> str:
        now = time.monotonic()
        if not self._rates or self._rates[-1][1] != self._tokens:
            self._rates.append((now, self._tokens))
        while len(self._rates) > 2 and now - self._rates[0][0] > _RATE_S:
            self._rates.popleft()
        (then, before), (last, tokens) = self._rates[0], self._rates[-1]
        rate = f"{(tokens - before) / (last - then):,.0f} tokens/s, " if last > then else ""
        done = self._patients * self._rows // self._total
        return f"(patients {done} of {self._patients}, {rate}{self._rejected} rejected)"
