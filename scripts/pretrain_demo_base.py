"""Make the demo's base model again (about 20 minutes on two cores).

python scripts/pretrain_demo_base.py [--out scripts/mindtune/demo/base] [--steps N]

(drawn scenes) -> weights.safetensors, tokenizer.json, pretraining.json
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from mindtune.demo.base_model import ASSETS
from mindtune.demo.pretraining import Settings, pretrain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ASSETS, help="directory for the three files")
    for name in ("pictures", "vision_steps", "steps", "threads", "seed"):
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=int, default=getattr(Settings, name)
        )
    options = vars(parser.parse_args())
    out = options.pop("out")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        pretrain(
            out,
            replace(Settings(), **options),
            Path(work) / "configs",
            log=lambda line: print(f"[{time.monotonic() - begun:6.0f} s] {line}", flush=True),
        )


if __name__ == "__main__":
    main()
