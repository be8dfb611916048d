"""What does the `hf` engine do at full size? Beside plain loops on transformers' model, in one run.

    python benchmarks/full_size.py                             # the 2B shape on a CUDA device
    python benchmarks/full_size.py --shape tiny --device cpu   # the same on the demo's shape

Makes its own inputs in --work: a Qwen2-VL of the shape with random weights, a vocabulary of the true
size, photograph-like pictures and LLaVA-like conversations. At the tutorial's settings (24 samples an
iteration, micro batches of one, vision frozen, bf16 on a device) it measures, row by row:

inputs     what an iteration has, and how long one thread prepares it
plain      a loop over micro batches on transformers' model, with its own loss
packed     packed passes alone, without optimizer; in bf16 also how far their loss is from micro batches'
engine     the engine's own training, pictures new; how long a checkpoint of 2B lets the training wait
kept       the same with kept features: pictures new, and seen before
answering  tokens a second, by the engine's own function
exact      packed passes against micro batches one by one in fp32: loss and gradients of the same weights
lora, peft, lora-small     adapters of rank 16: the engine's training, packed; peft's plain loop over micro
           batches; and the engine's step with the least memory
recompute  the engine's step of the whole language model, with activations that are recomputed
seven, seven-small, seven-nf4    the same of 7B with adapters, its weights made on the device: packed,
           recomputed, and beside weights of 4 bits
yardstick  100 iterations in fp32 of a model of two layers, packed and one by one; beside what a learning
           rate greater by 1e-7 does
optimizer  a step, as torch does it and fused
liger      the engine's step with liger's kernels
cpu        the demo's training on one CPU thread, beside transformers' plain Trainer

`The engine's step` is its packed passes, clipping and optimizer, without its data loading and log. Beside the
most memory of a row stands what mindtune.memory computes for it, and the pictures of the passes.

Each row runs in a process of its own and has a time; what may not be done within --minutes is left out,
and is named. --rows names some. Prints a table, and writes it as JSON, row by row, where --out says so. A
row that can't be measured here says why. The exit status is 1 where one failed that should not have.
"""

import argparse
import csv
import json
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BEGUN = time.monotonic()
ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "config" / "config.yaml"
sys.path.insert(0, str(ROOT / "scripts"))
# torch then looks for devices without a context, which no forked process could use.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

import torch  # noqa: E402
import yaml  # noqa: E402
from full_size_inputs import SHAPES, Bench, frozen, made, make_inputs  # noqa: E402
from measuring import Measure, Table, apart, here, measure_all  # noqa: E402
from mindtune.data.mllm import read_mllm  # noqa: E402
from mindtune.demo import base_model, drawing, scenes  # noqa: E402
from mindtune.engines import ENGINES, stage, training_check  # noqa: E402
from mindtune.engines.converting import converter  # noqa: E402
from mindtune.engines.feature_cache import in_effect  # noqa: E402
from mindtune.engines.hf.adapters import Adapters, check_lora  # noqa: E402
from mindtune.engines.hf.checkpoints import Checkpoints  # noqa: E402
from mindtune.engines.hf.dataset import Collator, Conversations  # noqa: E402
from mindtune.engines.hf.finetune import freeze, recompute, trained_in  # noqa: E402
from mindtune.engines.hf.kernels import use_kernels  # noqa: E402
from mindtune.engines.hf.model import load_model  # noqa: E402
from mindtune.engines.hf.optimizer import MainWeightsAdamW, optimizer_of  # noqa: E402
from mindtune.engines.hf.packing import Packer, Pass, packed_loss  # noqa: E402
from mindtune.engines.hf.quantizing import NF4, quantize_layers  # noqa: E402
from mindtune.engines.hf.segments import use_segments  # noqa: E402
from mindtune.engines.hf.trainer import PackedTrainer  # noqa: E402
from mindtune.engines.requests import AnswerJob, FinetuneJob, PrepareJob  # noqa: E402
from mindtune.errors import UserError  # noqa: E402
from mindtune.memory import Step, training_memory  # noqa: E402
from mindtune.models.shape import model_shape  # noqa: E402
from mindtune.process import Stopped, stoppable  # noqa: E402
from mindtune.scale import count_parameters  # noqa: E402
from mindtune.settings.sections import Hf, Train  # noqa: E402
from mindtune.settings.typed import typed  # noqa: E402
from transformers import PrinterCallback, Trainer, TrainingArguments  # noqa: E402

