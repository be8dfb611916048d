"""Into how many tokens a family's image processor makes a picture."""

from dataclasses import dataclass

from mindtune.models import room


@dataclass(frozen=True)
class Pictures:
    """What holds where a model's preprocessor_config.json leaves it open.

    least, most: pixels of a picture. patch_size: pixels along the side of a patch. temporal_patch_size:
    frames. merge_size: patches along the side of what becomes a token.
    """

    least: int
    most: int
    patch_size: int
    temporal_patch_size: int
    merge_size: int


def pictures_of(model_type: str) -> Pictures:
    return room(model_type, "pictures").PICTURES
