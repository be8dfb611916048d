"""What does the `hf` engine do at full size? Beside a plain loop on transformers' model, in one run.

    python benchmarks/full_size.py                             # the 2B shape on a CUDA device
    python benchmarks/full_size.py --shape tiny --device cpu   # the same on the demo's shape

Makes its own inputs in --work: a Qwen2-VL of the shape with random weights, a vocabulary of the true
size, photograph-like pictures and LLaVA-like conversations. At the tutorial's settings (24 samples an
iteration, micro batches of one, vision frozen, bf16 on a device) it measures, row by row:

inputs     what an iteration has, and how long one thread prepares it
plain      a loop over micro batches on transformers' model, with its own loss
exact      packed passes against micro batches one by one: loss and gradients of the same weights
optimizer  a step, as torch does it and fused
engine     the engine's own training: iterations with pictures that are new, and seen before; how long
           a checkpoint lets the training wait
answering  tokens a second, by the engine's own function
lora, recompute   the engine's training with adapters (peft), and with activations that are recomputed
cpu        the demo's training on one CPU thread, beside transformers' plain Trainer

On an H100 all rows are meant to take less than six minutes; --rows names some. Prints a table, and writes
it as JSON where --out says so. A row that can't be measured here says why.
"""

import argparse
import gc
import gzip
import itertools
import json
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "config" / "config.yaml"
sys.path.insert(0, str(ROOT / "scripts"))

import torch  # noqa: E402
import yaml  # noqa: E402
from mindtune.data.mllm import read_mllm  # noqa: E402
from mindtune.demo import base_model, drawing, scenes  # noqa: E402
from mindtune.engines import ENGINES, stage, training_check  # noqa: E402
from mindtune.engines.converting import converter  # noqa: E402
from mindtune.engines.feature_cache import in_effect  # noqa: E402
from mindtune.engines.hf.checkpoints import Checkpoints  # noqa: E402
from mindtune.engines.hf.dataset import Collator, Conversations  # noqa: E402
from mindtune.engines.hf.device import DTYPES  # noqa: E402
from mindtune.engines.hf.finetune import freeze  # noqa: E402
from mindtune.engines.hf.model import load_model  # noqa: E402
from mindtune.engines.hf.optimizer import MainWeightsAdamW  # noqa: E402
from mindtune.engines.hf.packing import Packer, packed_loss  # noqa: E402
from mindtune.engines.hf.processing import Processor  # noqa: E402
from mindtune.engines.hf.schedule import sample_order  # noqa: E402
from mindtune.engines.hf.segments import use_segments  # noqa: E402
from mindtune.engines.requests import AnswerJob, FinetuneJob, PrepareJob  # noqa: E402
from mindtune.errors import UserError  # noqa: E402
from mindtune.models.tensors import tensors_of  # noqa: E402
from mindtune.settings import load  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from tokenizers import AddedToken, Tokenizer  # noqa: E402
from transformers import (  # noqa: E402
    PrinterCallback,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Trainer,
    TrainingArguments,
)

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
VOCABULARY = 151643  # tokens of Qwen2 but for the special ones
SIDES = [(640, 480), (640, 427), (480, 640), (640, 426), (500, 375)]  # COCO's commonest
WORDS = [
    "the",
    "a",
    "large",
    "small",
    "red",
    "blue",
    "bus",
    "street",
    "people",
    "man",
    "woman",
    "standing",
    "sitting",
    "near",
    "table",
    "with",
    "holding",
    "white",
    "plate",
    "food",
    "and",
    "next",
    "to",
    "in",
    "front",
    "of",
    "building",
    "sign",
    "clock",
    "cat",
    "dog",
    "water",
    "sky",
    "grass",
    "playing",
    "ball",
    "field",
    "train",
    "station",
    "window",
    "light",
    "group",
    "skateboard",
    "wave",
    "surfboard",
    "kitchen",
    "room",
    "several",
    "is",
    "are",
    "appears",
    "scene",
    "image",
    "shows",
    "various",
    "positioned",
    "towards",
    "left",
    "right",
    "side",
    "background",
    "overall",
    "atmosphere",
    "suggests",
]


@dataclass(frozen=True)
class Shape:
    """How large everything is. config: what differs from the demo's. batch: samples of an iteration.
    new: iterations before a picture comes again. side: the share of a photograph's sides."""

    config: dict
    vocabulary: int | None
    batch: int
    new: int
    side: float
    answers: int
    new_tokens: int


