"""The demo's base model: a real Qwen2-VL, small, in the layout of a Hugging Face download.

Its weights (`base/weights.safetensors`, bfloat16) and its tokenizer are part of the
project; `scripts/pretrain_demo_base.py` made them and can make them again. Here they
are laid out with everything else that a download of Qwen2-VL-2B-Instruct contains.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from mindtune.files import sha256_file, write_json, writing, writing_directory
from mindtune.formats.safetensors_io import open_safetensors, safetensors_header
from mindtune.formats.streaming import Buffers, stream

ASSETS = Path(__file__).with_name("base")

# Qwen2-VL's special tokens, in the order of their ids.
SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
    "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip

# Qwen2's pre-tokenizer.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Qwen2-VL's chat template.
CHAT_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}<|im_end|>\n{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}{% if add_vision_id %}"
    "Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "{% set video_count.value = video_count.value + 1 %}{% if add_vision_id %}"
    "Video {{ video_count.value }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

VOCABULARY = 640
HIDDEN, LAYERS, HEADS, KV_HEADS, FFN = 128, 4, 4, 2, 384
VISION_HIDDEN, VISION_DEPTH, VISION_HEADS, VISION_MLP_RATIO = 128, 4, 4, 3
MAX_PIXELS = 128 * 128  # a drawn picture (400 x 320) becomes 140 x 112: 20 vision tokens


def train_tokenizer(texts: Iterator[str]) -> Tokenizer:
    """A byte-level BPE like Qwen2's, small, with Qwen2-VL's special tokens at the end."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=False, fuse_unk=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL_TOKENS),
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def model_config(tokenizer: Tokenizer) -> dict:
    """config.json in the flat form in which Qwen2-VL was published."""
    token = tokenizer.token_to_id
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "bos_token_id": token("<|endoftext|>"),
        "eos_token_id": token("<|im_end|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
        "vision_token_id": token("<|vision_pad|>"),
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": FFN,
        "max_position_embeddings": 2048,
        "max_window_layers": LAYERS,
        "model_type": "qwen2_vl",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "sliding_window": 2048,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": {
            "depth": VISION_DEPTH,
            "embed_dim": VISION_HIDDEN,
            "mlp_ratio": VISION_MLP_RATIO,
            "num_heads": VISION_HEADS,
            "in_chans": 3,
            "hidden_size": HIDDEN,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "temporal_patch_size": 2,
        },
        "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
        "vocab_size": VOCABULARY,
    }


def write_configs(directory: Path, tokenizer: Tokenizer) -> None:
    """Write every file of a download except the weights: 10 small files."""
    token = tokenizer.token_to_id
    write_json(directory / "config.json", model_config(tokenizer))
    write_json(
        directory / "generation_config.json",
        {
            "bos_token_id": token("<|endoftext|>"),
            "pad_token_id": token("<|endoftext|>"),
            "do_sample": False,
            "eos_token_id": [token("<|im_end|>"), token("<|endoftext|>")],
        },
    )
    write_json(
        directory / "preprocessor_config.json",
        {
            "min_pixels": 56 * 56,
            "max_pixels": MAX_PIXELS,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2VLProcessor",
        },
    )
    write_json(directory / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    added = {
        str(token(name)): {
            "content": name,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for name in SPECIAL_TOKENS
    }
    write_json(
        directory / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "added_tokens_decoder": added,
            "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
            "bos_token": None,
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "errors": "replace",
            "model_max_length": 2048,
            "pad_token": "<|endoftext|>",
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        },
    )
    with writing(directory / "tokenizer.json") as handle:
        handle.write(tokenizer.to_str(pretty=True))
    bpe = json.loads(tokenizer.to_str())["model"]
    write_json(directory / "vocab.json", bpe["vocab"])
    with writing(directory / "merges.txt") as handle:
        handle.write("#version: 0.2\n")
        handle.writelines(" ".join(pair) + "\n" for pair in bpe["merges"])


def write_base_model(directory: Path) -> dict:
    """Lay out the demo's base model as a download, in two safetensors shards and an index.

    Returns what is known of the weights' making (`base/pretraining.json`).
    """
    making = json.loads((ASSETS / "pretraining.json").read_text(encoding="utf-8"))
    weights = ASSETS / "weights.safetensors"
    found = sha256_file(weights)
    if found != making["sha256"]:
        raise ValueError(
            f"{weights} has SHA-256 {found}, not {making['sha256']}: restore it with git"
        )
    with writing_directory(directory) as partial:
        write_configs(partial, Tokenizer.from_file(str(ASSETS / "tokenizer.json")))
        file, views = open_safetensors(weights)
        with closing(file):
            names = sorted(views)
            language = [name for name in names if not name.startswith("visual.")]
            vision = [name for name in names if name.startswith("visual.")]
            weight_map = {}
            for number, part in enumerate((language, vision), start=1):
                shard = f"model-{number:05d}-of-00002.safetensors"
                header, _ = safetensors_header({name: views[name] for name in part})
                with writing(partial / shard, "wb") as handle:
                    handle.write(header)
                    for name in part:
                        handle.writelines(stream(views[name], Buffers()))
                weight_map |= dict.fromkeys(part, shard)
        total = sum(view.nbytes for view in views.values())
        write_json(
            partial / "model.safetensors.index.json",
            {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))},
        )
    return making
