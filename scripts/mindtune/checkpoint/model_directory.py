"""What a Hugging Face directory lacks to be used as a base model, before anything runs.

The small files are read as those read them that come later: transformers 5 in the `hf` engine, and
transformers 4.45 in MindSpeed-MM.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtune.checkpoint.huggingface import INDEX, read_weight_map
from mindtune.checkpoint.layout import ParallelLayout, layout_options
from mindtune.errors import UserError
from mindtune.files import read_json, regular
from mindtune.models import FAMILIES, NAMES, TYPES, family, is_known
from mindtune.models.mindspeed import framework_of, tool_problems, unknown_problems
from mindtune.models.pictures import Pictures, pictures_of
from mindtune.models.shape import ModelShape, model_shape
from mindtune.models.tensors import tensors_of

if TYPE_CHECKING:
    from mindtune.settings.sections import Settings
    from mindtune.settings.sections.parallel import Parallel
    from mindtune.settings.sections.train import Train

PROCESSOR, PROCESSOR_OF_5 = "preprocessor_config.json", "processor_config.json"
NEEDED = {
    "config.json": "config",
    "tokenizer.json": "tokenizer",
    "tokenizer_config.json": "tokenizer",
    PROCESSOR: "image processor",
}
# What transformers reads where it is there.
READ = (*NEEDED, PROCESSOR_OF_5, "generation_config.json", "chat_template.json", INDEX)
LARGE = ("tokenizer.json",)  # looked at, not read: it would take a tenth of a second each time
FLASH = "--use-flash-attn"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Sizes of the image processor, and what in config.json they have to be equal to.
SIZES = {
    "patch_size": "patch_size",
    "temporal_patch_size": "temporal_patch_size",
    "merge_size": "spatial_merge_size",
}
# Limits of a picture's pixels, and what transformers 5 calls them in `size`.
EDGES = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}


def model_problems(path: Path, settings: "Settings") -> Iterator[str]:
    """What is wrong with a model's directory, a sentence for each; settings: of an experiment."""
    said = f"sources.model.path {path}"
    if not path.is_dir():
        yield (
            f"sources.model.path is {path}, which is not a directory; give that of a "
            f"{NAMES} download."
        )
        return
    found: dict[str, dict] = {}
    for name in READ:
        if (path / name).exists():
            try:
                found[name] = read_small(path / name)
            except UserError as error:
                yield f"{said}: {error}"
        elif name in NEEDED and not (name == PROCESSOR and (path / PROCESSOR_OF_5).exists()):
            yield f"{said} has no {NEEDED[name]}: {name} is missing; download it again."
    yield from weight_problems(path, said)
    shape = None
    if "config.json" in found:
        try:
            shape = shape_of(found["config.json"], path)
        except UserError as error:
            yield f"{said} can't be used: {str(error).rstrip('.')}."
    if shape is not None and (unknown := list(unknown_problems(shape.model_type, settings))):
        yield from unknown  # what that engine makes of the files doesn't matter
        return
    yield from processor_problems(found, said, settings.engine)
    if shape is None:
        return
    if settings.engine == "mindspeed" and settings.mindspeed.converter == "mm-convert":
        yield from _mm_convert_problems(path, said, found, shape, settings.parallel)
    yield from layout_problems(found["config.json"], str(path / "config.json"), settings)


def read_small(path: Path) -> dict[str, Any]:
    """A JSON object that transformers can read, too.

    Raises
    ------
    UserError: it isn't one, or begins with a byte order mark, which transformers doesn't accept.
    """
    with open(regular(path), "rb") as handle:
        if handle.read(3) == BYTE_ORDER_MARK:
            raise UserError(
                f"{path.name} begins with a byte order mark, which transformers can't read; save it "
                "as UTF-8 without one."
            )
    if path.name in LARGE:
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path.name} is not a JSON object; download it again.")
    return value


def shape_of(config: Mapping, path: Path) -> ModelShape:
    """
    Raises
    ------
    UserError: these aren't the weights of a known family, or not as numbers to train.
    """
    kind = config.get("model_type")
    if not is_known(kind):
        raise UserError(f"it is a {kind} model, but must be a {TYPES} one")
    quantization = config.get("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise UserError(
            f"config.json has a quantization_config ({method or 'of an unnamed kind'}), and quantized "
            f"weights can't be trained; give the download without quantization ({FAMILIES[kind]}-…-Instruct, "
            "not …-AWQ or …-GPTQ-…), or, where the weights are not quantized, remove the section"
        )
    return model_shape(dict(config), str(path / "config.json"))


