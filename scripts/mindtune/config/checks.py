"""Checks that a schema can't express: across keys, and of the files that a configuration names."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from mindtune.checkpoint.model_directory import layout_problems, model_problems
from mindtune.config.mindspeed import mindspeed_problems
from mindtune.data.archive import open_archive
from mindtune.demo.scenes import image_names
from mindtune.errors import UserError

# The config.json of the demo's base model.
DEMO_CONFIG = Path(__file__).parents[1] / "demo" / "base" / "config.json"
SHARED = "shared"
# What else lies in `results` beside the directories of experiments.
TAKEN = (
    "sources", "benchmarks", "framework", "cache", "compare.csv", "summary.csv", "metrics.csv",
    "samples.png", "report.html",
)  # fmt: skip
# Sections that an experiment may change; sources only in part.
OVERLAY_SECTIONS = ("data", "processor", "parallel", "train", "answer")
OVERLAY_SOURCES = ("model",)
SOURCES = ("images", "instructions", "model")


def overlay_problems(name: str, overlay: Mapping) -> Iterator[str]:
    """What an experiment changes that it may not, a sentence for each."""
    if name == SHARED:
        yield f"experiments.{name}: the name `{SHARED}` is taken by what experiments share."
    if name in TAKEN:
        yield f"experiments.{name}: results/{name} is something else; take another name."
    for section, values in overlay.items():
        if section == "sources" and isinstance(values, Mapping):
            for key in values:
                if key not in OVERLAY_SOURCES:
                    yield (
                        f"experiments.{name}.sources.{key} can't differ between experiments; "
                        f"only sources.{', sources.'.join(OVERLAY_SOURCES)} can."
                    )
        elif section not in OVERLAY_SECTIONS:
            allowed = (*OVERLAY_SECTIONS, "sources.model")
            guess = difflib.get_close_matches(section, OVERLAY_SECTIONS, 1)
            hint = (
                f"; did you mean `{guess[0]}`?" if guess else f"; it may have {', '.join(allowed)}."
            )
            yield f"experiments.{name}.{section} can't differ between experiments{hint}"


def condition_problems(settings: Mapping) -> Iterator[str]:
    """Conditions across keys that a schema can't express, a sentence for each broken one."""
    train, parallel = settings["train"], settings["parallel"]
    micro, whole = train["micro_batch_size"], train["global_batch_size"]
    if whole % micro:
        yield (
            f"train.global_batch_size is {whole}, which is no multiple of train.micro_batch_size "
            f"{micro}; the nearest that is: {max(1, round(whole / micro)) * micro}."
        )
    if train["save_interval"] > train["train_iters"]:
        yield (
            f"train.save_interval is {train['save_interval']}, more than train.train_iters "
            f"{train['train_iters']}: no checkpoint would be saved on the way; write at most "
            f"{train['train_iters']}."
        )
    if train["eval_iters"] and train["eval_interval"] > train["train_iters"]:
        yield (
            f"train.eval_interval is {train['eval_interval']}, more than train.train_iters "
            f"{train['train_iters']}: nothing would be evaluated; write at most "
            f"{train['train_iters']}, or 0 for train.eval_iters."
        )
    if train["min_lr"] > train["lr"]:
        yield f"train.min_lr is {train['min_lr']}, more than train.lr {train['lr']}."
    if train["eval_iters"] and not settings["data"]["held_out_fraction"]:
        yield (
            "train.eval_iters wants held-out data, but data.held_out_fraction is 0; set "
            "train.eval_iters to 0, or hold some images out."
        )
    yield from _layer_problems(parallel)
    if settings["engine"] == "mindspeed":
        yield from mindspeed_problems(settings)
    elif parallel["context_parallel_size"] > 1:
        yield (
            f"parallel.context_parallel_size is {parallel['context_parallel_size']}, which the hf "
            "engine can't do; write 1."
        )
    for family, pattern in settings["prompts"]["families"].items():
        try:
            re.compile(pattern)
        except re.error as error:
            yield f"prompts.families.{family} is no regular expression: {pattern!r} ({error})."
    for name in SOURCES:
        source = settings["sources"][name]
        if source["use"] == "path" and not source["path"]:
            yield f"sources.{name}.use is `path`, but sources.{name}.path is missing."
        if source["use"] == "demo" and source["path"]:
            yield (
                f"sources.{name}.path is given, but sources.{name}.use is `demo`; write "
                "`use: path` for the path to count."
            )
        if source["unpack"] is not None and name != "images":
            yield f"sources.{name}.unpack is given, but counts for sources.images only."
    if (settings["sources"]["images"]["use"] == "demo") != (
        settings["sources"]["instructions"]["use"] == "demo"
    ):
        yield (
            "sources.images and sources.instructions belong together: take both from the demo "
            "or both from a path."
        )
    prompts = settings["prompts"]
    if not prompts["named"] and prompts["held_out_questions"] == 0:
        yield "prompts.named is empty and prompts.held_out_questions is 0: nothing would be asked."


