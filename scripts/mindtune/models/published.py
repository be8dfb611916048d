"""The published models of all families: what estimates of scale go by where no model is at hand."""

from typing import Any

from mindtune.models import FAMILIES, room

# Size, as in the model's name -> what of its config.json gives its shape.
PUBLISHED: dict[str, dict[str, Any]] = {
    size: config for name in FAMILIES for size, config in room(name, "published").PUBLISHED.items()
}