def weight_problems(path: Path, said: str) -> Iterator[str]:
    """Weights that are not there, a sentence for each. said: how it begins."""
    if not any(path.glob("*.safetensors")):
        yield f"{said} has no weights (*.safetensors); download them."
        return
    try:
        shards = set(read_weight_map(path).values())
    except UserError as error:
        yield f"{said}: {error}"
        return
    missing = sorted(shard for shard in shards if not (path / shard).is_file())
    if missing:
        yield (
            f"{said} lacks {len(missing)} of {len(shards)} weight files, the first being "
            f"{missing[0]}; download them."
        )


# --- The image processor -----------------------------------------------------------------


def processor_problems(found: Mapping[str, Mapping], said: str, engine: str) -> Iterator[str]:
    """found: file name -> content of the directory's files that could be read."""
    nested = found.get(PROCESSOR_OF_5, {}).get("image_processor")
    name = PROCESSOR if nested is None or engine == "mindspeed" else PROCESSOR_OF_5
    processor = found.get(PROCESSOR) if name == PROCESSOR else nested
    if processor is None:
        if PROCESSOR_OF_5 in found and PROCESSOR not in found:
            yield _lacking(said, nested is not None)
        return
    if not isinstance(processor, Mapping):
        yield f"{said}: {name} has no object in image_processor; download it again."
        return
    config = found.get("config.json", {})
    if is_known(config.get("model_type")):
        usual = pictures_of(config["model_type"])
        vision = config.get("vision_config")
        vision = vision if isinstance(vision, dict) else {}
        yield from _size_problems(processor, vision, usual, said, name)
        yield from _differences(found.get(PROCESSOR), nested, usual, said)
    pixels = [processor.get(key) for key in ("min_pixels", "max_pixels")]
    if engine == "mindspeed" and "size" in processor and None in pixels:
        yield (
            f"{said}: {name} has no min_pixels and max_pixels (transformers 5 saves them as `size`), "
            "without which MindSpeed-MM would enlarge or shrink pictures in another way; write both "
            "keys, as in the model's first download."
        )


def _differences(processor: Any, nested: Any, usual: Pictures, said: str) -> Iterator[str]:
    """transformers 5 takes the nested one, transformers 4.45 the other: they have to agree."""
    if not (isinstance(processor, Mapping) and isinstance(nested, Mapping)):
        return
    for key in (*SIZES, *EDGES):
        one, other = (_setting(settings, key, usual) for settings in (processor, nested))
        if one != other:
            yield (
                f"{said}: {key} is {one} in {PROCESSOR}, but {other} in {PROCESSOR_OF_5}, and which one "
                "counts depends on transformers' version; make them equal, or remove the latter file."
            )


def _setting(processor: Mapping, key: str, usual: Pictures) -> Any:
    """A setting of an image processor, the limits in either form."""
    if key in SIZES:
        return processor.get(key, getattr(usual, key))
    size = processor.get("size") if isinstance(processor.get("size"), Mapping) else {}
    return size.get(EDGES[key]) if processor.get(key) is None else processor[key]


def _lacking(said: str, nested: bool) -> str:
    if nested:
        return (
            f"{said} has its image processor in {PROCESSOR_OF_5}, as transformers 5 saves it, but "
            f"MindSpeed-MM reads {PROCESSOR} only; copy that file from the model's first download."
        )
    return f"{said} has no image processor: {PROCESSOR} is missing; download it again."


def _size_problems(
    processor: Mapping, vision: Mapping, usual: Pictures, said: str, name: str
) -> Iterator[str]:
    for key, other in SIZES.items():
        default = getattr(usual, key)
        value, wanted = processor.get(key, default), vision.get(other, default)
        if not _is_count(value):
            yield f"{said}: {key} in {name} is {value!r}; a whole number above 0 is needed."
        elif _is_count(wanted) and value != wanted:
            yield (
                f"{said}: {key} is {value} in {name}, but {other} is {wanted} in vision_config of "
                "config.json; they are of different models: download both again."
            )
    edges = [_setting(processor, key, usual) for key in EDGES]
    given = [edge for edge in edges if edge is not None]
    if not all(map(_is_count, given)) or given != sorted(given):
        yield (
            f"{said}: min_pixels {edges[0]} and max_pixels {edges[1]} in {name} must be whole numbers "
            "above 0, the first not above the second."
        )
    for key, least in (("image_mean", None), ("image_std", 0)):
        numbers = processor.get(key)
        if numbers is not None and not _are_colours(numbers, least):
            more = "" if least is None else f" above {least}"
            yield f"{said}: {key} in {name} is {numbers!r}; three numbers{more} are needed."


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _are_colours(value: Any, least: float | None) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(item, int | float) and not isinstance(item, bool) for item in value)
        and (least is None or all(item > least for item in value))
    )


# --- MindSpeed-MM, and the layout --------------------------------------------------------


