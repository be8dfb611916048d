"""Checks that a schema can't express: across keys, and of the files that a configuration names."""

import difflib
import json
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mindtune.checkpoint.model_directory import layout_problems, model_problems
from mindtune.checkpoint.tuned_model import KEY as TUNED
from mindtune.checkpoint.tuned_model import tuned_problems
from mindtune.data.archive import open_archive
from mindtune.data.conversation import one_name
from mindtune.data.prompts import named_problems
from mindtune.demo.scenes import image_names
from mindtune.engines import ENGINES
from mindtune.errors import UserError
from mindtune.files import read_json
from mindtune.settings.hf import hf_problems
from mindtune.settings.lora import lora_problems
from mindtune.settings.mindspeed import mindspeed_problems
from mindtune.settings.sections import Settings
from mindtune.settings.sections.parallel import Parallel
from mindtune.settings.sections.sources import Source
from mindtune.settings.vllm import vllm_problems

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
# Keys that stand within an experiment only; and sections that such a model has no use for.
OVERLAY_KEYS = (TUNED,)
OF_TRAINING = ("train", "parallel")
SOURCES = ("images", "instructions", "model")
MOST_SAMPLES = 10**9  # of a training: 2B models learn some 10 in a second


def name_problems(names: Iterable[str]) -> Iterator[str]:
    """What is wrong with experiments' names, a sentence for each.

    Case doesn't count: on some file systems (macOS, Windows) two names that differ in it are one.
    """
    before: dict[str, str] = {}
    for name in names:
        folded = name.casefold()
        if folded in before:
            yield (
                f"experiments.{name} and experiments.{before[folded]} differ in capital letters only, "
                "which some file systems take for one name; rename one."
            )
        before.setdefault(folded, name)
        if folded == SHARED:
            yield f"experiments.{name}: the name `{name}` is taken by what experiments share."
        if folded in TAKEN:
            yield f"experiments.{name}: results/{name} is something else; take another name."
        repeated = _REPEATED.search(name[:LONGEST_NAME])
        if repeated:
            yield (
                f"experiments.{name[:40]}… repeats `{repeated[1]}` twenty times or more, which "
                "Snakemake takes for a rule that runs for ever; take another name."
            )


# Snakemake refuses such wildcards (PeriodicityDetector in its dag.py).
_REPEATED = re.compile(r"(.+?)\1{19,}")
LONGEST_NAME = 200


def overlay_problems(name: str, overlay: Mapping) -> Iterator[str]:
    """What an experiment changes that it may not, a sentence for each."""
    for section, values in overlay.items():
        if section == "sources" and isinstance(values, Mapping):
            for key in values:
                if key not in OVERLAY_SOURCES:
                    yield (
                        f"experiments.{name}.sources.{key} can't differ between experiments; "
                        f"only sources.{', sources.'.join(OVERLAY_SOURCES)} can."
                    )
        elif section in OF_TRAINING and overlay.get(TUNED) is not None:
            yield (
                f"experiments.{name}.{section} is given, but its {TUNED} was trained elsewhere, so "
                f"nothing is trained here; remove one of them."
            )
        elif section not in (*OVERLAY_SECTIONS, *OVERLAY_KEYS):
            allowed = (*OVERLAY_SECTIONS, "sources.model", *OVERLAY_KEYS)
            guess = difflib.get_close_matches(section, allowed, 1)
            hint = (
                f"; did you mean `{guess[0]}`?" if guess else f"; it may have {', '.join(allowed)}."
            )
            yield f"experiments.{name}.{section} can't differ between experiments{hint}"


