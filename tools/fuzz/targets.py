"""All targets."""

from __future__ import annotations

from fuzz.outcomes import Target


def all_targets() -> tuple[Target, ...]:
    """The targets; imports the packages that they need."""
    from fuzz import (
        evidence_targets,
        media_targets,
        model_targets,
        server_targets,
        value_targets,
        weight_targets,
    )

    return (
        *model_targets.TARGETS,
        *weight_targets.TARGETS,
        *media_targets.TARGETS,
        *value_targets.TARGETS,
        *server_targets.TARGETS,
        *evidence_targets.TARGETS,
    )
