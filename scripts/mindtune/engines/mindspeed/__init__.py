"""The `mindspeed` engine: the real MindSpeed-MM, under its own Python, on Ascend NPUs."""
