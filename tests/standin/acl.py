"""Stands in for CANN's Python binding; MindSpeed imports it for its tuner, and calls nothing."""
