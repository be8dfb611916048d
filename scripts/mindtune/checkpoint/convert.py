"""The three conversions: hf_to_mm, mm_to_hf and resplit."""

import json
import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mindtune.checkpoint.hf_writing import (
    copy_rest,
    distribution,
    is_ours,
    original_files,
    set_dtype,
    verify_shards,
    write_shards,
)
from mindtune.checkpoint.huggingface import HFCheckpoint
from mindtune.checkpoint.layout import ParallelLayout
from mindtune.checkpoint.lora import merged_views
from mindtune.checkpoint.megatron import MMCheckpoint
from mindtune.checkpoint.reading import (
    check_copies,
    compare,
    hf_views,
    mm_views,
    same_bytes,
)
from mindtune.checkpoint.writing import (
    check_apart,
    check_space,
    check_target,
    sync_tree,
    target_directory,
    write_release,
)
from mindtune.errors import UserError
from mindtune.formats.streaming import Progress
from mindtune.models.shape import ModelShape, model_shape, read_config
from mindtune.models.tensors import Tensors, tensors_in, tensors_of

log = logging.getLogger("mindtune.checkpoint")

GIGABYTE = 10**9


def hf_to_mm(
    hf_dir: str | Path,
    mm_dir: str | Path,
    *,
    tp_size: int = 1,
    llm_pp_layers: Any = None,
    vit_pp_layers: Any = None,
    workers: int = 1,
    progress: Progress | None = None,
    verify: bool = False,
    overwrite: bool = False,
    sync: bool = False,
) -> ParallelLayout:
    """Convert a model's Hugging Face directory into a Megatron `release` checkpoint.

    The layer lists are those of `ParallelLayout` ([28] and [[28]] alike, a JSON text of
    either too); None puts everything on one stage. `mm_dir` appears whole, by rename; the
    tracker in it says `release`. Tensors keep their dtype. `workers` threads copy;
    `progress(bytes done, bytes in all)` is called from them. With `verify` the result is read
    back and compared with the source before it gets its name; with `sync` it is flushed to
    disk as well. An `mm_dir` that holds anything but an earlier `release` is only replaced
    with `overwrite`. Returns the layout.

    Raises UserError, before anything is written, for a layout that does not fit the model and
    for weights that are missing, damaged or not those of config.json.
    """
    hf_dir, mm_dir = Path(hf_dir), Path(mm_dir)
    with HFCheckpoint(hf_dir) as hf:
        layout = ParallelLayout.make(
            hf.shape, tp_size=tp_size, llm_pp_layers=llm_pp_layers, vit_pp_layers=vit_pp_layers
        )
        check_apart(mm_dir, hf_dir)
        family = tensors_of(hf.shape)
        if hf.spare_output and not same_bytes(hf.spare_output, hf.tensors[family.embedding_hf]):
            raise UserError(
                f"{hf_dir}: {family.output_hf} differs from the word embedding, but config.json says "
                "they are tied; set tie_word_embeddings to false there to keep both"
            )

        def finished(directory: Path) -> None:
            if verify:
                with MMCheckpoint(directory) as mm:
                    found = hf_views(mm, hf.shape)
                    pairs = [(name, view, found[name]) for name, view in hf.tensors.items()]
                    compare(pairs, mm_dir, workers=workers, progress=progress)
                    mm.check()
            if sync:
                sync_tree(directory)

        write_release(
            mm_dir,
            layout,
            family,
            tied=hf.shape.tied,
            whole=lambda entry: mm_views(hf.tensors, hf.shape, entry),
            before_rename=finished,
            overwrite=overwrite,
            workers=workers,
            progress=progress,
            sync=sync,
        )
    return layout


