"""What projects decide, without PostgreSQL."""

from dataclasses import dataclass, field

from proxy.config.project import ARCHIVED, DEFAULT, ProjectSettings, parse
from proxy.projects.directory import Directory


@dataclass
class Projects:
    """A directory whose projects a test writes down; `waits` counts requests that came before it was ready."""

    documents: dict[str, object] = field(default_factory=dict)
    is_ready: bool = True
    waits: int = 0

    async def ready(self) -> None:
        self.waits += 1

    def get(self, project_id: str) -> ProjectSettings:
        if project_id not in self.documents:
            return DEFAULT
        document = self.documents[project_id]
        return ARCHIVED if document is None else parse(document)[0]

    def active(self, project_id: str) -> ProjectSettings:
        return Directory.active(self, project_id)  # type: ignore[arg-type]
