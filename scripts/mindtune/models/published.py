"""The published models of all families: what estimates of scale go by where no model is at hand."""

from typing import Any

from mindtune.models import FAMILIES, room

# Name of the family, `-` and size -> what of its config.json gives its shape.
PUBLISHED: dict[str, dict[str, Any]] = {
    f"{name}-{size}": config
    for model_type, name in FAMILIES.items()
    for size, config in room(model_type, "published").PUBLISHED.items()
}


def published_names(name: str) -> list[str]:
    """The published models that a name can mean: one by its whole name, or all of a size (`7B`)."""
    wanted = name.lower()
    return [known for known in PUBLISHED if wanted in (known.lower(), known.lower().split("-")[-1])]


def published_in(name: str) -> str | None:
    """The published model of which a name begins with the name (and goes on after a `-`), or None."""
    return next(
        (known for known in PUBLISHED if f"{name.lower()}-".startswith(f"{known.lower()}-")), None
    )