MINUTES = 6.0
TOKENS_PER_PASS = 16384
FEWER_TOKENS = 4096
LORA = {"lora": {"rank": 16}, "lr": 1e-4}
RESOLVED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def main(arguments: list[str] | None = None) -> int:
    given = parsed(arguments)
    begun = BEGUN if arguments is None else time.monotonic()
    torch.set_num_threads(1)
    stage("hf", "answer")  # imported once, for all processes
    with tempfile.TemporaryDirectory() as place, stoppable():
        work = given.work or Path(place)
        bench = Bench(SHAPES[given.shape], torch.device(given.device), work, given.tokenizer)
        table = Table(out=given.out)
        forked = looked_at(bench, table)
        if not table.about:
            print(
                "--device: torch finds no CUDA device here; say --shape tiny --device cpu",
                file=sys.stderr,
            )
            return 2
        print(f"{table.about}; inputs in {work}", flush=True)
        good = False
        try:
            good = measured(bench, table, given, begun, forked)
        except Stopped:
            print("stopped; what there is:", file=sys.stderr)
        finally:
            print(f"\n{table}\n\n{time.monotonic() - begun:.0f} s in all", flush=True)
    return 0 if good else 1


def measured(
    bench: Bench, table: Table, given: argparse.Namespace, begun: float, forked: bool
) -> bool:
    """Make the inputs and fill the table; returns whether nothing unexpected has happened."""
    ends, scale = begun + 60 * given.minutes, given.minutes / MINUTES
    making = {"making the inputs": Measure(make_inputs, 60)}
    if not measure_all(making, bench, table, ends, scale, forked) or table.rows:
        return False
    chosen = {name: MEASURES[name] for name in given.rows.split(",")}
    return measure_all(chosen, bench, table, ends, scale, forked)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="2b")
    parser.add_argument("--device", default="cuda", help="cuda (default) or cpu")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json of Qwen2, perhaps .gz")
    parser.add_argument("--rows", default=",".join(MEASURES), help="default: all, in this order")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="default: 6")
    parser.add_argument("--work", type=Path, help="a new directory, which is kept")
    parser.add_argument("--out", type=Path, help="gets the table as JSON")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.rows.split(",") if name not in MEASURES]
    if unknown:
        parser.error(f"--rows: {unknown[0]} is none of {', '.join(MEASURES)}")
    return given


def looked_at(bench: Bench, table: Table) -> bool:
    """Say in the table what computes here; returns whether a forked process can reach it.

    One can't where something has made a context in this process already; the rows then share it.
    """

    def say(words: str) -> None:
        table.about = words

    def look(bench: Bench) -> None:
        bench.say(about(bench))

    end = apart(look, bench, 120, say)
    if end.words:
        print(f"no processes of their own: {end.words}", file=sys.stderr)
        here(look, bench, say)
    return not end.words


def about(bench: Bench) -> str:
    """What computes here; nothing where there is no such device."""
    name = "CPU"
    if bench.device.type == "cuda":
        if not torch.cuda.is_available():
            return ""
        torch.cuda.init()
        name = torch.cuda.get_device_name(bench.device)
    return f"{name}, torch {torch.__version__}, {bench.precision}, {bench.shape.batch} samples an iteration"


# --- issue 15's rows: time, exactness, saving, answers ---------------------


def inputs(bench: Bench) -> None:
    bench.processor  # noqa: B018 - which is read once
    begun = time.perf_counter()
    samples = bench.samples
    seconds = time.perf_counter() - begun
    tokens = sum(len(sample["input_ids"]) for sample in samples)
    patches = sum(int(p.grid_thw.prod()) for sample in samples for p in sample["pictures"])
    note = f"{tokens:,} tokens, {patches:,} patches"
    bench.add("preparing an iteration, one thread", seconds, "s", note)


