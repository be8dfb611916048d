"""Ask one model, or two beside each other, about a picture.

    python scripts/ask.py results/baseline/hf picture.jpg "What is on the back of the bus?"
    python scripts/ask.py results/sources/Qwen2-VL-demo results/baseline/hf picture.jpg
    python scripts/ask.py results/sources/Qwen2-VL-demo results/baseline/hf --web

Models are directories of Hugging Face models. Without a question, and after one, questions are read from the
terminal, each asked by itself, as the workflow asks. --web serves a page with picture, answers and boxes to
this machine alone; it needs gradio (envs/web.txt). Exit status: 0 done, 1 not done, 2 the command line is
wrong, 130 after Ctrl-C.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from mindtune.errors import UserError

MOST_MODELS = 2


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line, with models, picture and question told apart: models are directories."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="a directory, such as results/baseline/hf")
    parser.add_argument(
        "rest", nargs="*", metavar="MODEL PICTURE QUESTION",
        help="a second model, the picture, and a question; all but the picture are optional",
    )  # fmt: skip
    parser.add_argument("--web", action="store_true", help="a page on this machine; needs gradio")
    parser.add_argument("--port", type=int, help="of the page; default: a free one from 7860 on")
    parser.add_argument("--device", default="cpu", help="as hf.device; default: cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=1, help="as hf.threads; default: 1")
    parser.add_argument(
        "--max-new-tokens", type=int, default=256, help="as answer.max_new_tokens; default: 256"
    )
    parser.add_argument(
        "--image-resolution", type=int, default=512 * 512,
        help="as processor.image_resolution; default: 262144",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    for name in ("threads", "max_new_tokens", "image_resolution"):
        if getattr(given, name) < 1:
            parser.error(f"--{name.replace('_', '-')}: must be at least 1")
    if given.port is not None and not 1 <= given.port < 1 << 16:
        parser.error("--port: must be from 1 to 65535")
    rest = list(given.rest)
    given.models = [given.model]
    while rest and len(given.models) < MOST_MODELS and Path(rest[0]).is_dir():
        given.models.append(Path(rest.pop(0)))
    given.picture = Path(rest.pop(0)) if rest else None
    given.question = rest.pop(0) if rest else None
    if rest:
        parser.error(f"{rest[0]!r} is left over; put the question in quotes")
    if given.picture is None and not given.web:
        parser.error("the picture is missing")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    given = parsed(arguments)
    logging.getLogger("mindtune").addHandler(logging.StreamHandler(sys.stderr))
    try:
        return _answer(given)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
        return 130


def _answer(given: argparse.Namespace) -> int:
    # These take seconds, which a mistake of the command line needn't wait for.
    from mindtune.data.shrinking import read_shrunk
    from mindtune.engines.talk.asking import Speaker, check_model

    for model in given.models:
        check_model(model)
    if given.picture is not None:
        read_shrunk(given.picture, given.image_resolution)
    if given.web:
        from mindtune.engines.talk.page import gradio, serve

        gradio()
    speakers = [
        Speaker(model, given.device, given.precision, given.threads, given.image_resolution)
        for model in given.models
    ]
    if given.web:
        serve(speakers, given.picture, given.max_new_tokens, given.image_resolution, given.port)
        return 0
    from mindtune.engines.talk.terminal import talk

    return talk(speakers, given.picture, given.question, given.max_new_tokens)


if __name__ == "__main__":
    sys.exit(main())
