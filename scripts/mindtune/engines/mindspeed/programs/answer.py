"""Answers many prompts with one load of a model, by MindSpeed-MM's own pipeline class.

This program runs under the framework's Python (3.10), on all ranks by torchrun, with the
arguments of inference_vlm.py and one more, `--mindtune-job`, a JSON file:

    prompts: a file of JSON lines with id, images (names) and text, all of what is asked with a
    token for each picture. images, answers: paths. image_resolution: pixels above which a picture
    is shrunk, as in training. kept_tokens: the special tokens that belong into an answer's text.
    picture_plugin: the framework's class that shrinks a picture.

All ranks ask the same prompts in the same order. The first tensor rank of the last pipeline
stage writes `answers`, a JSON line for each prompt: id, answer, tokens, cut, seconds.
"""

import json
import sys
import time
from pathlib import Path

import mindspeed.megatron_adaptor  # noqa: F401 - patches Megatron, and so comes first
import torch
from megatron.core import mpu
from megatron.training import get_args
from megatron.training.initialize import initialize_megatron
from mindspeed.utils import set_actual_seq_len
from mindspeed_mm.arguments import extra_args_provider_decorator
from mindspeed_mm.configs.config import merge_mm_args, mm_extra_args_provider
from mindspeed_mm.data.data_utils.func_utils import mm_plugin
from mindspeed_mm.tasks.inference.pipeline import vlm_pipeline_dict
from PIL import Image


def main():
    torch.set_grad_enabled(False)
    initialize_megatron(
        extra_args_provider=extra_args_provider_decorator(with_job),
        args_defaults={"tokenizer_type": "NullTokenizer"},
    )
    args = get_args()
    merge_mm_args(args)
    if not hasattr(args, "dist_train"):
        args.dist_train = False
    with open(args.mindtune_job, encoding="utf-8") as handle:
        job = json.load(handle)
    with open(job["prompts"], encoding="utf-8") as handle:
        prompts = [json.loads(line) for line in handle]
    pipeline = vlm_pipeline_dict[args.mm.model.pipeline_class](args.mm.model)
    respect_windows(pipeline.model.model)
    speaks = mpu.is_pipeline_last_stage() and mpu.get_tensor_model_parallel_rank() == 0
    if speaks:
        with open(job["answers"], "w", encoding="utf-8") as handle:
            for number, line in enumerate(answers(pipeline, prompts, job), start=1):
                handle.write(json.dumps(line, ensure_ascii=False) + "\n")
                handle.flush()
                print(f"mindtune: answered {number}/{len(prompts)}", flush=True)
    else:
        for _ in answers(pipeline, prompts, job):
            pass


def with_job(parser):
    parser = mm_extra_args_provider(parser)
    parser.add_argument("--mindtune-job", required=True)
    return parser


def respect_windows(model):
    """Have a vision encoder with windows take pixels as `ask` gives them, and attend within its windows."""
    for module in model.modules():
        config = getattr(module, "config", None)
        if getattr(config, "window_attn_size", None) is None:
            continue
        if hasattr(module, "get_window_index"):
            module.register_forward_pre_hook(without_batch)
        if hasattr(module, "layers"):
            for layer in module.layers:
                layer.register_forward_pre_hook(attend_as_masked, with_kwargs=True)


def without_batch(encoder, args):
    """Before the encoder: where there are windows, it takes the first dimension for that of the patches."""
    pixel_values, *rest = args
    return (pixel_values.squeeze(0), *rest)


def attend_as_masked(layer, args, kwargs):
    """Before a vision layer: bounds of what it attends within, from the mask that it is given.

    Flash attention knows the bounds only, which the framework sets once, to those of pictures. The mask,
    (1, patches, patches), true where nobody looks, has windows in the layers that have them.
    """
    mask = kwargs["attention_mask"][0]
    ends = (mask.diagonal(offset=1).nonzero()[:, 0] + 1).tolist()
    set_actual_seq_len((*ends, len(mask)))


def answers(pipeline, prompts, job):
    """Ask all prompts; yields a line for each (of None, on ranks that don't get the answer)."""
    shrink = getattr(mm_plugin, job["picture_plugin"])(
        None, None
    )  # it needs no tokens to shrink a picture
    for prompt in prompts:
        begun = time.perf_counter()
        pictures = []
        for name in prompt["images"]:
            with Image.open(Path(job["images"], name)) as opened:
                opened.load()
                pictures.append(
                    shrink._preprocess_image(opened, image_resolution=job["image_resolution"])
                )
        ids = ask(pipeline, pictures, prompt["text"])
        if ids is None:
            yield None
        else:
            seconds = time.perf_counter() - begun
            yield told(pipeline, ids, prompt["id"], seconds, job["kept_tokens"])


def ask(pipeline, pictures, text):
    """Token ids of a greedy answer, on the rank that gets it; None on others.

    The pipeline's own call would ask with the first picture only and put the question before it, in
    the form of another template, and would not shrink the picture as training does; its `generate`
    is what both ways come to.
    """
    inputs = pipeline.image_processor(
        text=[text], images=pictures, padding=True, return_tensors="pt"
    )
    inputs = inputs.to(pipeline.infer_config.device)
    inputs["pixel_values"] = inputs["pixel_values"].unsqueeze(0)
    asked = inputs["input_ids"].shape[1]
    generated = pipeline.generate(**inputs, do_sample=False)
    pipeline.model.inference_params = None  # the cache of keys and values
    return None if generated is None else generated[0, asked:].tolist()


def told(pipeline, ids, name, seconds, kept_tokens):
    stops = pipeline.generation_config.eos_token_id
    end = next((place for place, token in enumerate(ids) if token in stops), None)
    said = ids if end is None else ids[:end]
    tokenizer = pipeline.image_processor.tokenizer
    unsaid = {
        number
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special and token.content not in kept_tokens
    }
    text = tokenizer.decode(
        [token for token in said if token not in unsaid], clean_up_tokenization_spaces=False
    )
    return {
        "id": name,
        "answer": text.strip(),
        "tokens": len(said),
        "cut": end is None,
        "seconds": round(seconds, 4),
    }


if __name__ == "__main__":
    sys.exit(main())
