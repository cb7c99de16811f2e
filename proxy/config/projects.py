"""The section `projects`: how soon a change of `projects.config` takes effect."""

from pydantic import Field

from proxy.config.units import Count, Seconds, Section


class Projects(Section):
    """Settings of projects, cached in memory and polled from PostgreSQL."""

    poll_s: Seconds = Field(2.0, description="A change of a project takes effect within this time.")
    reload_s: Seconds = Field(
        60.0, description="Interval at which all projects are reloaded, which also detects deleted ones."
    )
    first_wait_s: Seconds = Field(
        5.0, description="For this long after the start, requests wait for the projects to be loaded."
    )
    max_projects: Count = Field(
        10_000, description="Projects with settings that are cached; of more, the most recently changed ones."
    )