def mm_to_hf(
    mm_dir: str | Path,
    hf_dir: str | Path,
    save_hf_dir: str | Path,
    *,
    tp_size: int | None = None,
    llm_pp_layers: Any = None,
    vit_pp_layers: Any = None,
    iteration: int | str | None = None,
    max_shard_bytes: int = 4 * GIGABYTE,
    lora_alpha: float | None = None,
    lora_base_dir: str | Path | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    verify: bool = False,
    overwrite: bool = False,
    sync: bool = False,
) -> ParallelLayout:
    """Convert a Megatron checkpoint (`release` or a trained `iter_*`) to Hugging Face's form.

    `mm_dir` holds the tracker; `iteration` (a number or "release") overrules it. The layout is
    read off the files; a `tp_size` or layer list that is given is only compared with it.
    `hf_dir` is the original model: its config decides names and shapes, its config, tokenizer
    and other small files are copied. The weights are written as `model-0000k-of-0000n`
    safetensors of at most `max_shard_bytes` bytes (a single larger tensor gets a file of its
    own), with an index, distributed as in `hf_dir` where that fits. Names are the published ones,
    dtypes those of the Megatron files.

    A checkpoint of LoRA adapters is merged into the weights of `lora_base_dir` (a Megatron
    directory; default: the weights in `hf_dir`), W + alpha / r * B A computed in float32;
    `lora_alpha` defaults to what the checkpoint's own `args` say.

    The other options are those of `hf_to_mm`, as are the errors; every record that is read is
    compared with its checksum before the result gets its name. Returns the layout found.
    """
    mm_dir, hf_dir, save_hf_dir = Path(mm_dir), Path(hf_dir), Path(save_hf_dir)
    if max_shard_bytes < 1:
        raise UserError(f"max_shard_bytes is {max_shard_bytes}; it has to be above 0")
    config = read_config(hf_dir)
    shape = model_shape(config, str(hf_dir / "config.json"))
    with ExitStack() as stack:
        mm = stack.enter_context(MMCheckpoint(mm_dir, iteration))
        check_given_layout(mm, tp_size, llm_pp_layers, vit_pp_layers)
        check_apart(save_hf_dir, hf_dir, mm_dir)
        check = mm.check
        if mm.is_lora:
            tensors, check = merged_views(mm, shape, hf_dir, lora_base_dir, lora_alpha, stack)
        else:
            tensors = hf_views(mm, shape)
        check_target(save_hf_dir, overwrite, set(), marker=is_ours(save_hf_dir))
        groups = distribution(tensors, original_files(hf_dir, tensors_of(shape)), max_shard_bytes)
        with target_directory(save_hf_dir) as temporary:
            check_space(temporary, sum(view.nbytes for view in tensors.values()))
            copy_rest(hf_dir, temporary)
            set_dtype(temporary / "config.json", config, tensors)
            write_shards(temporary, groups, workers=workers, progress=progress, sync=sync)
            check()
            if verify:
                verify_shards(temporary, tensors, save_hf_dir, workers, progress)
            if sync:
                sync_tree(temporary)
        return mm.layout