def micro_batches(bench: Bench, samples: Sequence[dict]) -> list[dict[str, torch.Tensor]]:
    """Each sample as transformers' model takes it, on the device."""
    collate = Collator(bench.processor)
    return [
        {name: tensor.to(bench.device) for name, tensor in collate([sample]).items()}
        for sample in samples
    ]


def packed_passes(bench: Bench, tokens: int, samples: Sequence[dict] | None = None) -> list[Pass]:
    """Samples, by default those of the first iteration, packed as the engine does, on the device."""
    merge = bench.processor.image_processor.merge_size
    packer = Packer(1, tokens, bench.processor.image_token_id, merge)
    passes = packer(bench.samples if samples is None else samples)["passes"]
    return [part.to(bench.device) for part in passes]


def one_by_one(model: torch.nn.Module, batches: Sequence[Mapping]) -> torch.Tensor:
    """The mean of the micro batches' losses, whose gradients are added."""
    total = torch.zeros((), device=batches[0]["input_ids"].device)
    for batch in batches:
        loss = model(**batch, use_cache=False).loss.float() / len(batches)
        loss.backward()
        total += loss.detach()
    return total


def together(model: torch.nn.Module, passes: Sequence[Pass]) -> torch.Tensor:
    """The same of packed passes."""
    total = torch.zeros((), device=passes[0].input_ids.device)
    for part in passes:
        loss = packed_loss(model, part)
        loss.backward()
        total += loss.detach()
    return total


def plain(bench: Bench) -> None:
    model, _ = made(bench)
    freeze(model, typed("train", bench.settings()["train"]))
    batches = micro_batches(bench, bench.samples)

    def iteration() -> None:
        one_by_one(model, batches)
        model.zero_grad(set_to_none=True)

    bench.free()
    seconds = bench.timed(iteration, 1)
    bench.add("iteration, plain loop, micro batches of 1", seconds, "s", in_gib(bench.most()))


def packed(bench: Bench) -> None:
    model, raw = made(bench)
    frozen(bench, model)
    if bench.precision != "fp32":
        with torch.no_grad():
            batches = micro_batches(bench, bench.samples)
            alone = sum(model(**batch, use_cache=False).loss.float() for batch in batches)
            alone = alone.item() / len(batches)
        del batches
    use_segments(model)
    passes = packed_passes(bench, TOKENS_PER_PASS)
    if bench.precision != "fp32":
        loss = together(model, passes).item()
        model.zero_grad(set_to_none=True)
        bench.add(f"packed against one by one in {bench.precision}: loss", abs(loss - alone) / alone,
                  "relative", "products are rounded")  # fmt: skip

    def iteration() -> None:
        together(model, passes)
        model.zero_grad(set_to_none=True)

    bench.free()
    seconds = bench.timed(iteration)
    note = beside_estimate(
        bench,
        raw,
        typed("train", bench.settings()["train"]),
        typed("hf", {}),
        passes,
        optimizer=False,
    )
    bench.add("iteration, packed passes alone", seconds, "s", note, "0.45 s")


def engine(bench: Bench) -> None:
    found = trained(
        bench, "engine", train={"train_iters": 3 * bench.shape.new, "save_optim": True},
        hf={"tokens_per_pass": TOKENS_PER_PASS, "feature_cache": "off"},
    )  # fmt: skip
    seconds = statistics.median(found.seconds[1:])
    bench.add("iteration, pictures new", seconds, "s", found.memory, "0.45 s")
    total, before = found.waited[-1]
    note = f"{found.saved:,} bytes; {before:.2f} s of it until there was memory for the copies"
    bench.add("a checkpoint lets the training wait", total, "s", note, "2 s")


def kept(bench: Bench) -> None:
    room = "50 GB" if bench.device.type != "cpu" else "auto"
    machine = {"tokens_per_pass": TOKENS_PER_PASS, "feature_cache": room}
    seconds = trained(bench, "kept", hf=machine).seconds
    new, seen = seconds[1 : bench.shape.new], seconds[bench.shape.new + 1 :]
    bench.add("iteration, pictures new, whose features are then kept", statistics.median(new), "s", "",
              "as without")  # fmt: skip
    bench.add("iteration, pictures seen before", statistics.median(seen), "s", "", "0.25 s")


