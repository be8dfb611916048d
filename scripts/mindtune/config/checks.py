"""Checks that a schema can't express: across keys, and of the files that a configuration names."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from mindtune.demo.scenes import image_names

SHARED = "shared"
# Sections that an experiment may change; sources only in part.
OVERLAY_SECTIONS = ("data", "processor", "parallel", "train", "answer")
OVERLAY_SOURCES = ("model",)


def overlay_problems(name: str, overlay: Mapping) -> Iterator[str]:
    """What an experiment changes that it may not, a sentence for each."""
    if name == SHARED:
        yield f"experiments.{name}: the name `{SHARED}` is taken by what experiments share."
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
    for family, pattern in settings["prompts"]["families"].items():
        try:
            re.compile(pattern)
        except re.error as error:
            yield f"prompts.families.{family} is no regular expression: {pattern!r} ({error})."
    for name, source in settings["sources"].items():
        if name == "demo":
            continue
        if source["use"] == "path" and not source["path"]:
            yield f"sources.{name}.use is `path`, but sources.{name}.path is missing."
        if source["use"] == "demo" and source["path"]:
            yield (
                f"sources.{name}.path is given, but sources.{name}.use is `demo`; write "
                "`use: path` for the path to count."
            )
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
    if (llm is None) != (vit is None):
        yield "parallel.llm_pp_layers and parallel.vit_pp_layers go together: give both or neither."
    elif llm is not None and _shape(llm) != _shape(vit):
        yield (
            f"parallel.llm_pp_layers {llm} and parallel.vit_pp_layers {vit} must have the same "
            "shape: one number per pipeline stage, one row per virtual stage."
        )


def _shape(layers: list) -> list[int]:
    rows = layers if isinstance(layers[0], list) else [layers]
    return [len(row) if isinstance(row, list) else -1 for row in rows]


def source_problems(settings: Mapping) -> Iterator[str]:
    """What is wrong with the files that a configuration names, a sentence for each."""
    images, instructions, model = (
        settings["sources"][name] for name in ("images", "instructions", "model")
    )
    if images["use"] == "path":
        path = Path(images["path"])
        if not path.is_dir():
            yield (
                f"sources.images.path is {path}, which is not a directory; give the one with the "
                ".jpg files."
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
    else:
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
    if model["use"] == "path":
        yield from model_problems(Path(model["path"]), settings["parallel"])


def _readable_directory(path: Path) -> bool:
    try:
        next(path.iterdir(), None)
    except OSError:
        return False
    return True


def model_problems(path: Path, parallel: Mapping) -> Iterator[str]:
    """What a Hugging Face directory lacks to be used as a Qwen2-VL base model."""
    if not path.is_dir():
        yield (
            f"sources.model.path is {path}, which is not a directory; give that of a Qwen2-VL "
            "download."
        )
        return
    needed = {
        "config.json": "config",
        "tokenizer.json": "tokenizer",
        "tokenizer_config.json": "tokenizer",
        "preprocessor_config.json": "image processor",
    }
    for name, what in needed.items():
        if not (path / name).is_file():
            yield f"sources.model.path {path} has no {what}: {name} is missing; download it again."
    index = path / "model.safetensors.index.json"
    if not any(path.glob("*.safetensors")):
        yield f"sources.model.path {path} has no weights (*.safetensors); download them."
    elif index.is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        missing = sorted(shard for shard in shards if not (path / shard).is_file())
        if missing:
            yield (
                f"sources.model.path {path} lacks {len(missing)} of {len(shards)} weight files, "
                f"the first being {missing[0]}; download them."
            )
    if (path / "config.json").is_file():
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        if config.get("model_type") != "qwen2_vl":
            yield (
                f"sources.model.path {path} is a {config.get('model_type')} model, but must be "
                "a qwen2_vl one."
            )
            return
        depths = {
            "llm_pp_layers": config.get("text_config", config).get("num_hidden_layers"),
            "vit_pp_layers": config.get("vision_config", {}).get("depth"),
        }
        for key, depth in depths.items():
            if parallel[key] is not None and depth is not None:
                total = sum(
                    n for row in parallel[key] for n in (row if isinstance(row, list) else [row])
                )
                if total != depth:
                    yield (
                        f"parallel.{key} {parallel[key]} sums to {total}, but the model in {path} "
                        f"has {depth} layers there."
                    )