SHAPES = {
    "2b": Shape(TRUE_2B, VOCABULARY, 24, 6, 1.0, 256, 64),
    "tiny": Shape({}, None, 4, 3, 0.25, 6, 8),
}


@dataclass
class Row:
    """A line of the table. goal: what issue 15 of the project wants on an H100 at 2B."""

    what: str
    value: float | None
    unit: str
    note: str = ""
    goal: str = ""


@dataclass
class Bench:
    """What is measured, where, and what was found."""

    shape: Shape
    device: torch.device
    work: Path
    tokenizer: Path | None = None
    rows: list[Row] = field(default_factory=list)

    @property
    def hf(self) -> Path:
        return self.work / "model"

    @property
    def images(self) -> Path:
        return self.work / "images"

    @property
    def precision(self) -> str:
        return "fp32" if self.device.type == "cpu" else "bf16"

    def add(
        self, what: str, value: float | None, unit: str, note: str = "", goal: str = ""
    ) -> None:
        self.rows.append(Row(what, value, unit, note, goal))
        print(line_of(self.rows[-1]), flush=True)

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def free(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def memory(self) -> str:
        """The most memory of the device since `free`, in words."""
        if self.device.type != "cuda":
            return ""
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"

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

    def model(self) -> torch.nn.Module:
        model = load_model(self.hf, DTYPES[self.precision]).to(self.device).train()
        freeze(model, self.settings()["train"])
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad_dtype = torch.float32  # as the engine sums gradients
        return model

    def settings(self, train: dict | None = None, hf: dict | None = None) -> dict:
        """The tutorial's, checked as the workflow checks them."""
        raw = {
            "engine": "hf",
            "train": {
                "train_iters": 2 * self.shape.new, "save_interval": 2 * self.shape.new, "eval_iters": 0,
                "global_batch_size": self.shape.batch, **(train or {}),
            },
            "hf": {"device": str(self.device), "precision": self.precision, **(hf or {})},
            "answer": {"max_new_tokens": self.shape.new_tokens, "batch_size": self.shape.answers,
                       "tokens_per_batch": 1 << 17},
            "experiments": {"baseline": {}},
        }  # fmt: skip
        return load(raw).common


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="2b")
    parser.add_argument("--device", default="cuda", help="cuda (default) or cpu")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json of Qwen2, perhaps .gz")
    parser.add_argument("--rows", default=",".join(MEASURES), help="default: all, in this order")
    parser.add_argument("--work", type=Path, help="a new directory, which is kept")
    parser.add_argument("--out", type=Path, help="gets the table as JSON")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.rows.split(",") if name not in MEASURES]
    if unknown:
        parser.error(f"--rows: {unknown[0]} is none of {', '.join(MEASURES)}")
    if given.device != "cpu" and not torch.cuda.is_available():
        parser.error("--device: torch finds no CUDA device here; say --shape tiny --device cpu")
    begun = time.perf_counter()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        work = given.work or Path(place)
        bench = Bench(SHAPES[given.shape], torch.device(given.device), work, given.tokenizer)
        print(f"{about(bench)}; inputs in {work}", flush=True)
        make_inputs(bench)
        for name in given.rows.split(","):
            bench.free()
            try:
                MEASURES[name](bench)
            except (UserError, torch.OutOfMemoryError) as error:
                bench.add(
                    name, None, "", f"not measured: {str(error).splitlines()[-1].lstrip(' -')}"
                )
    print("\n" + table(bench.rows) + f"\n\n{time.perf_counter() - begun:.0f} s in all")
    if given.out:
        found = {"about": about(bench), "rows": [asdict(row) for row in bench.rows]}
        given.out.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")
    return 0


def about(bench: Bench) -> str:
    name = "CPU"
    if bench.device.type == "cuda":
        name = torch.cuda.get_device_name(bench.device)
    return f"{name}, torch {torch.__version__}, {bench.precision}, {bench.shape.batch} samples an iteration"


def line_of(row: Row) -> str:
    value = "-" if row.value is None else f"{row.value:,.4g} {row.unit}".strip()
    return f"| {row.what} | {value} | {row.goal} | {row.note} |"


def table(rows: list[Row]) -> str:
    head = "| | measured | to reach (H100, 2B) | |\n|---|---|---|---|"
    return "\n".join([head, *map(line_of, rows)])


# --- inputs ----------------------------------------------------------------