@dataclass
class Trained:
    """seconds: of each iteration. waited: of each save, and until there was memory for its copies.
    saved: bytes of a checkpoint. memory: the most, in words."""

    seconds: list[float]
    waited: list[tuple[float, float]]
    saved: int
    memory: str


def trained(bench: Bench, name: str, train: dict | None = None, hf: dict | None = None) -> Trained:
    """The engine's own training, as the workflow begins it; it saves once, at its end."""
    train = {"train_iters": 2 * bench.shape.new, "save_optim": False} | (train or {})
    train["save_interval"] = train["train_iters"]
    settings = bench.settings(train, hf)
    section = settings["hf"]
    machine = {key: section[key] for key in ENGINES["hf"].keys["finetune"] if key in section}
    job = FinetuneJob.of(
        "hf",
        train_data=bench.work / "train.json", held_out_data=bench.work / "held_out.json",
        images=bench.images, hf_dir=bench.hf, mm_dir=bench.work / "mm", save_dir=bench.work / name,
        train=settings["train"], processor=settings["processor"], parallel=settings["parallel"],
        machine=in_effect(machine, typed("hf", section)), operation=section,
        features=bench.work / "features" / name,
    )  # fmt: skip
    bench.free()
    job.save_dir.mkdir()
    training_check("hf")(job, 0)
    with saving() as waited, passing() as passed:
        stage("hf", "finetune")(job)
    with open(job.save_dir / "loss.csv", newline="") as lines:
        seconds = [float(row["ms_per_iteration"]) / 1000 for row in csv.DictReader(lines)]
    (file,) = job.save_dir.glob("iter_*/mp_rank_00/*.pt")
    saved = file.stat().st_size
    file.unlink()
    raw = json.loads((bench.hf / "config.json").read_text())
    memory = beside_estimate(
        bench, raw, job.train, job.operation, [passed.largest], not passed.several
    )
    return Trained(seconds, waited, saved, memory)


@contextmanager
def saving() -> Iterator[list[tuple[float, float]]]:
    """The seconds that each save takes of the training's own time, and those until it could begin."""
    waited: list[tuple[float, float]] = []
    save = Checkpoints.save

    def measured(self: Checkpoints, *rest: Any) -> None:
        begun = time.perf_counter()
        self.beside.wait()
        before = time.perf_counter() - begun
        save(self, *rest)
        waited.append((time.perf_counter() - begun, before))

    Checkpoints.save = measured
    try:
        yield waited
    finally:
        Checkpoints.save = save


@dataclass
class Passed:
    """Of all passes through the model the largest, and whether an iteration had more than one."""

    largest: Pass | None = None
    several: bool = False

    def note(self, passes: Sequence[Pass]) -> None:
        self.several = self.several or len(passes) > 1
        known = [] if self.largest is None else [self.largest]
        self.largest = max([*known, *passes], key=lambda part: sum(part.lengths))


@contextmanager
def passing() -> Iterator[Passed]:
    """The passes that a training sends through the model."""
    passed = Passed()
    step = PackedTrainer.training_step

    def measured(self: PackedTrainer, model: Any, inputs: dict, *rest: Any) -> Any:
        passed.note(inputs["passes"])
        return step(self, model, inputs, *rest)

    PackedTrainer.training_step = measured
    try:
        yield passed
    finally:
        PackedTrainer.training_step = step


def answering(bench: Bench) -> None:
    settings = bench.settings()
    section = settings["hf"]
    machine = {key: section[key] for key in ENGINES["hf"].keys["answer"] if key in section}
    for _ in range(2):  # the first pays for what is started once
        out = bench.work / "answers.jsonl"
        stage("hf", "answer")(
            AnswerJob.of(
                "hf",
                prompts=bench.work / "prompts.jsonl", images=bench.images, model_dir=bench.hf,
                hf_dir=bench.hf, answers=out, answer=settings["answer"],
                processor=settings["processor"], parallel=settings["parallel"],
                machine=in_effect(machine, typed("hf", section)), operation=section,
            )
        )  # fmt: skip
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        out.unlink()
        bench.free()
    tokens, seconds = (sum(line[name] for line in lines) for name in ("tokens", "seconds"))
    note = f"{len(lines)} prompts, {tokens:,} tokens"
    bench.add("answering", tokens / seconds, "tokens/s", note, "2,500 tokens/s")


