"""What benchmarks/full_size.py measures on: a model of true shapes with random weights, and data for it."""

import gc
import gzip
import itertools
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from measuring import Row
from mindtune.data.mllm import read_mllm
from mindtune.demo import base_model
from mindtune.engines.converting import converter
from mindtune.engines.hf.dataset import Conversations
from mindtune.engines.hf.device import DTYPES
from mindtune.engines.hf.finetune import freeze
from mindtune.engines.hf.processing import Processor
from mindtune.engines.hf.schedule import sample_order
from mindtune.engines.requests import PrepareJob
from mindtune.models.tensors import tensors_of
from mindtune.settings import load
from mindtune.settings.typed import typed
from PIL import Image
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

# What Qwen/Qwen2-VL-2B-Instruct's config.json has where the demo's has something else.
TRUE_2B = {
    "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "max_window_layers": 28,
    "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936, "rope_theta": 1e6,
    "max_position_embeddings": 32768, "sliding_window": 32768,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vision_config": {
        "depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "in_chans": 3,
        "hidden_size": 1536, "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14,
        "temporal_patch_size": 2,
    },
}  # fmt: skip
# And that of Qwen/Qwen2-VL-7B-Instruct.
TRUE_7B = TRUE_2B | {
    "hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4,
    "vocab_size": 152064, "tie_word_embeddings": False,
    "vision_config": TRUE_2B["vision_config"] | {"hidden_size": 3584},
}  # fmt: skip
VOCABULARY = 151643  # tokens of Qwen2 but for the special ones
SIDES = [(640, 480), (640, 427), (480, 640), (640, 426), (500, 375)]  # COCO's commonest
TEXT = (
    "the a large small red blue bus street people man woman standing sitting near table with "
    "holding white plate food and next to in front of building sign clock cat dog water sky grass "
    "playing ball field train station window light group skateboard wave surfboard kitchen room "
    "several is are appears scene image shows various positioned towards left right side "
    "background overall atmosphere suggests"
)
WORDS = TEXT.split()


@dataclass(frozen=True)
class Shape:
    """How large everything is.

    config: what differs from the demo's; larger: the same of the larger model. batch: samples of an
    iteration. new: iterations before a picture comes again. side: the share of a photograph's sides.
    answers: prompts. short: layers of the model that is trained `iterations` times over.
    """

    config: dict
    larger: dict
    vocabulary: int | None
    batch: int
    new: int
    side: float
    answers: int
    new_tokens: int
    short: int
    iterations: int


SHAPES = {
    "2b": Shape(TRUE_2B, TRUE_7B, VOCABULARY, 24, 6, 1.0, 256, 64, 2, 100),
    "tiny": Shape({}, {"tie_word_embeddings": False}, None, 4, 3, 0.25, 6, 8, 1, 4),
}


@dataclass
class Bench:
    """What is measured, and where. say: gets the rows."""

    shape: Shape
    device: torch.device
    work: Path
    tokenizer: Path | None = None
    say: Callable[[Row], None] = field(default=print, repr=False)

    @property
    def hf(self) -> Path:
        return self.work / "model"

    @property
    def images(self) -> Path:
        return self.work / "images"

    @property
    def precision(self) -> str:
        return "fp32" if self.device.type == "cpu" else "bf16"

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]

    def add(
        self, what: str, value: float | None, unit: str, note: str = "", goal: str = ""
    ) -> None:
        self.say(Row(what, value, unit, note, goal))

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def free(self) -> None:
        """Give back what nobody holds, and count the most memory of the device from here."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def most(self) -> int | None:
        """Bytes: the most of the device's memory since `free`; None on a CPU."""
        return torch.cuda.max_memory_allocated() if self.device.type == "cuda" else None

    def timed(self, work: Callable[[], Any], times: int = 2) -> float:
        """Seconds of the fastest of some runs, after one that counts for nothing."""
        found = []
        for _ in range(times + 1):
            self.synchronize()
            begun = time.perf_counter()
            work()
            self.synchronize()
            found.append(time.perf_counter() - begun)
        return min(found[1:])

    @cached_property
    def processor(self) -> Processor:
        return Processor(self.hf)

    @cached_property
    def samples(self) -> list[dict]:
        """Those of the first iteration, in the engine's order."""
        records = read_mllm(self.work / "train.json")
        data = Conversations(records, self.images, self.processor, 1024)
        order = itertools.islice(sample_order(len(data), 1, 0), self.shape.batch)
        return [data[number] for number in order]

    def settings(self, train: dict | None = None, hf: dict | None = None) -> dict:
        """The tutorial's, checked as the workflow checks them."""
        raw = {
            "engine": "hf",
            "train": {
                "eval_iters": 0, "global_batch_size": self.shape.batch, **(train or {}),
            },
            "hf": {"device": str(self.device), "precision": self.precision, **(hf or {})},
            "answer": {"max_new_tokens": self.shape.new_tokens, "batch_size": self.shape.answers,
                       "tokens_per_batch": 1 << 17},
            "experiments": {"baseline": {}},
        }  # fmt: skip
        return load(raw).common


