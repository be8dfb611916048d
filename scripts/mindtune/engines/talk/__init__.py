"""Asking one or two models about a picture by hand, on a terminal or on a local page (scripts/ask.py)."""
