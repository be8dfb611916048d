"""Running the real MindSpeed-MM on the CPU stand-in: its files, its command line, its log.

Set MINDSPEED_MM_HOME to a MindSpeed-MM tree (branch 2.0.0, laid out as its README says: `megatron` and
`MindSpeed` inside) and MINDSPEED_MM_PYTHON to a Python 3.10 that has its requirements, without
torch_npu. The tree is only read: the framework compiles into its own directories, hence a copy is run.
"""

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STANDIN = Path(__file__).parents[1] / "standin"
EXAMPLES = "examples/qwen2vl"
# A hung process group must not hang the tests.
LIMIT_S = 900


def is_here() -> bool:
    return bool(os.environ.get("MINDSPEED_MM_HOME"))


@dataclass(frozen=True)
class Iteration:
    """A line of the framework's log."""

    number: int
    consumed_samples: int
    lr: float
    loss: float
    ms: float


@dataclass(frozen=True)
class Framework:
    """A copy of the framework's tree, and the Python that runs it."""

    home: Path
    python: str

    @classmethod
    def copied_to(cls, directory: Path) -> "Framework":
        """A copy in `directory`, made if it isn't there."""
        if not directory.is_dir():
            source = Path(os.environ["MINDSPEED_MM_HOME"])
            unneeded = shutil.ignore_patterns(".git", "docs", "tests")
            shutil.copytree(source, directory, ignore=unneeded)
        return cls(directory, os.environ["MINDSPEED_MM_PYTHON"])

    def environment(self, standin: bool) -> dict[str, str]:
        path = [self.home, self.home / "MindSpeed"]
        return {
            **os.environ,
            # Megatron's Makefile calls `python3`.
            "PATH": os.pathsep.join([str(Path(self.python).parent), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join(map(str, [STANDIN, *path] if standin else path)),
            "MINDTUNE_STANDIN": "1" if standin else "",
            "OMP_NUM_THREADS": "1",
            "CUDA_DEVICE_MAX_CONNECTIONS": "1",  # Megatron insists on it
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "TORCH_EXTENSIONS_DIR": str(self.home / "torch_extensions"),
        }

    def run(self, arguments: Sequence, cwd: Path, standin: bool = True) -> str:
        """Run the framework's Python; returns what it printed, both streams.

        Raises
        ------
        RuntimeError: it ended with another status than 0; with the end of what it printed.
        """
        done = subprocess.run(
            [self.python, *map(str, arguments)],
            cwd=cwd,
            env=self.environment(standin),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
        )
        if done.returncode:
            raise RuntimeError(f"exit status {done.returncode}: {done.stdout[-6000:]}")
        return done.stdout

    def torchrun(self, script: Path, arguments: Sequence, cwd: Path, processes: int = 1) -> str:
        """Run a script of the framework's under torchrun, on a port that is free."""
        launcher = ["-m", "torch.distributed.run", "--nproc_per_node", processes]
        rendezvous = ["--master_addr", "localhost", "--master_port", free_port()]
        backend = ["--distributed-backend", "nccl"]
        return self.run([*launcher, *rendezvous, script, *arguments, *backend], cwd)

    def example(self, name: str) -> dict:
        """A JSON file that the framework ships for Qwen2-VL."""
        return json.loads((self.home / EXAMPLES / name).read_text(encoding="utf-8"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def model_json(shipped: dict, hf: Mapping, layout: Mapping) -> dict:
    """A shipped model JSON with the sizes of a Hugging Face config, its layers laid out."""
    vision, decoder = shipped["image_encoder"], shipped["text_decoder"]
    sizes = hf["vision_config"]
    width = sizes["embed_dim"]
    vision["vision_encoder"].update(
        num_layers=sizes["depth"],
        hidden_size=width,
        ffn_hidden_size=width * sizes["mlp_ratio"],
        llm_hidden_size=hf["hidden_size"],
        num_attention_heads=sizes["num_heads"],
        pipeline_num_layers=layout["vit_pp_layers"][0],
    )
    vision["vision_projector"].update(
        input_size=width,
        hidden_size=hf["hidden_size"],
        ffn_hidden_size=width * sizes["spatial_merge_size"] ** 2,
    )
    decoder.update(
        num_layers=hf["num_hidden_layers"],
        pipeline_num_layers=layout["llm_pp_layers"][0],
        hidden_size=hf["hidden_size"],
        ffn_hidden_size=hf["intermediate_size"],
        num_attention_heads=hf["num_attention_heads"],
        num_query_groups=hf["num_key_value_heads"],
        max_position_embeddings=hf["max_position_embeddings"],
        vocab_size=hf["vocab_size"],
        rope_theta=hf["rope_theta"],
        mrope_section=hf["rope_scaling"]["mrope_section"],
        layernorm_epsilon=hf["rms_norm_eps"],
    )
    return shipped | {
        "img_context_token_id": hf["image_token_id"],
        "video_token_id": hf["video_token_id"],
        "vision_start_token_id": hf["vision_start_token_id"],
    }


def inference_json(shipped: dict, hf: Mapping, layout: Mapping, hf_dir: Path, length: int) -> dict:
    """The shipped inference JSON for a model in `hf_dir`, with answers of `length` tokens at most."""
    config = model_json(shipped, hf, layout)
    config["tokenizer"]["from_pretrained"] = str(hf_dir)
    end, pad = hf["eos_token_id"], hf["bos_token_id"]
    config["generation_config"].update(
        bos_token_id=pad,
        pad_token_id=pad,
        eos_token_id=[end, pad],
        max_new_tokens=length,
        image_token_id=hf["image_token_id"],
        video_token_id=hf["video_token_id"],
        vision_start_token_id=hf["vision_start_token_id"],
    )
    return config


def to_fp32(path: Path) -> None:
    """Change a model.json to float32.

    The text decoder keeps its flag `bf16`, without which the framework refuses mrope; what it computes in
    follows from `params_dtype`.
    """
    model = json.loads(path.read_text())
    for part in (*model["image_encoder"].values(), model["text_decoder"]):
        part["params_dtype"] = "fp32"
    for part in model["image_encoder"].values():
        part["bf16"] = False
    path.write_text(json.dumps(model))


def data_json(shipped: dict, *, hf_dir: Path, images: Path, data: Path, cache: Path) -> dict:
    """The shipped data_2b.json with our files."""
    parameters = shipped["dataset_param"]
    parameters["preprocess_parameters"]["model_name_or_path"] = str(hf_dir)
    parameters["basic_parameters"].update(
        dataset_dir=str(images),
        dataset=str(data),
        cache_dir=str(cache),
        preprocessing_num_workers=1,
    )
    return shipped


def command_line(
    train: Mapping, hf: Mapping, layout: Mapping, files: Path, mm: Path, tools: Path
) -> list[str]:
    """The arguments of the shipped finetune_qwen2vl_2b.sh with our settings.

    files: the directory of data.json and model.json, which gets save_dir. mm: what is loaded.
    tools: the framework's tools.json.
    """
    options = {
        "tensor-model-parallel-size": layout["tp_size"],
        "pipeline-model-parallel-size": len(layout["llm_pp_layers"][0]),
        "micro-batch-size": train["micro_batch_size"],
        "global-batch-size": train["global_batch_size"],
        "tokenizer-type": "NullTokenizer",
        "vocab-size": hf["vocab_size"],
        "seq-length": train["seq_length"],
        "make-vocab-size-divisible-by": 1,
        "normalization": "RMSNorm",
        "lr": train["lr"],
        "min-lr": train["min_lr"],
        "lr-decay-style": train["lr_decay_style"],
        "weight-decay": train["weight_decay"],
        "train-iters": train["train_iters"],
        "lr-warmup-fraction": train["lr_warmup_fraction"],
        "clip-grad": train["clip_grad"],
        "adam-beta1": train["adam_beta1"],
        "adam-beta2": train["adam_beta2"],
        "adam-eps": train["adam_eps"],
        "seed": train["seed"],
        "load": mm,
        "num-workers": 1,
        "mm-data": files / "data.json",
        "mm-model": files / "model.json",
        "mm-tool": tools,
        "log-interval": 1,
        "save-interval": train["save_interval"],
        "eval-interval": train["train_iters"],
        "eval-iters": 0,
        "save": files / "save_dir",
    }
    switches = (
        "use-mcore-models", "use-fused-rmsnorm", "swiglu", "use-fused-swiglu",
        "no-gradient-accumulation-fusion", "bf16", "use-distributed-optimizer",
        "variable-seq-lengths", "use-flash-attn", "no-load-optim", "no-load-rng", "no-save-optim",
        "no-save-rng",
    )  # fmt: skip
    arguments = [f"--{switch}" for switch in switches]
    for name, value in options.items():
        arguments += [f"--{name}", str(value)]
    return arguments


LINE = re.compile(r"^ \[.*\] iteration +(\d+)/ *\d+ \| consumed samples: +(\d+) \|(.*)$", re.M)


def iterations(log: str) -> list[Iteration]:
    """The lines of iterations in the framework's log; fields are found by name."""
    found = []
    for number, consumed, rest in LINE.findall(log):
        fields = dict(part.rsplit(":", 1) for part in rest.split("|") if ":" in part)
        fields = {name.strip(): value.strip() for name, value in fields.items()}
        found.append(
            Iteration(
                int(number),
                int(consumed),
                float(fields["learning rate"]),
                float(fields["loss"]),
                float(fields["elapsed time per iteration (ms)"]),
            )
        )
    return found