def condition_problems(settings: Settings) -> Iterator[str]:
    """Conditions across keys that a schema can't express, a sentence for each broken one."""
    train, parallel = settings.train, settings.parallel
    micro, whole = train.micro_batch_size, train.global_batch_size
    if whole % micro:
        yield (
            f"train.global_batch_size is {whole}, which is no multiple of train.micro_batch_size "
            f"{micro}; the nearest that is: {max(1, round(whole / micro)) * micro}."
        )
    if train.save_interval > train.train_iters:
        yield (
            f"train.save_interval is {train.save_interval}, more than train.train_iters "
            f"{train.train_iters}: no checkpoint would be saved on the way; write at most "
            f"{train.train_iters}."
        )
    if train.eval_iters and train.eval_interval > train.train_iters:
        yield (
            f"train.eval_interval is {train.eval_interval}, more than train.train_iters "
            f"{train.train_iters}: nothing would be evaluated; write at most "
            f"{train.train_iters}, or 0 for train.eval_iters."
        )
    samples = train.train_iters * whole
    if samples > MOST_SAMPLES:
        yield (
            f"train.train_iters {train.train_iters} x train.global_batch_size {whole} are {samples} "
            f"samples, more than {MOST_SAMPLES}; write less of one."
        )
    if train.min_lr > train.lr:
        yield f"train.min_lr is {train.min_lr}, more than train.lr {train.lr}."
    if train.eval_iters and not settings.data.held_out_fraction:
        yield (
            "train.eval_iters wants held-out data, but data.held_out_fraction is 0; set "
            "train.eval_iters to 0, or hold some images out."
        )
    yield from _layer_problems(parallel)
    yield from lora_problems(settings)
    if settings.engine == "mindspeed":
        yield from mindspeed_problems(settings)
    else:
        yield from hf_problems(settings)
    if answering_engine(settings) == "vllm":
        yield from vllm_problems(settings)
    for family, pattern in settings.prompts.families.items():
        try:
            re.compile(pattern)
        except re.error as error:
            yield f"prompts.families.{family} is no regular expression: {pattern!r} ({error})."
    for name in SOURCES:
        source = getattr(settings.sources, name)
        if source.use == "path" and not source.path:
            yield f"sources.{name}.use is `path`, but sources.{name}.path is missing."
        if source.use == "demo" and source.path:
            yield (
                f"sources.{name}.path is given, but sources.{name}.use is `demo`; write "
                "`use: path` for the path to count."
            )
        if source.unpack is not None and name != "images":
            yield f"sources.{name}.unpack is given, but counts for sources.images only."
    if (settings.sources.images.use == "demo") != (settings.sources.instructions.use == "demo"):
        yield (
            "sources.images and sources.instructions belong together: take both from the demo "
            "or both from a path."
        )
    prompts = settings.prompts
    if not prompts.named and prompts.held_out_questions == 0:
        yield "prompts.named is empty and prompts.held_out_questions is 0: nothing would be asked."
    if settings.compare.controls:
        nothing = {
            "prompts.held_out_questions": prompts.held_out_questions == 0,
            "data.held_out_fraction": not settings.data.held_out_fraction,
        }
        for key in (key for key, is_zero in nothing.items() if is_zero):
            yield (
                f"compare.controls asks the held-out questions with other pictures, but {key} is 0; "
                "write more, or [] for compare.controls."
            )
    yield from named_problems(named.model_dump() for named in prompts.named)


def answering_engine(settings: Settings) -> str:
    """The name of the engine that answers: by default the one that trains."""
    return settings.answer.engine or settings.engine


def _uses_mindspeed(settings: Settings) -> bool:
    return "mindspeed" in (settings.engine, answering_engine(settings))


def experiment_problems(settings: Settings) -> Iterator[str]:
    """Conditions that count for an experiment, and not for what all have in common."""
    if settings.tuned_model is None:
        if settings.data.held_out_fraction == 1:
            yield (
                "data.held_out_fraction is 1, which leaves nothing to train on; write less, or a "
                f"{TUNED} for a model that was trained elsewhere."
            )
    elif ENGINES[answering_engine(settings)].answers_from != "hf":
        yield (
            f"{TUNED} is given, but {answering_engine(settings)} doesn't answer from a Hugging Face model; "
            "write `answer.engine: hf` (with hf.device: npu on Ascend), or vllm."
        )


