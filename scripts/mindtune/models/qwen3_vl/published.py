"""The published sizes of Qwen3-VL that are not mixtures of experts."""

# What Qwen publishes in the config.json: small ones have 24 vision layers, large ones 27.
_SMALL = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096,
          "deepstack_visual_indexes": [5, 11, 17]}  # fmt: skip
_LARGE = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304,
          "deepstack_visual_indexes": [8, 16, 24]}  # fmt: skip
PUBLISHED = {
    name: {
        "model_type": "qwen3_vl", "tie_word_embeddings": tied,
        "text_config": {
            "hidden_size": hidden, "num_hidden_layers": 36, "intermediate_size": ffn,
            "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        },
        "vision_config": {
            **vision, "num_heads": 16, "patch_size": 16, "num_position_embeddings": 2304,
            "out_hidden_size": hidden,
        },
    }
    for name, hidden, ffn, tied, vision in (
        ("4B", 2560, 9728, True, _SMALL),
        ("8B", 4096, 12288, False, _LARGE),
    )
}  # fmt: skip
