"""The keys of the directory of projects: how soon a change of `projects.config` counts here."""

from pydantic import Field

from proxy.config.units import Count, Seconds, Section


class Projects(Section):
    """What every replica knows of the projects, kept in memory and followed in PostgreSQL."""

    poll_s: Seconds = Field(2.0, description="A changed project counts here within this time.")
    reload_s: Seconds = Field(60.0, description="All projects are read anew so often; then deleted ones are noticed.")
    first_wait_s: Seconds = Field(
        5.0, description="So long after its start a replica lets requests wait for the projects to be read."
    )
    max_projects: Count = Field(
        10_000, description="Projects with settings of their own that are kept; of more, the latest changed ones."
    )