def exact(bench: Bench) -> None:
    """Without rounding this is the order of sums."""
    torch.backends.cudnn.allow_tf32 = False
    model, _ = made(bench, torch.float32)
    freeze(model, typed("train", bench.settings()["train"]))
    bench.free()
    alone = one_by_one(model, micro_batches(bench, bench.samples)).item()
    expected = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    use_segments(model)
    tokens = sum(len(sample["input_ids"]) for sample in bench.samples)
    passes = packed_passes(bench, tokens // 3 + 1)
    packed = together(model, passes).item()
    norms = {name: norm(gradient) for name, gradient in expected.items()}
    differences = {
        n: norm(p.grad - expected[n]) for n, p in model.named_parameters() if n in expected
    }
    whole = sum(value**2 for value in norms.values()) ** 0.5
    apart = sum(value**2 for value in differences.values()) ** 0.5 / whole
    worst = max(differences[n] / max(norms[n], 1e-3 * max(norms.values())) for n in norms)
    note = f"{len(passes)} passes; {in_gib(bench.most())}"
    bench.add(
        "packed against one by one in fp32: loss",
        abs(packed - alone) / alone,
        "relative",
        note,
        "1e-6",
    )
    note = f"{worst:.2g} in the worst tensor"
    bench.add("packed against one by one in fp32: gradients", apart, "relative", note, "1e-6")


def norm(tensor: torch.Tensor) -> float:
    return torch.linalg.vector_norm(tensor, dtype=torch.float64).item()


def yardstick(bench: Bench) -> None:
    """Few samples an iteration, of few layers: what is rounded differently grows as with many."""
    torch.backends.cudnn.allow_tf32 = False
    size = min(4, len(bench.samples))
    groups = [bench.samples[n : n + size] for n in range(0, len(bench.samples) - size + 1, size)]
    alone = short_training(bench, [micro_batches(bench, group) for group in groups], one_by_one)
    passes = [packed_passes(bench, TOKENS_PER_PASS, group) for group in groups]
    packed, greater = (short_training(bench, passes, together, more) for more in (0.0, 1e-7))
    ours, wanted = (
        max(abs(a - b) / b for a, b in zip(losses, others, strict=True))
        for losses, others in ((packed, alone), (greater, packed))
    )
    note = f"losses {ours:.2g} apart at most, {wanted:.2g} by a rate greater by 1e-7; {alone[0]:.3f} to {alone[-1]:.3f}"
    times = ours / wanted if wanted else (None if ours else 0.0)
    what = f"{len(alone)} iterations in fp32, packed and one by one"
    bench.add(what, times, "times what a rate greater by 1e-7 does", note, "2")


def short_training(
    bench: Bench, batches: Sequence, passed: Callable, more: float = 0.0
) -> list[float]:
    """Losses of some iterations. more: by what share the learning rate is greater."""
    few = {"num_hidden_layers": bench.shape.short, "max_window_layers": bench.shape.short,
           "vision_config": {"depth": bench.shape.short}}  # fmt: skip
    model, _ = made(bench, torch.float32, few)
    train = typed("train", bench.settings({"lr": 1e-3 * (1 + more)})["train"])
    own = freeze(model, train)
    if passed is together:
        use_segments(model)
    optimizer = optimizer_of(model, train, None)
    losses = []
    for number in range(bench.shape.iterations):
        losses.append(passed(model, batches[number % len(batches)]))
        torch.nn.utils.clip_grad_norm_(own, 1.0)
        optimizer.step()
        model.zero_grad(set_to_none=True)
    return [loss.item() for loss in losses]


def optimizer(bench: Bench) -> None:
    if bench.device.type != "cuda":
        raise UserError("only on CUDA is the optimizer's step fused")
    model, _ = made(bench)
    frozen(bench, model)
    for name, fused in (("as torch does it", None), ("fused", True)):
        steps = MainWeightsAdamW(model, typed("train", bench.settings()["train"]))
        for group in steps.param_groups:
            group["fused"] = fused

        def step(steps=steps) -> None:
            for parameter in model.parameters():
                if parameter.requires_grad and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter, dtype=torch.float32)
            steps.step()

        bench.add(f"optimizer step, {name}", bench.timed(step), "s")
        del steps, step
        bench.free()