def _layer_problems(parallel: Parallel) -> Iterator[str]:
    llm, vit = parallel.llm_pp_layers, parallel.vit_pp_layers
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


def source_problems(settings: Settings) -> Iterator[str]:
    """What is wrong with the files that a configuration names, a sentence for each."""
    images, instructions, model = (getattr(settings.sources, name) for name in SOURCES)
    if images.use == "path":
        path = Path(images.path)
        if path.suffix == ".zip" and path.is_file():
            yield from _zip_problems(path, images, settings)
        elif not path.is_dir():
            yield (
                f"sources.images.path is {path}, which is not a directory; give the one with the "
                ".jpg files, or a .zip file of them."
            )
        elif not _readable_directory(path):
            yield f"sources.images.path is {path}, which you may not read; fix its permissions."
        else:
            for number, named in enumerate(settings.prompts.named):
                if not _is_file(path / one_name(named.image)):
                    yield (
                        f"prompts.named[{number}].image is {named.image}, but there is no such "
                        f"file in {path}."
                    )
    elif images.use == "demo":
        demo = settings.sources.demo
        drawn = set(image_names(demo.pictures, demo.seed))
        for number, named in enumerate(settings.prompts.named):
            if one_name(named.image) not in drawn:
                yield (
                    f"prompts.named[{number}].image is {named.image}, but the demo draws no such "
                    f"picture; it draws {min(drawn)} and {len(drawn) - 1} others."
                )
    if instructions.use == "path":
        yield from _file_problems("sources.instructions.path", Path(instructions.path))
    for number, part in enumerate(settings.sources.mixture):
        yield from _file_problems(f"sources.mixture[{number}].path", Path(part.path))
    if images.unpack is False and _uses_mindspeed(settings):
        yield (
            "sources.images.unpack is false, but the mindspeed engine can't read pictures from a "
            "zip file; write true."
        )
    if model.use == "path":
        yield from model_problems(Path(model.path), settings)
    elif model.use == "demo":
        config = json.loads(DEMO_CONFIG.read_text(encoding="utf-8"))
        yield from layout_problems(config, "the demo", settings)
    if settings.tuned_model is not None:
        yield from _tuned_problems(settings)


def _tuned_problems(settings: Settings) -> Iterator[str]:
    """What is wrong with a model that was trained elsewhere, beside its base."""
    model = settings.sources.model
    place = {"demo": DEMO_CONFIG.parent, "path": Path(model.path or "")}.get(model.use)
    base = None  # what is to be fetched is not there yet
    if place is not None and (place / "config.json").is_file():
        try:
            base = read_json(place / "config.json")
        except UserError:
            return  # said of sources.model
    name = "of the demo" if model.use == "demo" else str(place)
    yield from tuned_problems(Path(settings.tuned_model), base, name, settings.engine)


def _zip_problems(path: Path, images: Source, settings: Settings) -> Iterator[str]:
    try:
        names = open_archive(path).members
    except UserError as error:
        yield f"sources.images.path: {error}"
        return
    for number, named in enumerate(settings.prompts.named):
        if one_name(named.image) not in names:
            yield (
                f"prompts.named[{number}].image is {named.image}, but there is no such file in "
                f"{path}."
            )
    if not images.unpack and _uses_mindspeed(settings):
        yield (
            f"sources.images.path is {path}, but the mindspeed engine can't read pictures from a "
            "zip file; write `unpack: true`."
        )


def _file_problems(key: str, path: Path) -> Iterator[str]:
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return
    except OSError:
        yield f"{key} is {path}, but there is no such file."
        return
    kind = "a directory" if path.is_dir() else "no file, but a pipe or device"
    yield f"{key} is {path}, which is {kind}; give the file."


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _readable_directory(path: Path) -> bool:
    try:
        next(path.iterdir(), None)
    except OSError:
        return False
    return True
