import os
from types import SimpleNamespace

current_platform = SimpleNamespace(device_type=os.environ.get("VLLM_PLAY_DEVICE", "cpu"))