# --- issue 17's rows: memory -----------------------------------------------


def lora(bench: Bench) -> None:
    found = trained(
        bench, "lora", train=LORA | {"save_optim": True}, hf={"tokens_per_pass": TOKENS_PER_PASS}
    )
    seconds = statistics.median(found.seconds[1:])
    bench.add("iteration, LoRA of rank 16", seconds, "s", found.memory, "0.5 s")
    bench.add("a checkpoint of it", float(found.saved), "bytes")


def peft(bench: Bench) -> None:
    """As its users write it: the model's own loss over micro batches, torch's AdamW."""
    from peft import LoraConfig, get_peft_model

    model, _ = made(bench)
    modules = rf".*language_model.*\.({'|'.join(RESOLVED)})"
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=modules))
    own = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adam = torch.optim.AdamW(own, lr=1e-4)
    batches = micro_batches(bench, bench.samples)

    def iteration() -> None:
        one_by_one(model, batches)
        adam.step()
        adam.zero_grad(set_to_none=True)

    bench.free()
    seconds = bench.timed(iteration, 1)
    note = f"{in_gib(bench.most())}; {sum(map(torch.numel, own)):,} trained"
    bench.add("iteration, LoRA of rank 16 by peft, plain loop", seconds, "s", note)


def lora_small(bench: Bench) -> None:
    machine = {"recompute": "full", "tokens_per_pass": FEWER_TOKENS}
    note = {"goal": "8 GiB"}
    step_of_engine(bench, "LoRA of rank 16, recomputed", LORA, machine, **note)


def recomputed(bench: Bench) -> None:
    machine = {"recompute": "full", "tokens_per_pass": TOKENS_PER_PASS}
    step_of_engine(bench, "whole language model, recomputed", {}, machine)


def liger(bench: Bench) -> None:
    machine = {"kernels": "liger", "tokens_per_pass": TOKENS_PER_PASS}
    step_of_engine(bench, "whole language model, liger", {}, machine, goal="0.45 s")


def seven(bench: Bench) -> None:
    machine = {"tokens_per_pass": FEWER_TOKENS}
    step_of_engine(bench, "7B, LoRA of rank 16", LORA, machine, bench.shape.larger)


def seven_small(bench: Bench) -> None:
    machine = {"recompute": "full", "tokens_per_pass": FEWER_TOKENS}
    step_of_engine(bench, "7B, LoRA of rank 16, recomputed", LORA, machine, bench.shape.larger)


def seven_nf4(bench: Bench) -> None:
    machine = {"recompute": "full", "tokens_per_pass": FEWER_TOKENS, "frozen_weights": NF4}
    step_of_engine(
        bench, "7B, LoRA of rank 16, recomputed, 4 bits", LORA, machine, bench.shape.larger
    )


def step_of_engine(
    bench: Bench, what: str, train: dict, hf: dict, changes: dict | None = None, goal: str = ""
) -> None:
    """Time and memory of the engine's step, of a model with random weights that are made on the device."""
    settings = bench.settings(train, hf)
    train, machine = typed("train", settings["train"]), typed("hf", settings["hf"])
    model, raw = made(bench, changes=changes)
    if machine.frozen_weights == NF4:
        quantize_layers(model)
    if train.lora:
        check_lora(raw, train)
        Adapters(model, raw, train)
    own = trained_in(model, train)
    if machine.recompute == "full":
        recompute(model)
    model.to(bench.device)
    use_segments(model)
    use_kernels(model, machine.kernels, machine.device)
    steps = optimizer_of(model, train, machine.optimizer)
    passes = packed_passes(bench, machine.tokens_per_pass)

    def iteration() -> None:
        together(model, passes)
        if train.clip_grad:
            torch.nn.utils.clip_grad_norm_(own, train.clip_grad)
        steps.step()
        model.zero_grad(set_to_none=True)

    bench.free()
    seconds = bench.timed(iteration)
    note = beside_estimate(bench, raw, train, machine, passes)
    bench.add(f"step, {what}", seconds, "s", note, goal)


