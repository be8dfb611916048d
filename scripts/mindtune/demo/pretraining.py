"""Pretraining of the demo's base model: it learns to see, to caption and to point.

Two stages, fixed numbers of steps, one seed:

1. The vision encoder alone learns the attributes of scenes (kind, colours, sign,
   people) through linear heads on its merged tokens. The heads are thrown away.
   Without this stage a model of this size never sees what is on a sign: from the
   language loss the encoder's gradient comes late.
2. Everything learns captions and grounding answers, with the attribute loss beside.

What it never sees is a full-sentence answer to one of the demo's questions: before
fine-tuning it answers them with a box, as the tutorial's model does.
"""

import math
import multiprocessing
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache, partial
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import Qwen2VLForConditionalGeneration

from mindtune.demo import base_model, scenes
from mindtune.demo.drawing import draw_scene
from mindtune.engines.hf.checkpoints import published_tensors
from mindtune.engines.hf.processing import IGNORE_INDEX, Processor
from mindtune.files import sha256_file, write_json, writing, writing_directory

ATTRIBUTES = {
    "kind": scenes.KINDS,
    "body": scenes.BODY_COLORS,
    "sign_color": scenes.SIGN_COLORS,
    "sign": tuple(scenes.SIGNS),
    "position": tuple(scenes.POSITIONS),
    "people": range(len(scenes.COUNTS)),
}
POOLED_BY_MEAN = ("people", "position")


@dataclass(frozen=True)
class Settings:
    """How the shipped base was made."""

    pictures: int = 16_000
    seed: int = 3
    init_std: float = 0.06
    vision_steps: int = 1_400
    vision_batch: int = 32
    vision_lr: float = 2e-3
    steps: int = 3_600
    batch: int = 16
    lr: float = 1.5e-3
    warmup: int = 50
    attribute_weight: float = 0.3
    threads: int = 2


@dataclass
class Sample:
    """A scene, its picture as float16 patches (patches, 3 * 14 * 14), its conversation."""

    scene: scenes.Scene
    patches: torch.Tensor
    grid: torch.Tensor
    ids: list[int]
    labels: list[int]


def corpus() -> Iterator[str]:
    """All kinds of text that the demo's model meets, for its tokenizer."""
    yield from ["You are a helpful assistant.", "system\n", "user\n", "assistant\n"] * 50
    rng = random.Random("corpus")
    for question, answer in scenes.TEXT_ONLY * 20:
        yield from (question, answer)
    for _ in range(800):
        scene = scenes.sample_scene(rng)
        for family in scenes.FAMILIES:
            yield from scenes.question_and_answer(scene, family)
        question = scenes.question_and_answer(scene, rng.choice(scenes.FAMILIES))[0]
        box = tuple(rng.randrange(1000) for _ in range(4))
        grounding = scenes.grounding_answer(question, box)
        for token in base_model.SPECIAL_TOKENS:
            grounding = grounding.replace(token, " ")
        yield from (grounding, rng.choice(scenes.CAPTION_REQUESTS), scenes.caption(scene))


def base_conversation(scene, rng, box, sign_box) -> list[tuple[str, str]]:
    """A caption and two questions that are answered by pointing."""
    turns = [(rng.choice(scenes.CAPTION_REQUESTS), scenes.caption(scene))]
    for family in rng.sample(scenes.FAMILIES, 2):
        question = scenes.question_and_answer(scene, family)[0]
        where = sign_box if family in ("feature", "sign") else box
        turns.append((question, scenes.grounding_answer(question, where)))
    rng.shuffle(turns)
    return turns


@cache
def _processor(directory: Path) -> Processor:
    return Processor(directory)


def _prepare(item: tuple[int, scenes.Scene], directory: Path, seed: str) -> Sample:
    image_id, scene = item
    rng = random.Random(f"{seed}/{image_id}")
    image, box, sign_box = draw_scene(scene, rng)
    file = BytesIO()
    image.save(file, "JPEG", quality=90)
    processor = _processor(directory)
    picture = processor.picture(Image.open(file).convert("RGB"))
    messages = []
    for turn, (question, answer) in enumerate(base_conversation(scene, rng, box, sign_box)):
        mark = "<image>\n" if turn == 0 else ""
        messages += [
            {"role": "user", "content": mark + question},
            {"role": "assistant", "content": answer},
        ]
    ids, labels = processor.encode_conversation(messages, [picture.grid_thw[0]], 1024)
    # The temporal halves of a still picture are equal: keep one.
    patches = picture.pixel_values.view(-1, 3, 2, 14 * 14)[:, :, 0].half()
    return Sample(scene, patches, picture.grid_thw[0], ids, labels)