def made(
    bench: Bench, dtype: torch.dtype | None = None, changes: Mapping[str, Any] | None = None
) -> tuple[torch.nn.Module, dict]:
    """A model with random weights, made on the device, always the same; and its config.json's content.

    changes: to the benchmark's model.
    """
    raw = json.loads((bench.hf / "config.json").read_text())
    changes = dict(changes or {})
    vision = raw["vision_config"] | changes.pop("vision_config", {})
    raw |= changes | {"vision_config": vision}
    raw.pop("torch_dtype", None)  # parts of the model would have it, and others the default
    dtype = dtype or bench.dtype
    torch.manual_seed(0)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with bench.device:
            model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(**raw))
    finally:
        torch.set_default_dtype(usual)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}  # noqa: S101
    return model.train(), raw


def frozen(bench: Bench, model: torch.nn.Module) -> torch.nn.Module:
    """The same with its vision tower frozen, and gradients as the engine sums them."""
    for parameter in freeze(model, typed("train", bench.settings()["train"])):
        parameter.grad_dtype = torch.float32
    return model


def make_inputs(bench: Bench) -> None:
    """The model, its mm checkpoint, pictures and conversations, and prompts about the pictures."""
    chance = random.Random(1)
    bench.hf.mkdir(parents=True)
    write_model(bench, tokenizer_of(bench))
    converter("mindtune").prepare(
        PrepareJob.of("hf", bench.hf, bench.work / "mm", parallel=bench.settings()["parallel"])
    )
    bench.images.mkdir()
    names = [f"{number:012d}.jpg" for number in range(bench.shape.batch * bench.shape.new)]
    for name in names:
        width, height = (int(side * bench.shape.side) for side in chance.choice(SIDES))
        photograph(chance, width, height).save(bench.images / name, quality=90)
    records = [{"images": [name], "messages": talk(chance)} for name in names]
    (bench.work / "train.json").write_text(json.dumps(records))
    (bench.work / "held_out.json").write_text(json.dumps(records[:1]))
    with open(bench.work / "prompts.jsonl", "w") as handle:
        for number in range(bench.shape.answers):
            asked = {"id": str(number), "image": names[number % len(names)]}
            print(json.dumps(asked | {"prompt": "What is in the picture?"}), file=handle)


def tokenizer_of(bench: Bench) -> Tokenizer:
    """The given one, one with a vocabulary that is drawn, or the demo's own."""
    if bench.tokenizer:
        content = bench.tokenizer.read_bytes()
        packed = bench.tokenizer.suffix == ".gz"
        return Tokenizer.from_str((gzip.decompress(content) if packed else content).decode())
    own = Tokenizer.from_file(str(base_model.ASSETS / "tokenizer.json"))
    return drawn(own, bench.shape.vocabulary) if bench.shape.vocabulary else own


def drawn(own: Tokenizer, size: int) -> Tokenizer:
    """A tokenizer of another size: our words are a token each, and the rest is drawn at random."""
    plain = json.loads(own.to_str())
    letters = sorted(base_model.pre_tokenizers.ByteLevel.alphabet())
    vocabulary, merges = dict.fromkeys(letters), []

    def join(left: str, right: str) -> str:
        if left + right not in vocabulary:
            vocabulary[left + right] = None
            merges.append([left, right])
        return left + right

    for word in WORDS:
        for text in (f"Ġ{word}", word, word.capitalize()):
            made = text[0]
            for letter in text[1:]:
                made = join(made, letter)
    chance, known = random.Random(0), list(vocabulary)
    while len(vocabulary) < size:
        known.append(join(chance.choice(known), chance.choice(letters[:64])))
    plain["model"] |= {"vocab": {t: n for n, t in enumerate(vocabulary)}, "merges": merges}
    plain["added_tokens"] = []
    tokenizer = Tokenizer.from_str(json.dumps(plain))
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in base_model.SPECIAL_TOKENS])
    return tokenizer


def write_model(bench: Bench, tokenizer: Tokenizer) -> None:
    """A download's files with random weights, in bfloat16."""
    base_model.write_configs(bench.hf, tokenizer)
    change(bench.hf / "config.json", bench.shape.config)
    if bench.shape.config:
        change(bench.hf / "preprocessor_config.json", {"max_pixels": 12845056})
        change(bench.hf / "tokenizer_config.json", {"model_max_length": 32768})
    model, _ = made(bench, torch.bfloat16)
    family = tensors_of(model.config)
    tensors = {
        family.published_name(name): tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    save_file(tensors, bench.hf / "model.safetensors", metadata={"format": "pt"})


def change(path: Path, values: dict) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def photograph(chance: random.Random, width: int, height: int) -> Image.Image:
    """Soft shapes with a grain, which JPEG and the image processor find as hard as a photograph."""
    coarse = Image.frombytes("RGB", (8, 6), chance.randbytes(8 * 6 * 3))
    soft = coarse.resize((width, height), Image.Resampling.BICUBIC)
    grain = Image.frombytes("RGB", (width, height), chance.randbytes(width * height * 3))
    return Image.blend(soft, grain, 0.15)


def talk(chance: random.Random) -> list[dict]:
    """A conversation as long as LLaVA-Instruct's: several short turns, or one long answer."""
    turns = chance.choice([1, 1, 1, 2, 3, 3, 4, 5])
    sentences = [1, 1, 2, 5] if turns > 1 else [1, 4, 7, 9]
    messages = []
    for turn in range(turns):
        answer = " ".join(
            sentence(chance, chance.randrange(8, 24)) for _ in range(chance.choice(sentences))
        )
        question = ("" if turn else "<image>\n") + sentence(chance, chance.randrange(6, 18))
        messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    return messages


def sentence(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(WORDS, k=words)).capitalize() + "."
