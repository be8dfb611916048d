"""Both sides' inputs, and a training by either of them."""

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import framework
from draw_scenes import draw
from mindtune.checkpoint import ParallelLayout, hf_to_mm
from mindtune.data.mllm import convert
from mindtune.demo.base_model import write_base_model
from mindtune.engines import stage
from mindtune.engines.mindspeed import rendering
from mindtune.engines.mindspeed.arguments import World, training_arguments
from mindtune.engines.mindspeed.finetune import ordered
from mindtune.engines.mindspeed.training_log import Iteration, parse_iteration
from mindtune.engines.requests import FinetuneJob
from mindtune.files import write_json
from mindtune.models.mindspeed import framework_of
from mindtune.models.shape import model_shape
from mindtune.settings.typed import typed

RESOLUTION = 512 * 512  # the shipped data_2b.json's
PICTURES = 200
TEXT_ONLY = 4
ONE_RANK = {"tp_size": 1, "llm_pp_layers": [[4]], "vit_pp_layers": [[4]]}
ONE_DEVICE = {"tensor_model_parallel_size": 1, "llm_pp_layers": None, "vit_pp_layers": None}

# The tutorial's settings, in Megatron's words.
TUTORIAL = {
    "train_iters": 100, "save_interval": 1000, "eval_interval": 1000, "eval_iters": 0,
    "micro_batch_size": 1, "global_batch_size": 24, "lr": 1e-5, "min_lr": 0.0,
    "lr_decay_style": "cosine", "lr_warmup_fraction": 0.1, "weight_decay": 0.0, "clip_grad": 0.0,
    "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_eps": 1e-8, "seed": 42, "seq_length": 1024,
    "freeze_vision_encoder": True, "freeze_vision_projector": True, "save_optim": False,
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A directory with a base model, its mm checkpoint, pictures and mllm-format data."""

    directory: Path
    base_name: str = "base"

    @classmethod
    def made_in(
        cls,
        directory: Path,
        pictures: int = PICTURES,
        write_base: Callable[[Path], object] = write_base_model,
    ) -> "Place":
        """write_base: writes the base model; the demo's without it."""
        place = cls(directory)
        write_base(place.base)
        hf_to_mm(place.base, place.mm, **ONE_RANK)
        draw(place.images, directory / "llava.json", pictures=pictures, text_only=TEXT_ONLY, seed=1)
        convert(
            directory / "llava.json", place.images, place.train, directory / "held_out.json",
            directory / "conversion.json", held_out_fraction=0.05, split_seed=1, max_samples=None,
            max_dropped_fraction=0.0,
        )  # fmt: skip
        return place

    @property
    def base(self) -> Path:
        return self.directory / self.base_name

    @property
    def mm(self) -> Path:
        return self.directory / "mm"

    @property
    def images(self) -> Path:
        return self.directory / "images"

    @property
    def train(self) -> Path:
        return self.directory / "train.json"

    @cached_property
    def config(self) -> dict:
        return json.loads((self.base / "config.json").read_text())

    def command_line(
        self,
        mindspeed: framework.Framework,
        out: Path,
        settings: Mapping,
        layout: Mapping = ONE_RANK,
        mm: Path | None = None,
        world: World | None = None,
        resume: bool = False,
    ) -> list[str]:
        """Write model.json, data.json and what they need into `out`; returns the arguments of pretrain_vlm.py.

        world: None for one copy of the model on as few processes as `layout` takes.
        """
        shape = model_shape(self.config)
        cut = ParallelLayout.make(shape, **layout)
        data = rendering.data_file(
            rendering.shipped(mindspeed.home, "data", shape),
            hf_dir=rendering.readable(self.base, shape, out / "processor"),
            images=self.images,
            train_data=ordered(self.train, typed("train", settings), out),
            cache=self.directory / "cache",
            image_resolution=RESOLUTION,
            workers=1,
        )
        shipped = rendering.shipped(mindspeed.home, "model", shape)
        world = world or World.of_answering(cut)
        model = rendering.model_file(
            shipped, self.config, cut, typed("train", settings), world.context
        )
        write_json(out / "data.json", data)
        write_json(out / "model.json", model)
        return training_arguments(
            typed("train", settings),
            world,
            vocab=self.config["vocab_size"],
            load=mm or self.mm,
            base=self.mm,
            resume=resume,
            save=out / "save_dir",
            data_file=out / "data.json",
            model_file=out / "model.json",
            tool_file=mindspeed.home / "mindspeed_mm/tools/tools.json",
            num_workers=1,
            timeout_minutes=10,
            flash_attention=framework_of(shape.model_type).flash_attention,
        )

    def train_by_framework(
        self,
        mindspeed: framework.Framework,
        out: Path,
        settings: Mapping,
        *,
        precision: str = "bf16",
        layout: Mapping = ONE_RANK,
        mm: Path | None = None,
        context: int = 1,
        replicas: int = 1,
        beside: Path | None = None,
        resume: bool = False,
    ) -> list[Iteration]:
        """The real pretrain_vlm.py in `out`; returns its log's iterations.

        layout: tp_size and layers by stage, as `hf_to_mm` takes them, of the checkpoint `mm`.
        context: context parallel size. replicas: data parallel size. beside: the base, where `mm` holds
        adapters only. resume: from `mm`, a save_dir.
        """
        out.mkdir(exist_ok=True)
        tensor, pipeline = layout["tp_size"], len(layout["llm_pp_layers"][0])
        world = World(tensor * pipeline * context * replicas, 1, tensor, pipeline, context)
        arguments = self.command_line(mindspeed, out, settings, layout, mm, world, resume)
        if beside:
            arguments += ["--load-base-model", str(beside)]
        if precision == "fp32":
            arguments.remove("--bf16")
            framework.to_fp32(out / "model.json")
        log = mindspeed.torchrun(mindspeed.home / "pretrain_vlm.py", arguments, out, world.size)
        (out / "train.log").write_text(log)
        return [found for line in log.splitlines() if (found := parse_iteration(line))]

    def train_by_hf(
        self, save_dir: Path, settings: Mapping, precision: str, **machine: int
    ) -> list[dict]:
        """Our `hf` engine into `save_dir`; returns the rows of loss.csv."""
        save_dir.mkdir(exist_ok=True)
        job = FinetuneJob.of(
            "hf",
            train_data=self.train,
            held_out_data=self.directory / "held_out.json",
            images=self.images,
            hf_dir=self.base,
            mm_dir=self.mm,
            save_dir=save_dir,
            train=settings,
            processor={"image_resolution": RESOLUTION},
            parallel=ONE_DEVICE,
            machine={"device": "cpu", "precision": precision, "threads": 1} | machine,
        )
        stage("hf", "finetune")(job)
        with open(save_dir / "loss.csv", encoding="utf-8", newline="") as handle:
            return list(csv.DictReader(handle))
