"""Run by the framework's Python: answers of its own pipeline class.

    infer.py QUESTIONS ANSWERS [the arguments of inference_vlm.py]

QUESTIONS: a JSON file with a list of [prompt, picture]. ANSWERS: gets the list of answers.
"""

import json
import sys
from pathlib import Path

import torch
from booting import booted  # patches Megatron, hence first
from mindspeed_mm.tasks.inference.pipeline import vlm_pipeline_dict


def main() -> None:
    questions, answers = json.loads(Path(sys.argv.pop(1)).read_text()), Path(sys.argv.pop(1))
    torch.set_grad_enabled(False)
    args = booted()
    args.dist_train = getattr(args, "dist_train", False)
    pipeline = vlm_pipeline_dict[args.mm.model.pipeline_class](args.mm.model)
    found = [
        pipeline(prompt=prompt, images=[picture], return_ids=True) for prompt, picture in questions
    ]
    answers.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