def _mm_convert_problems(
    path: Path, said: str, found: Mapping[str, Mapping], shape: ModelShape, parallel: "Parallel"
) -> Iterator[str]:
    """What the framework's own converter can't read, or makes unusable."""
    instead = "set mindspeed.converter to mindtune."
    if INDEX not in found:
        if not (path / INDEX).exists():
            yield f"{said} has no {INDEX}, without which mm-convert can't convert back; {instead}"
        return
    if isinstance(found["config.json"].get("text_config"), Mapping):
        yield (
            f"{said} has a config.json of transformers 5 (with text_config), in which mm-convert finds "
            f"no sizes; {instead}"
        )
    stored, output = found[INDEX].get("weight_map"), tensors_of(shape).output_hf
    if (
        shape.tied
        and isinstance(stored, Mapping)
        and output in stored
        and _one_stage(shape, parallel)
    ):
        yield (
            f"{said} stores {output} beside the embedding that config.json ties it to: mm-convert "
            f"keeps it, and MindSpeed-MM then refuses the checkpoint; {instead}"
        )


def _one_stage(shape: ModelShape, parallel: "Parallel") -> bool:
    try:
        return ParallelLayout.make(shape, **layout_options(parallel)).pp_size == 1
    except UserError:
        return False  # said by `layout_problems`


def layout_problems(config: Mapping, where: str, settings: "Settings") -> Iterator[str]:
    """Whether a model, by its config.json, can be cut as the parallel section says."""
    layout = None
    try:
        shape = model_shape(dict(config), where)
        layout = ParallelLayout.make(shape, **layout_options(settings.parallel))
    except UserError as error:
        yield f"parallel does not fit the model in {where}: {error}."
    if settings.engine == "mindspeed" and is_known(config.get("model_type")):
        yield from _training_problems(config, where, layout, settings)


def _uses_flash(model_type: str) -> bool:
    return framework_of(model_type).flash_attention


def _training_problems(
    config: Mapping, where: str, layout: ParallelLayout | None, settings: "Settings"
) -> Iterator[str]:
    """Why MindSpeed-MM can't train a model. layout: None where the model can't be cut at all."""
    # mindspeed_mm 2.0.0 finds pictures in training by these numbers, whatever model.json says;
    # the stand-in corrects that for tiny models.
    model_type = family(config, where)
    section = settings.mindspeed
    yield from tool_problems(model_type, converter=section.converter, inference=section.inference)
    if FLASH in section.extra_arguments and not _uses_flash(model_type):
        yield (
            f"mindspeed.extra_arguments has {FLASH}, with which MindSpeed-MM 2.0.0 trains "
            f"{FAMILIES[model_type]} without the windows of its vision encoder; remove it."
        )
    trained = framework_of(model_type).tokens["image_token_id"]
    token = config.get("image_token_id", trained)
    if token != trained and not section.stand_in:
        yield (
            f"the model in {where} has {token} for its image_token_id, but MindSpeed-MM 2.0.0 trains "
            f"with {trained} only, that of the published models, and would give pictures the "
            f"positions of text; use a published {FAMILIES[model_type]}, or `engine: hf`."
        )
    if layout is not None:
        shape = model_shape(dict(config), where)
        yield from training_problems(layout, shape, settings.parallel, settings.train)


def training_problems(
    layout: ParallelLayout, shape: ModelShape, parallel: "Parallel", train: "Train"
) -> Iterator[str]:
    """Why MindSpeed-MM can't train a model that is cut so, a sentence for each reason."""
    for problem in layout.training_problems():
        yield f"parallel can't be trained by MindSpeed-MM: {problem}."
    language = [sum(column) for column in zip(*layout.llm_pp_layers, strict=True)]
    if shape.tied and layout.pp_size > 1 and not any(language[:-1]):
        yield (
            "parallel can't be trained by MindSpeed-MM: all language layers are on the last stage, where "
            "it refuses the copy of a tied embedding that converters put there; give an earlier stage "
            "some, or put all layers on one stage."
        )
    idle = layout.idle_stages(train.freeze_vision_encoder, train.freeze_vision_projector)
    for stage in idle:
        yield (
            f"parallel can't be trained by MindSpeed-MM: stage {stage} has only frozen layers "
            "(train.freeze_vision_encoder, train.freeze_vision_projector), and its optimizer ends with "
            "an error where it has nothing to train; give that stage some language layers."
        )
    context = parallel.context_parallel_size
    if context > 1 and not _uses_flash(shape.model_type):
        yield (
            f"parallel.context_parallel_size {context} can't be trained by MindSpeed-MM: without {FLASH}, "
            f"which loses the windows of {FAMILIES[shape.model_type]}'s vision encoder, it computes "
            "something else; write 1."
        )
    for problem in layout.context_problems(shape, context):
        yield f"parallel.context_parallel_size {context} can't be trained by MindSpeed-MM: {problem}."
