"""The file of the operating point: where it lies, and whether it belongs to what is served."""

from __future__ import annotations

from dataclasses import dataclass

from clinical_reasoner.errors import UserError
from clinical_reasoner.llm.prompting import PROMPT_VERSION
from clinical_reasoner.operating_point import OPERATING_POINT_FILE, OperatingPoint, read_operating_point
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.serving.panel import Panel, Role
from clinical_reasoner.storage import read_file


@dataclass(frozen=True)
class PointFile:
    run_path: str
    own_path: str | None
    """`serving.operating_point`, local or `s3://`; None: that of the run."""
    panel: Panel
    """Of what is served."""

    def read(self) -> OperatingPoint | None:
        """None where the run has none. Raises UserError for a file that was asked for and is not there, that cannot be
        read, or that was made for other models, prompts or labels than those that are served."""
        if self.own_path is not None:
            place, content = self.own_path, self._own(self.own_path)
        else:
            run = RunFolder(self.run_path)
            place = run.child(OPERATING_POINT_FILE)
            try:
                if not run.exists(OPERATING_POINT_FILE):
                    return None
                content = run.read_bytes(OPERATING_POINT_FILE)
            except OSError as error:
                raise UserError(f"{place}: cannot be read: {type(error).__name__}") from error
        point = read_operating_point(content, place)
        self._check(point, place)
        return point

    @staticmethod
    def _own(path: str) -> bytes:
        try:
            return read_file(path)
        except UserError as error:
            raise UserError(f"serving.operating_point: {error}") from error

    def _check(self, point: OperatingPoint, place: str) -> None:
        task = self.panel.task
        wanted = (
            ("task", point.task, task.name),
            ("labels", point.labels, task.label_names),
            ("prompt_version", point.prompt_version, PROMPT_VERSION),
            *self._of_role("student", point, self.panel.student),
            *(self._of_role("teacher", point, self.panel.teacher) if point.teacher else ()),
        )
        for name, found, served in wanted:
            if found != served:
                raise UserError(
                    f"{place}: made for {name} {found!r}, but {served!r} is served; run the job that evaluates this "
                    "run again, or name another file (serving.operating_point)"
                )

    @staticmethod
    def _of_role(name: str, point: OperatingPoint, role: Role) -> tuple[tuple[str, object, object], ...]:
        tier = point.student if name == "student" else point.teacher
        assert tier is not None
        return ((f"{name}.model", tier.model, role.model), (f"{name}.ask", tier.ask, role.ask))
