"""Settings and recorded files that the tests of engine mindspeed share."""

from pathlib import Path

HERE = Path(__file__).parent
RECORDED = HERE / "recorded"
TRAIN = {
    "train_iters": 4, "save_interval": 2, "eval_interval": 2, "eval_iters": 1, "micro_batch_size": 1,
    "global_batch_size": 2, "lr": 1e-5, "min_lr": 0.0, "lr_decay_style": "cosine",
    "lr_warmup_fraction": 0.1, "weight_decay": 0.0, "clip_grad": 0.0, "adam_beta1": 0.9,
    "adam_beta2": 0.999, "adam_eps": 1e-8, "seed": 42, "seq_length": 1024,
    "freeze_vision_encoder": True, "freeze_vision_projector": True, "save_optim": True,
}  # fmt: skip
PARALLEL = {
    "tensor_model_parallel_size": 1, "context_parallel_size": 1,
    "llm_pp_layers": None, "vit_pp_layers": None,
}  # fmt: skip
LAUNCH = {
    "npus_per_node": 1, "nodes": 1, "environment": {"GREETING": "good day; $HOME"},
    "extra_arguments": ["--log-throughput"],
}  # fmt: skip
# A file of the framework's, each with what a rendering must put right.
TEMPLATES = {"data": "data_2b", "model": "model_2b", "inference": "inference_qwen2vl_2b"}


def scrambled(value, key="", within=""):
    """The same JSON with every size, path and token that a rendering has to put right made wrong."""
    if isinstance(value, dict):
        return {name: scrambled(item, name, key) for name, item in value.items()}
    if key in RENDERED and (within, key) not in SHIPPED:
        return "scrambled"
    return value


# The projector has one layer without heads in every model; what is frozen is training's affair.
SHIPPED = {("vision_projector", "num_layers"), ("vision_projector", "num_attention_heads")}
RENDERED = {
    "model_name_or_path", "image_resolution", "dataset_dir", "dataset", "cache_dir",
    "preprocessing_num_workers", "max_samples", "num_layers", "pipeline_num_layers", "llm_hidden_size",
    "spatial_merge_size", "patch_size", "temporal_patch_size", "in_channels", "input_size",
    "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups", "kv_channels",
    "vocab_size", "untie_embeddings_and_output_weights", "max_position_embeddings", "rope_theta",
    "mrope_section", "img_context_token_id", "video_token_id",
    "vision_start_token_id", "freeze", "from_pretrained", "image_processer_path", "bos_token_id",
    "pad_token_id", "eos_token_id", "image_token_id", "max_new_tokens", "do_sample", "temperature",
}  # fmt: skip
