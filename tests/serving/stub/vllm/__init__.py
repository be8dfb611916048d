"""A vLLM that is only played: it answers with the numbers of what it is given.

VLLM_PLAY is JSON: `record`, a file that gets a line for each call; `fail`, an exception of loading, its
type and text; `more`, picture tokens too many; `die_at`, the prompt at which it ends itself by SIGKILL;
`log`, a line that it prints first; `unplaced`, the end of the name of modules of an adapter that it leaves
out; `lost`, that one is not even among them; `no_lora`, words of the exception that loading with an adapter raises.
"""

import json
import math
import os
import signal
from pathlib import Path
from types import SimpleNamespace

from PIL import Image
from safetensors import safe_open

PLAY = json.loads(os.environ.get("VLLM_PLAY", "{}"))
PAD = int(os.environ["VLLM_PLAY_PAD"]) if "VLLM_PLAY_PAD" in os.environ else None
answered = 0


def record(**what):
    if "record" in PLAY:
        with open(PLAY["record"], "a") as handle:
            handle.write(json.dumps(what) + "\n")


def tokens(size, most):
    """Qwen2-VL's: sides of whole tokens, at most so many pixels."""
    width, height = size
    sides = [round(side / 28) * 28 for side in (height, width)]
    if math.prod(sides) > most:
        scale = math.sqrt(width * height / most)
        sides = [math.floor(side / scale / 28) * 28 for side in (height, width)]
    return math.prod(sides) // 28**2


class ModelRegistry:
    @staticmethod
    def get_supported_archs():
        return os.environ.get("VLLM_PLAY_KNOWN", "Qwen2VLForConditionalGeneration").split()


class SamplingParams(SimpleNamespace):
    pass


class OutOfMemoryError(RuntimeError):
    pass


class LLM:
    def __init__(self, **values):
        record(
            load={name: value for name, value in values.items() if name != "parser"},
            threads=os.environ.get("OMP_NUM_THREADS"),
        )
        if "log" in PLAY:
            print(PLAY["log"])
        if "fail" in PLAY:
            raise {"memory": OutOfMemoryError, "value": ValueError}[PLAY["fail"][0]](
                PLAY["fail"][1]
            )
        if values.get("enable_lora") and "no_lora" in PLAY:
            raise AssertionError(PLAY["no_lora"])
        settings = Path(values["model"], "preprocessor_config.json").read_text()
        self.most = json.loads(settings)["max_pixels"]
        self.llm_engine = SimpleNamespace(
            reset_encoder_cache=lambda: record(reset="encoder"), add_lora=self.add_lora
        )

    def add_lora(self, request):
        """Its modules; q, k and v are packed, as are gate and up."""
        with safe_open(f"{request.path}/adapter_model.safetensors", "np") as tensors:
            names = {name.rpartition(".lora_")[0] for name in tensors.keys()}  # noqa: SIM118
        packed = {}
        for name in names:
            parent, _, own = name.rpartition(".")
            own = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "up_proj": "up"}.get(own, own)
            packed.setdefault(f"{parent}.{own}", []).append(name)
        loras = {name: SimpleNamespace(lora_a=[*parts, None]) for name, parts in packed.items()}
        unplaced = PLAY.get("unplaced", "none of them")
        if "lost" in PLAY:
            loras.popitem()
        self.lora_manager = SimpleNamespace(
            list_adapters=lambda: {request.number: SimpleNamespace(loras=loras)},
            modules={name for name in loras if not name.endswith(unplaced)},
        )

    def apply_model(self, function):
        return [function(self)]

    def reset_prefix_cache(self):
        record(reset="prefix")

    def reset_mm_cache(self):
        record(reset="mm")

    def generate(self, prompts, how, use_tqdm, lora_request=None):
        global answered
        path = lora_request and lora_request.path
        record(asked=len(prompts), how=vars(how), adapter=path)
        found = []
        if not use_tqdm:
            return [self.one(prompt, how) for prompt in prompts]
        with use_tqdm(total=len(prompts)) as bar:
            for prompt in prompts:
                if answered == PLAY.get("die_at"):
                    os.kill(os.getpid(), signal.SIGKILL)
                answered += how.max_tokens > 1
                found.append(self.one(prompt, how))
                bar.update(1)
        return found

    def one(self, prompt, how):
        ids = prompt["prompt_token_ids"]
        pictures = iter(prompt.get("multi_modal_data", {}).get("image", []))
        asked = []
        for token in ids:
            count = 1
            if token == PAD:
                picture = next(pictures)
                assert isinstance(picture, Image.Image) and picture.mode == "RGB"
                count = tokens(picture.size, self.most) + PLAY.get("more", 0)
            asked += [token] * count
        said = [ids[(3 + n % 3) % len(ids)] for n in range(min(how.max_tokens, 3 + sum(ids) % 5))]
        if len(said) < how.max_tokens:
            said.append(how.stop_token_ids[0])
        return SimpleNamespace(prompt_token_ids=asked, outputs=[SimpleNamespace(token_ids=said)])
