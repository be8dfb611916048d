"""The embedded demo: drawn street scenes, what is said of them, and a tiny Qwen2-VL."""