def prepare(directory: Path, count: int, seed: str, workers: int) -> list[Sample]:
    """Draw `count` scenes and encode them with the tokenizer in `directory`."""
    torch.set_num_threads(1)
    work = partial(_prepare, directory=directory, seed=seed)
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        found = pool.imap(_as_numpy(work), scenes.scenes(count, seed), chunksize=64)
        return [_from_numpy(sample) for sample in found]


class _as_numpy:
    def __init__(self, work: Callable) -> None:
        self.work = work

    def __call__(self, item):
        sample = self.work(item)
        sample.patches, sample.grid = sample.patches.numpy(), sample.grid.numpy()
        return sample


def _from_numpy(sample: Sample) -> Sample:
    sample.patches = torch.from_numpy(sample.patches)
    sample.grid = torch.from_numpy(sample.grid)
    return sample


def pixels(samples: list[Sample]) -> dict[str, torch.Tensor]:
    """Patches of a batch as the model takes them: (patches, 3 * 2 * 14 * 14) and grids."""
    patches = torch.cat([sample.patches for sample in samples]).float()
    doubled = patches.view(-1, 3, 1, 14 * 14).expand(-1, -1, 2, -1).reshape(len(patches), -1)
    return {"pixel_values": doubled, "image_grid_thw": torch.stack([s.grid for s in samples])}


def batch(samples: list[Sample], pad_id: int, image_id: int) -> dict[str, torch.Tensor]:
    """A batch of whole conversations, padded on the right."""
    length = max(len(sample.ids) for sample in samples)
    ids = torch.full((len(samples), length), pad_id)
    labels = torch.full((len(samples), length), IGNORE_INDEX)
    mask = torch.zeros(len(samples), length, dtype=torch.long)
    for row, sample in enumerate(samples):
        n = len(sample.ids)
        ids[row, :n] = torch.tensor(sample.ids)
        labels[row, :n] = torch.tensor(sample.labels)
        mask[row, :n] = 1
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": labels,
        "mm_token_type_ids": (ids == image_id).long(),
        **pixels(samples),
    }


class AttributeHeads(torch.nn.Module):
    """Linear readers of the vision encoder's merged tokens."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.heads = torch.nn.ModuleDict(
            {name: torch.nn.Linear(hidden, len(values)) for name, values in ATTRIBUTES.items()}
        )
        place = torch.linspace(-1, 1, 5).repeat(4)  # 4 x 5 tokens: where a token stands
        self.register_buffer("place", torch.stack([torch.ones(20), place], 0) / 20)

    def forward(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits from tokens (batch, 20, hidden): each attribute (batch, values)."""
        out = {}
        for name, head in self.heads.items():
            if name == "position":
                out[name] = torch.einsum("pt,bth->bph", self.place, head(tokens)).sum(1)
            elif name in POOLED_BY_MEAN:
                out[name] = head(tokens.mean(1))
            else:
                out[name] = torch.logsumexp(head(tokens) * 2, 1) / 2
        return out

    def loss(self, tokens: torch.Tensor, samples: list[Sample]) -> torch.Tensor:
        logits = self(tokens.view(len(samples), 20, -1))
        return sum(
            functional.cross_entropy(logits[name], targets(samples, name)) for name in ATTRIBUTES
        )


def targets(samples: list[Sample], name: str) -> torch.Tensor:
    values = list(ATTRIBUTES[name])
    return torch.tensor([values.index(getattr(sample.scene, name)) for sample in samples])


def batches(samples: list[Sample], size: int, steps: int, seed: int) -> Iterator[list[Sample]]:
    """`steps` batches, each epoch in an order of its own."""
    rng = random.Random(seed)
    order: list[int] = []
    for _ in range(steps):
        if len(order) < size:
            order = list(range(len(samples)))
            rng.shuffle(order)
        taken, order = order[:size], order[size:]
        yield [samples[i] for i in taken]


def cosine(step: int, steps: int, warmup: int, end: float) -> float:
    """Share of the peak learning rate at a step: linear warm-up, cosine to `end`."""
    wave = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / warmup) * (end + (1 - end) * wave)


def optimizer_for(modules: list[torch.nn.Module]) -> torch.optim.Optimizer:
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.01},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
    )


def vision_tokens(visual: torch.nn.Module, samples: list[Sample]) -> torch.Tensor:
    inputs = pixels(samples)
    out = visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"])
    return out if isinstance(out, torch.Tensor) else out.pooler_output


