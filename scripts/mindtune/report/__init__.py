"""Showing what the fine-tuning did: a page, a contact sheet, curves."""
