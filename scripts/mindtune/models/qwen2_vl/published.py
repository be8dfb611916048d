"""The published sizes of Qwen2-VL."""

# What Qwen publishes in the three config.json.
_VISION = {"depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4}
PUBLISHED = {
    name: {
        "model_type": "qwen2_vl", "hidden_size": hidden, "num_hidden_layers": layers,
        "intermediate_size": ffn, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "vocab_size": vocab, "tie_word_embeddings": tied,
        "vision_config": {**_VISION, "hidden_size": hidden},
    }
    for name, hidden, layers, ffn, heads, kv_heads, vocab, tied in (
        ("2B", 1536, 28, 8960, 12, 2, 151936, True),
        ("7B", 3584, 28, 18944, 28, 4, 152064, False),
        ("72B", 8192, 80, 29568, 64, 8, 152064, False),
    )
}  # fmt: skip