def _layer_problems(parallel: Mapping) -> Iterator[str]:
    llm, vit = parallel["llm_pp_layers"], parallel["vit_pp_layers"]
    for name, layers in (("llm_pp_layers", llm), ("vit_pp_layers", vit)):
        if layers and isinstance(layers[0], list) and len(layers) > 1:
            yield (
                f"parallel.{name} has {len(layers)} rows, one for each virtual pipeline stage, in which "
                "nothing is trained here; write one row, and leave checkpoints of virtual stages to "
                "scripts/convert_checkpoint.py, which reads and writes them."
            )
            return
    if (llm is None) != (vit is None):
        yield "parallel.llm_pp_layers and parallel.vit_pp_layers go together: give both or neither."
    elif llm is not None and _shape(llm) != _shape(vit):
        yield (
            f"parallel.llm_pp_layers {llm} and parallel.vit_pp_layers {vit} must have the same "
            "shape: one number per pipeline stage."
        )


def _shape(layers: list) -> list[int]:
    rows = layers if isinstance(layers[0], list) else [layers]
    return [len(row) if isinstance(row, list) else -1 for row in rows]


def source_problems(settings: Mapping) -> Iterator[str]:
    """What is wrong with the files that a configuration names, a sentence for each."""
    images, instructions, model = (settings["sources"][name] for name in SOURCES)
    if images["use"] == "path":
        path = Path(images["path"])
        if path.suffix == ".zip" and path.is_file():
            yield from _zip_problems(path, images, settings)
        elif not path.is_dir():
            yield (
                f"sources.images.path is {path}, which is not a directory; give the one with the "
                ".jpg files, or a .zip file of them."
            )
        elif not _readable_directory(path):
            yield f"sources.images.path is {path}, which you may not read; mend its permissions."
        else:
            for number, named in enumerate(settings["prompts"]["named"]):
                if not (path / named["image"]).is_file():
                    yield (
                        f"prompts.named[{number}].image is {named['image']}, but there is no such "
                        f"file in {path}."
                    )
    elif images["use"] == "demo":
        demo = settings["sources"]["demo"]
        drawn = set(image_names(demo["pictures"], demo["seed"]))
        for number, named in enumerate(settings["prompts"]["named"]):
            if named["image"] not in drawn:
                yield (
                    f"prompts.named[{number}].image is {named['image']}, but the demo draws no such "
                    f"picture; it draws {min(drawn)} and {len(drawn) - 1} others."
                )
    if instructions["use"] == "path":
        path = Path(instructions["path"])
        if not path.is_file():
            yield f"sources.instructions.path is {path}, but there is no such file."
    for number, part in enumerate(settings["sources"]["mixture"]):
        if not Path(part["path"]).is_file():
            yield f"sources.mixture[{number}].path is {part['path']}, but there is no such file."
    if images["unpack"] is False and settings["engine"] == "mindspeed":
        yield (
            "sources.images.unpack is false, but the mindspeed engine can't read pictures from a "
            "zip file; write true."
        )
    if model["use"] == "path":
        yield from model_problems(Path(model["path"]), settings)
    elif model["use"] == "demo":
        config = json.loads(DEMO_CONFIG.read_text(encoding="utf-8"))
        yield from layout_problems(config, "the demo", settings)


def _zip_problems(path: Path, images: Mapping, settings: Mapping) -> Iterator[str]:
    try:
        names = open_archive(path).members
    except UserError as error:
        yield f"sources.images.path: {error}"
        return
    for number, named in enumerate(settings["prompts"]["named"]):
        if named["image"] not in names:
            yield (
                f"prompts.named[{number}].image is {named['image']}, but there is no such file in "
                f"{path}."
            )
    if not images["unpack"] and settings["engine"] == "mindspeed":
        yield (
            f"sources.images.path is {path}, but the mindspeed engine can't read pictures from a "
            "zip file; write `unpack: true`."
        )


def _readable_directory(path: Path) -> bool:
    try:
        next(path.iterdir(), None)
    except OSError:
        return False
    return True
