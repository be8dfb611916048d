"""The embedded demo: drawn street scenes, what is said about them, and a tiny Qwen2-VL that sees them."""