def make_inputs(bench: Bench) -> None:
    """The model, its mm checkpoint, pictures and conversations, and prompts about the pictures."""
    chance = random.Random(1)
    bench.hf.mkdir(parents=True)
    write_model(bench, tokenizer_of(bench))
    converter("mindtune").prepare(
        PrepareJob(bench.hf, bench.work / "mm", bench.settings()["parallel"])
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
    """A download's files with random weights, in the device's precision."""
    base_model.write_configs(bench.hf, tokenizer)
    change(bench.hf / "config.json", bench.shape.config)
    if bench.shape.config:
        change(bench.hf / "preprocessor_config.json", {"max_pixels": 12845056})
        change(bench.hf / "tokenizer_config.json", {"model_max_length": 32768})
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    with bench.device:
        model = Qwen2VLForConditionalGeneration(Qwen2VLConfig.from_pretrained(bench.hf))
    torch.set_default_dtype(default)
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


# --- rows ------------------------------------------------------------------


def inputs(bench: Bench) -> None:
    begun = time.perf_counter()
    samples = bench.samples
    seconds = time.perf_counter() - begun
    tokens = sum(len(sample["input_ids"]) for sample in samples)
    patches = sum(int(p.grid_thw.prod()) for sample in samples for p in sample["pictures"])
    bench.add(
        "preparing an iteration, one thread",
        seconds,
        "s",
        f"{tokens:,} tokens, {patches:,} patches",
    )


def plain(bench: Bench) -> None:
    model, collate = bench.model(), Collator(bench.processor)
    batches = [
        {name: tensor.to(bench.device) for name, tensor in collate([sample]).items()}
        for sample in bench.samples
    ]

    def iteration() -> None:
        for batch in batches:
            (model(**batch, use_cache=False).loss / len(batches)).backward()
        model.zero_grad(set_to_none=True)

    bench.free()
    seconds = bench.timed(iteration)
    bench.add("iteration, plain loop, micro batches of 1", seconds, "s", bench.memory())


def exact(bench: Bench) -> None:
    """In fp32 this is the order of sums; in bf16 products are rounded, too."""
    model, collate = bench.model(), Collator(bench.processor)
    one_by_one = 0.0
    for sample in bench.samples:
        batch = {name: tensor.to(bench.device) for name, tensor in collate([sample]).items()}
        loss = model(**batch, use_cache=False).loss / len(bench.samples)
        loss.backward()
        one_by_one += loss.item()
    expected = {n: p.grad.float().cpu() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    bench.free()
    use_segments(model)
    together = 0.0
    for part in packed_passes(bench):
        loss = packed_loss(model, part)
        loss.backward()
        together += loss.item()
    scale = max(float(gradient.norm()) for gradient in expected.values())
    worst = max(
        float(
            (p.grad.float().cpu() - expected[n]).norm()
            / max(float(expected[n].norm()), 1e-3 * scale)
        )
        for n, p in model.named_parameters()
        if p.grad is not None
    )
    loss = abs(together - one_by_one) / one_by_one
    fp32 = "1e-6 in fp32"
    bench.add("packed against one by one: loss", loss, "relative", f"{bench.precision}", fp32)
    bench.add("packed against one by one: gradients", worst, "relative", f"{bench.precision}", fp32)

    def iteration() -> None:
        for part in parts:
            packed_loss(model, part).backward()
        model.zero_grad(set_to_none=True)

    parts = packed_passes(bench)
    bench.free()
    seconds = bench.timed(iteration)
    bench.add("iteration, packed passes alone", seconds, "s", bench.memory(), "0.45 s")


TOKENS_PER_PASS = 16384


def packed_passes(bench: Bench) -> list:
    merge = bench.processor.image_processor.merge_size
    packer = Packer(1, TOKENS_PER_PASS, bench.processor.image_token_id, merge)
    return [part.to(bench.device) for part in packer(bench.samples)["passes"]]


def optimizer(bench: Bench) -> None:
    if bench.device.type != "cuda":
        bench.add("optimizer step, fused", None, "", "not measured: only on CUDA is it fused")
        return
    model, train = bench.model(), bench.settings()["train"]
    for name in ("as torch does it", "fused"):
        steps = MainWeightsAdamW(model, train)
        for group in steps.param_groups:
            group["fused"] = name == "fused"

        def step(steps=steps) -> None:
            for parameter in model.parameters():
                if parameter.requires_grad and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter, dtype=torch.float32)
            steps.step()

        bench.add(f"optimizer step, {name}", bench.timed(step), "s")
        del steps
        bench.free()


def engine(bench: Bench) -> None:
    room = "50 GB" if bench.device.type != "cpu" else "auto"
    found = trained(bench, "engine", hf={"tokens_per_pass": TOKENS_PER_PASS, "feature_cache": room})
    bench.add("iteration, pictures new", found.new, "s", found.memory, "0.45 s")
    bench.add("iteration, pictures seen before", found.seen, "s", "", "0.25 s")
    bench.add(
        "a checkpoint lets the training wait", found.waiting, "s", f"{found.saved:,} bytes", "2 s"
    )


@dataclass
class Trained:
    """new, seen: seconds of an iteration. waiting: seconds of the last save. saved: its bytes."""

    new: float
    seen: float
    waiting: float
    saved: int
    memory: str


def trained(bench: Bench, name: str, train: dict | None = None, hf: dict | None = None) -> Trained:
    """The engine's own training; the first iterations of each kind, which warm up, don't count."""
    settings = bench.settings(train, hf)
    section = settings["hf"]
    keys = ENGINES["hf"].keys["finetune"]
    job = FinetuneJob(
        train_data=bench.work / "train.json", held_out_data=bench.work / "held_out.json",
        images=bench.images, hf_dir=bench.hf, mm_dir=bench.work / "mm", save_dir=bench.work / name,
        train=settings["train"], processor=settings["processor"], parallel=settings["parallel"],
        machine=in_effect({key: section[key] for key in keys if key in section}), operation=section,
        features=bench.work / "features" / name,
    )  # fmt: skip
    bench.free()
    job.save_dir.mkdir()
    training_check("hf")(job, 0)
    with saving() as waited:
        stage("hf", "finetune")(job)
    lines = (job.save_dir / "loss.csv").read_text().splitlines()
    place = lines[0].split(",").index("ms_per_iteration")
    seconds = [float(line.split(",")[place]) / 1000 for line in lines[1:]]
    (file,) = job.save_dir.glob("iter_*/mp_rank_00/*.pt")
    saved = file.stat().st_size
    file.unlink()
    half = bench.shape.new
    return Trained(
        statistics.median(seconds[1:half]), statistics.median(seconds[half + 1 :]), waited[-1], saved,
        bench.memory(),
    )  # fmt: skip


@contextmanager
def saving() -> Iterator[list[float]]:
    """The seconds that each save takes of the training's own time."""
    waited: list[float] = []
    save = Checkpoints.save

    def measured(self: Checkpoints, *rest: Any) -> None:
        begun = time.perf_counter()
        save(self, *rest)
        waited.append(time.perf_counter() - begun)

    Checkpoints.save = measured
    try:
        yield waited
    finally:
        Checkpoints.save = save


def answering(bench: Bench) -> None:
    settings = bench.settings()
    section = settings["hf"]
    keys = ENGINES["hf"].keys["answer"]
    for _ in range(2):  # the first pays for what is started once
        out = bench.work / "answers.jsonl"
        stage("hf", "answer")(
            AnswerJob(
                prompts=bench.work / "prompts.jsonl", images=bench.images, model_dir=bench.hf,
                hf_dir=bench.hf, answers=out, answer=settings["answer"],
                processor=settings["processor"], parallel=settings["parallel"],
                machine=in_effect({key: section[key] for key in keys if key in section}), operation=section,
            )
        )  # fmt: skip
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        out.unlink()
        bench.free()
    tokens, seconds = (sum(line[name] for line in lines) for name in ("tokens", "seconds"))
    note = f"{len(lines)} prompts, {tokens:,} tokens"
    bench.add("answering", tokens / seconds, "tokens/s", note, "2,500 tokens/s")


def lora(bench: Bench) -> None:
    found = trained(
        bench,
        "lora",
        train={"lora": {"rank": 16}, "lr": 1e-4},
        hf={"tokens_per_pass": TOKENS_PER_PASS},
    )
    bench.add("iteration, LoRA of rank 16", found.seen, "s", found.memory)
    bench.add("a checkpoint of it", float(found.saved), "bytes")


def recompute(bench: Bench) -> None:
    found = trained(
        bench, "recompute", hf={"recompute": "full", "tokens_per_pass": TOKENS_PER_PASS}
    )
    bench.add("iteration, activations recomputed", found.seen, "s", found.memory)


def cpu(bench: Bench) -> None:
    """The demo's own model, pictures and batch; both with one thread, in turn, the faster run of each."""
    demo = Bench(SHAPES["tiny"], torch.device("cpu"), bench.work / "demo")
    write_demo(demo)
    ours, theirs = [], []
    for turn in range(2):
        theirs.append(plain_trainer(demo))
        ours.append(our_training(demo, turn))
    (wall, work), (their_wall, their_work) = (
        map(min, zip(*found, strict=True)) for found in (ours, theirs)
    )
    note = f"{1000 * their_wall:.0f} ms an iteration there, {1000 * wall:.0f} here"
    bench.add("demo's training on a CPU, beside transformers' Trainer", their_wall / wall, "times as fast",
              note, "1.3")  # fmt: skip
    note = f"processor seconds of the training's own process: {their_work:.2f} and {work:.2f} an iteration"
    bench.add("the same by processor time", their_work / work, "times as fast", note)


DEMO_BATCH, DEMO_EPOCHS = 16, 2
DEMO_PICTURES = 10 * DEMO_BATCH


def write_demo(demo: Bench) -> None:
    demo.images.mkdir(parents=True)
    base_model.write_base_model(demo.hf)
    records = []
    for image_id, scene in scenes.scenes(DEMO_PICTURES, 1):
        chance = random.Random(image_id)
        drawing.draw_scene(scene, chance)[0].save(demo.images / f"{image_id}.jpg", quality=90)
        messages = []
        for number, (question, answer) in enumerate(scenes.conversation(scene, chance)):
            mark = "" if number else "<image>\n"
            messages.append({"role": "user", "content": mark + question})
            messages.append({"role": "assistant", "content": answer})
        records.append({"images": [f"{image_id}.jpg"], "messages": messages})
    (demo.work / "train.json").write_text(json.dumps(records))
    (demo.work / "held_out.json").write_text(json.dumps(records[:1]))
    converter("mindtune").prepare(
        PrepareJob(demo.hf, demo.work / "mm", demo.settings()["parallel"])
    )


def demo_iterations() -> int:
    return DEMO_EPOCHS * DEMO_PICTURES // DEMO_BATCH


def our_training(demo: Bench, turn: int) -> tuple[float, float]:
    """Seconds of an iteration of the engine's, and of the processor in the training's own process."""
    iterations = demo_iterations()
    train = {"train_iters": iterations, "save_interval": iterations, "micro_batch_size": DEMO_BATCH,
             "global_batch_size": DEMO_BATCH, "lr": 1e-3, "clip_grad": 1.0}  # fmt: skip
    settings = demo.settings(train, yaml.safe_load(DEMO.read_text())["hf"])
    job = FinetuneJob(
        train_data=demo.work / "train.json", held_out_data=demo.work / "held_out.json",
        images=demo.images, hf_dir=demo.hf, mm_dir=demo.work / "mm", save_dir=demo.work / f"ours{turn}",
        train=settings["train"], processor=settings["processor"], parallel=settings["parallel"],
        machine=settings["hf"], features=demo.work / f"features{turn}" / "code",
    )  # fmt: skip
    job.save_dir.mkdir()
    with training() as found:
        stage("hf", "finetune")(job)
    return found[0]


def plain_trainer(demo: Bench) -> tuple[float, float]:
    """The same of transformers' Trainer with its own defaults: the same model, data and batch."""
    model = load_model(demo.hf, torch.float32)
    freeze(model, demo.settings()["train"])
    data = Conversations(read_mllm(demo.work / "train.json"), demo.images, demo.processor, 1024)
    with tempfile.TemporaryDirectory() as place:
        trainer = Trainer(
            model=model, train_dataset=data, data_collator=Collator(demo.processor),
            args=TrainingArguments(
                output_dir=place, max_steps=demo_iterations(), per_device_train_batch_size=DEMO_BATCH,
                learning_rate=1e-3, use_cpu=True, save_strategy="no", report_to=[], disable_tqdm=True,
                remove_unused_columns=False, logging_steps=1,
            ),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        with training() as found:
            trainer.train()
    return found[0]


@contextmanager
def training() -> Iterator[list[tuple[float, float]]]:
    """What each call of a Trainer's `train` takes for an iteration: seconds, and of the processor."""
    found: list[tuple[float, float]] = []
    train = Trainer.train

    def measured(self: Trainer, *rest: Any) -> Any:
        begun, work = time.perf_counter(), used()
        done = train(self, *rest)
        wall, work = time.perf_counter() - begun, used() - work
        found.append((wall / demo_iterations(), work / demo_iterations()))
        return done

    Trainer.train = measured
    try:
        yield found
    finally:
        Trainer.train = train


def used() -> float:
    """Seconds of the processor that this process has had, without those of its children."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_utime + own.ru_stime


MEASURES: dict[str, Callable[[Bench], None]] = {
    measure.__name__: measure
    for measure in (inputs, plain, exact, optimizer, engine, answering, lora, recompute, cpu)
}

if __name__ == "__main__":
    sys.exit(main())