def resplit(
    source_dir: str | Path,
    target_dir: str | Path,
    *,
    tp_size: int = 1,
    llm_pp_layers: Any = None,
    vit_pp_layers: Any = None,
    hf_dir: str | Path | None = None,
    iteration: int | str | None = None,
    source_tp_size: int | None = None,
    source_llm_pp_layers: Any = None,
    source_vit_pp_layers: Any = None,
    workers: int = 1,
    progress: Progress | None = None,
    verify: bool = False,
    overwrite: bool = False,
    sync: bool = False,
) -> ParallelLayout:
    """Re-cut a Megatron checkpoint: `source_dir` at any layout into a `release` at another.

    The first three options are the target's layout (None layers: one stage). The source's is
    read off its files; what is given of it is only compared. `hf_dir` (of which only
    config.json is used) is needed when the target has more tensor ranks than the source, since
    whether they divide the heads cannot be seen from the files. Only the model is carried over,
    as by mm-convert. The other options, and the errors, are those of `hf_to_mm`.
    """
    source_dir, target_dir = Path(source_dir), Path(target_dir)
    config_file = None if hf_dir is None else str(Path(hf_dir) / "config.json")
    shape = None if hf_dir is None else model_shape(read_config(hf_dir), config_file)
    with MMCheckpoint(source_dir, iteration) as mm:
        check_given_layout(mm, source_tp_size, source_llm_pp_layers, source_vit_pp_layers)
        if mm.is_lora:
            raise UserError(
                f"{mm.directory} holds LoRA adapters only; merge them by mm-to-hf first"
            )
        llm, vit = (sum(map(sum, r)) for r in (mm.layout.llm_pp_layers, mm.layout.vit_pp_layers))
        layout = ParallelLayout.make(
            tp_size=tp_size,
            llm_pp_layers=[llm] if llm_pp_layers is None else llm_pp_layers,
            vit_pp_layers=[vit] if vit_pp_layers is None else vit_pp_layers,
        )
        check_apart(target_dir, source_dir)
        family = tensors_in(mm.names()) if shape is None else tensors_of(shape)
        tied = _resplit_checks(mm, layout, shape, family, (llm, vit))

        def finished(directory: Path) -> None:
            mm.check()
            if verify:
                with MMCheckpoint(directory) as result:
                    found = family.entries(llm, vit, output=not tied)
                    pairs = [(e.mm, mm.whole(e), result.whole(e)) for e in found]
                    compare(pairs, target_dir, workers=workers, progress=progress)
                    check_copies(result, family, tied=tied)
                    result.check()
            if sync:
                sync_tree(directory)

        write_release(
            target_dir,
            layout,
            family,
            tied=tied,
            whole=mm.whole,
            before_rename=finished,
            overwrite=overwrite,
            workers=workers,
            progress=progress,
            sync=sync,
        )
        return layout


def _resplit_checks(
    mm: MMCheckpoint,
    layout: ParallelLayout,
    shape: ModelShape | None,
    family: Tensors,
    layers: tuple[int, int],
) -> bool:
    """Check that the model in `mm` can be cut as `layout` says; whether its embeddings are tied."""
    layout.check_family(family)
    for name, rows, wanted in (
        ("llm_pp_layers", layout.llm_pp_layers, layers[0]),
        ("vit_pp_layers", layout.vit_pp_layers, layers[1]),
    ):
        if (total := sum(map(sum, rows))) != wanted:
            raise UserError(
                f"{name} {json.dumps(rows)} adds up to {total} layers; {mm.directory} has {wanted}"
            )
    if shape is not None:
        hf_views(mm, shape)  # for its checks
        layout.check_model(shape)
        return shape.tied
    if mm.layout.tp_size % layout.tp_size:
        raise UserError(
            f"tp_size {layout.tp_size} does not divide the source's {mm.layout.tp_size} tensor "
            "rank(s); give hf_dir too, for its config.json tells whether it divides the heads"
        )
    if unknown := mm.unknown_names(family.entries(*layers, output=True)):
        raise UserError(f"{mm.directory} has a tensor {unknown[0]} that is none of {family.name}'s")
    for entry in family.entries(*layers, output=False):
        mm.whole(entry)
    tied = family.output_mm not in mm.names()
    if not tied and mm.layout.pp_size > 1:
        pairs = zip(mm.shards(family.output_mm), mm.shards(family.embedding_mm), strict=True)
        tied = all(same_bytes(a, b) for a, b in pairs)
    check_copies(mm, family, tied=tied)
    return tied


def check_given_layout(
    mm: MMCheckpoint, tp_size: int | None, llm_pp_layers: Any, vit_pp_layers: Any
) -> None:
    """Raise UserError if what a user says of a checkpoint's layout is not what its files show."""
    have = mm.layout
    if tp_size is not None and tp_size != have.tp_size:
        raise UserError(f"{mm.directory} has {have.tp_size} tensor rank(s), not {tp_size}")
    if mm.is_lora or (llm_pp_layers is None and vit_pp_layers is None):
        return
    given = ParallelLayout.make(
        tp_size=have.tp_size,
        llm_pp_layers=have.llm_pp_layers if llm_pp_layers is None else llm_pp_layers,
        vit_pp_layers=have.vit_pp_layers if vit_pp_layers is None else vit_pp_layers,
    )
    if given != have:
        raise UserError(f"{mm.directory} is laid out as {have.describe()}, not {given.describe()}")