def beside_estimate(
    bench: Bench,
    raw: Mapping,
    train: Train,
    machine: Hf,
    passes: Sequence[Pass],
    alone: bool | None = None,
    optimizer: bool = True,
) -> str:
    """The most memory since `free` in words, and beside it what mindtune.memory computes.

    passes: those that are on the device at once, of which one goes through the model; their pictures'
    pixels are added, which it does not count. alone: whether a pass is all of an iteration.
    optimizer: whether there is one.
    """
    shape, most = model_shape(dict(raw)), bench.most()
    parameters = count_parameters(shape).all
    pixels = sum(part.pixel_values.nbytes for part in passes if part.pixel_values is not None)
    largest = max(passes, key=lambda part: sum(part.lengths))
    step = Step(
        tokens=sum(largest.lengths),
        predicted=len(largest.predicting),
        recompute=machine.recompute == "full",
        operators=machine.kernels,
        optimizer=machine.optimizer,
        frozen_weights=machine.frozen_weights,
        alone=len(passes) == 1 if alone is None else alone,
    )
    need = training_memory(shape, parameters, train, bench.precision, step)
    estimate = need.all + pixels - (0 if optimizer else need.optimizer)
    said = f"mindtune.memory computes {estimate / 2**30:.2f} GiB"
    return said if most is None else f"{in_gib(most)}; {said}, {estimate / most:.2f} of it"


def in_gib(size: int | None) -> str:
    return "" if size is None else f"{size / 2**30:.2f} GiB"


# --- the CPU's row ---------------------------------------------------------


def cpu(bench: Bench) -> None:
    """The demo's own model, pictures and batch; both with one thread, in turn, the faster run of each."""
    demo = Bench(SHAPES["tiny"], torch.device("cpu"), bench.work / "demo", say=bench.say)
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
        PrepareJob.of("hf", demo.hf, demo.work / "mm", parallel=demo.settings()["parallel"])
    )


def demo_iterations() -> int:
    return DEMO_EPOCHS * DEMO_PICTURES // DEMO_BATCH


def our_training(demo: Bench, turn: int) -> tuple[float, float]:
    """Seconds of an iteration of the engine's, and of the processor in the training's own process."""
    iterations = demo_iterations()
    train = {"train_iters": iterations, "save_interval": iterations, "micro_batch_size": DEMO_BATCH,
             "global_batch_size": DEMO_BATCH, "lr": 1e-3, "clip_grad": 1.0}  # fmt: skip
    settings = demo.settings(train, yaml.safe_load(DEMO.read_text())["hf"])
    job = FinetuneJob.of(
        "hf",
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
    freeze(model, typed("train", demo.settings()["train"]))
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


# In the order of what is wanted most.
MEASURES: dict[str, Measure] = {
    "inputs": Measure(inputs, 10),
    "plain": Measure(plain, 20),
    "packed": Measure(packed, 20),
    "engine": Measure(engine, 90),
    "kept": Measure(kept, 40),
    "answering": Measure(answering, 40),
    "exact": Measure(exact, 30),
    "lora": Measure(lora, 30),
    "peft": Measure(peft, 20),
    "lora-small": Measure(lora_small, 15),
    "recompute": Measure(recomputed, 15),
    "seven": Measure(seven, 20),
    "seven-small": Measure(seven_small, 20),
    "seven-nf4": Measure(seven_nf4, 25),
    "yardstick": Measure(yardstick, 40),
    "optimizer": Measure(optimizer, 10),
    "liger": Measure(liger, 15),
    "cpu": Measure(cpu, 45),
}

if __name__ == "__main__":
    sys.exit(main())
