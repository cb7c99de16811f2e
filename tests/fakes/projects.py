"""What projects decide, without PostgreSQL."""

from dataclasses import dataclass, field

from proxy.config.project import DEFAULT, ProjectSettings, parse


@dataclass
class Projects:
    """A directory whose projects a test writes down; `waits` counts requests that came before it was ready."""

    documents: dict[str, object] = field(default_factory=dict)
    is_ready: bool = True
    waits: int = 0

    async def ready(self) -> None:
        self.waits += 1

    def get(self, project_id: str) -> ProjectSettings:
        document = self.documents.get(project_id)
        return DEFAULT if document is None else parse(document)[0]
