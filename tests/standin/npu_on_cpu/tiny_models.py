"""Models with a smaller vocabulary than Qwen2-VL's, such as the demo's.

The one thing in which the stand-in changes MindSpeed-MM and not its surroundings. In training, the
framework takes the tokens of pictures and videos to be 151655 and 151656, whatever model.json says, when
it looks where in a sequence the pictures are (`qwen2vl_get_rope_index` and its twin). A model with other ids would be
trained, without a message, with its pictures' patches in a row like words instead of in rows and
columns. Here the framework gets to see its own numbers. With Qwen2-VL's ids nothing changes.
"""

import functools

MODULE = "mindspeed_mm.models.vision.vlm_attentionmask_for_llm"
BUILT_IN = {"img_context_token_id": 151655, "video_token_id": 151656}


def with_built_in_ids(input_ids, model):
    """Token ids with the framework's own for pictures and videos in place of the model's."""
    translated = input_ids.clone()
    for key, built_in in BUILT_IN.items():
        translated[input_ids == getattr(model, key, built_in)] = built_in
    return translated


def masks_are_imported(module) -> None:
    """Wrap the searches for pictures in the module that has them, one for each family."""
    for name in ("qwen2vl_get_rope_index", "qwen2_5_vl_get_rope_index"):
        setattr(module, name, _translated(module, getattr(module, name)))


def _translated(module, search):
    @functools.wraps(search)
    def wrapper(config, input_ids, *args, **kwargs):
        model = module.get_args().mm.model
        return search(config, with_built_in_ids(input_ids, model), *args, **kwargs)

    return wrapper