def fit(loss_of, modules, data, *, steps, size, lr, warmup, end, seed, log) -> None:
    """Minimise `loss_of(samples)` over `modules` for a fixed number of steps."""
    optimizer = optimizer_for(modules)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    smooth = None
    for step, samples in enumerate(batches(data, size, steps, seed)):
        for group in optimizer.param_groups:
            group["lr"] = lr * cosine(step, steps, warmup, end)
        loss = loss_of(samples)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        smooth = loss.item() if smooth is None else 0.95 * smooth + 0.05 * loss.item()
        if step % 50 == 0 or step == steps - 1:
            log(f"step {step + 1}/{steps} loss {smooth:.3f}")


@torch.no_grad()
def accuracy(visual, heads: AttributeHeads, samples: list[Sample]) -> dict[str, float]:
    """Share of held-out scenes whose attribute the heads read rightly."""
    right = dict.fromkeys(ATTRIBUTES, 0)
    for start in range(0, len(samples), 50):
        part = samples[start : start + 50]
        logits = heads(vision_tokens(visual, part).view(len(part), 20, -1))
        for name in ATTRIBUTES:
            right[name] += (logits[name].argmax(-1) == targets(part, name)).sum().item()
    return {name: round(count / len(samples), 4) for name, count in right.items()}


def pretrain(out: Path, settings: Settings, work: Path, log: Callable[[str], None] = print) -> None:
    """Make the base: `out` gets weights.safetensors, tokenizer.json, config.json, pretraining.json."""
    tokenizer: Tokenizer = base_model.train_tokenizer(corpus())
    with writing_directory(work) as partial_dir:
        base_model.write_configs(partial_dir, tokenizer)
    processor = Processor(work)
    log(f"tokenizer of {tokenizer.get_vocab_size()}; drawing {settings.pictures} pictures")
    data = prepare(work, settings.pictures, f"base/{settings.seed}", settings.threads)
    unseen = prepare(work, 300, f"base-check/{settings.seed}", settings.threads)

    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    config = Qwen2VLForConditionalGeneration.config_class.from_pretrained(work)
    config.text_config.initializer_range = settings.init_std
    config.vision_config.initializer_range = settings.init_std
    model = Qwen2VLForConditionalGeneration(config).float()
    model.tie_weights()
    visual = model.model.visual
    heads = AttributeHeads(base_model.HIDDEN)
    model.train()
    parameters = sum(p.numel() for p in model.parameters())
    log(f"{parameters} parameters, {len(data[0].ids)} tokens in the first conversation")

    fit(
        lambda samples: heads.loss(vision_tokens(visual, samples), samples),
        [visual, heads], data, steps=settings.vision_steps, size=settings.vision_batch,
        lr=settings.vision_lr, warmup=30, end=0.1, seed=settings.seed,
        log=lambda line: log(f"vision {line}"),
    )  # fmt: skip
    log(f"vision on unseen pictures: {accuracy(visual, heads, unseen)}")

    seen: list[torch.Tensor] = []
    hook = visual.register_forward_hook(
        lambda module, inputs, out: seen.append(
            out if isinstance(out, torch.Tensor) else out.pooler_output
        )
    )

    def loss_of(samples: list[Sample]) -> torch.Tensor:
        seen.clear()
        language = model(**batch(samples, processor.pad_id, processor.image_token_id)).loss
        return language + settings.attribute_weight * heads.loss(seen[-1], samples)

    fit(
        loss_of, [model, heads], data, steps=settings.steps, size=settings.batch, lr=settings.lr,
        warmup=settings.warmup, end=0.02, seed=settings.seed + 1,
        log=lambda line: log(f"all {line}"),
    )  # fmt: skip
    hook.remove()
    read = accuracy(visual, heads, unseen)
    log(f"vision on unseen pictures: {read}")

    out.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.to(torch.bfloat16).contiguous()
        for name, tensor in published_tensors(model).items()
    }
    with writing(out / "weights.safetensors", "wb") as handle:
        handle.write(save(tensors, metadata={"format": "pt"}))
    write_json(out / "config.json", base_model.model_config(tokenizer))
    (out / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    write_json(
        out / "pretraining.json",
        {
            "made_by": "scripts/pretrain_demo_base.py",
            "parameters": parameters,
            "settings": asdict(settings),
            "attributes_read_on_unseen_pictures": read,
            "torch": torch.__version__,
            "sha256": sha256_file(out / "weights.safetensors"),
        },
    )
