"""The published sizes of Qwen2.5-VL."""

# What Qwen publishes in the four config.json.
_VISION = {"depth": 32, "hidden_size": 1280, "num_heads": 16}
PUBLISHED = {
    name: {
        "model_type": "qwen2_5_vl", "hidden_size": hidden, "num_hidden_layers": layers,
        "intermediate_size": ffn, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "vocab_size": vocab, "tie_word_embeddings": tied,
        "vision_config": {**_VISION, "intermediate_size": vision, "out_hidden_size": hidden},
    }
    for name, hidden, layers, ffn, heads, kv_heads, vocab, tied, vision in (
        ("3B", 2048, 36, 11008, 16, 2, 151936, True, 3420),
        ("7B", 3584, 28, 18944, 28, 4, 152064, False, 3420),
        ("32B", 5120, 64, 27648, 40, 8, 152064, False, 3456),
        ("72B", 8192, 80, 29568, 64, 8, 152064, False, 3456),
    )
}  # fmt: skip
