"""Run by the framework's Python without the stand-in: transformers' answers to the same questions.

    transformers_answers.py QUESTIONS ANSWERS MODEL LENGTH

As the framework's pipeline asks: text before picture, pictures through qwen_vl_utils.
"""

import json
import sys
from pathlib import Path

import torch
from qwen_vl_utils import process_vision_info
from transformers import AutoProcessor, Qwen2VLForConditionalGeneration


def answer(model, processor, prompt: str, picture: str, length: int) -> str:
    content = [{"type": "text", "text": prompt}, {"type": "image", "image": picture}]
    messages = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    pictures, _ = process_vision_info(messages)
    inputs = processor(text=[text], images=pictures, return_tensors="pt")
    with torch.inference_mode():
        ids = model.generate(**inputs, max_new_tokens=length, do_sample=False)
    return processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def main() -> None:
    questions, answers, model_dir, length = sys.argv[1:]
    torch.set_num_threads(1)
    model = Qwen2VLForConditionalGeneration.from_pretrained(model_dir, torch_dtype=torch.bfloat16)
    processor = AutoProcessor.from_pretrained(model_dir)
    found = [
        answer(model, processor, prompt, picture, int(length))
        for prompt, picture in json.loads(Path(questions).read_text())
    ]
    Path(answers).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
