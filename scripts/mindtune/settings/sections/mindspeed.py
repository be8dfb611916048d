"""The section `mindspeed`."""

from typing import Annotated, Literal

from annotated_types import Len

from mindtune.settings.kinds import WEB, Choice, Name, Place, Text, Whole
from mindtune.settings.section import Section, key, section

HOST = Text(
    pattern="[A-Za-z0-9][A-Za-z0-9.-]*", maximum=253,
    form="the name or address of a host: letters, digits, `-` and `.`",
)  # fmt: skip
VARIABLE = Name(
    "[A-Za-z_][A-Za-z0-9_]*", "is not one; names there match ^[A-Za-z_][A-Za-z0-9_]*$.", 1000
)


class Install(Section):
    """Where the framework is installed, and from where."""

    directory: Annotated[str, Place("path")] = key(
        "framework",
        (
            "Where it is installed, below the working directory unless absolute; it outlives "
            "`results`."
        ),
        "安装目录，非绝对路径时位于工作目录之下；不随 `results` 删除。",
    )
    mindspeed_mm: Annotated[str | None, Place("path")] = key(
        None,
        "Git address or directory of MindSpeed-MM; null for the published one.",
        "MindSpeed-MM 的 git 地址或目录；null 为公开发布的地址。",
    )
    megatron_lm: Annotated[str | None, Place("path")] = key(
        None,
        "Git address or directory of Megatron-LM; null for the published one.",
        "Megatron-LM 的 git 地址或目录；null 为公开发布的地址。",
    )
    mindspeed: Annotated[str | None, Place("path")] = key(
        None,
        "Git address or directory of MindSpeed; null for the published one.",
        "MindSpeed 的 git 地址或目录；null 为公开发布的地址。",
    )
    apex: Annotated[str | None, Place("path")] = key(
        None,
        "Git address or directory of apex for Ascend; null for the published one.",
        "昇腾版 apex 的 git 地址或目录；null 为公开发布的地址。",
    )
    apex_wheel: Annotated[str | None, Place("path")] = key(
        None,
        "A wheel of apex for Ascend that is built already; null to build it.",
        "已经构建好的昇腾版 apex 安装包（wheel）；null 表示自行构建。",
    )
    wheels: Annotated[str | None, Place("path")] = key(
        None,
        (
            "A directory of all wheels, for machines without a package index; null to ask "
            "pip's own index."
        ),
        "存放全部安装包（wheel）的目录，用于无法访问软件源的机器；null 表示使用 pip 的软件源。",
    )
    package_index: Annotated[str | None, WEB] = key(
        None,
        "Address of the package index; null for pip's own configuration.",
        "软件源地址；null 表示使用 pip 自己的配置。",
    )


class Mindspeed(Section):
    """The machine and the framework, for the `mindspeed` engine."""

    home: Annotated[str | None, Place("path")] = key(
        None,
        (
            "The root directory of an existing MindSpeed-MM installation, which is checked "
            "and never changed; null to install one."
        ),
        "已有的 MindSpeed-MM 安装的根目录，只检查、不改动；null 表示自动安装。",
    )
    python: Annotated[str, Place("path")] = key(
        "python3.10",
        (
            "A Python 3.10: that of the existing installation, or the one from which the "
            "framework's own environment is made. Snakemake's Python is another."
        ),
        "一个 Python 3.10：已有安装所用的那个，或用来创建框架独立环境的那个。Snakemake 用的是另一个 Python。",
    )
    set_env: Annotated[str | None, Place("path")] = key(
        "/usr/local/Ascend/ascend-toolkit/set_env.sh",
        (
            "CANN's script of environment variables, sourced before anything of the framework "
            "runs; null where they are set already."
        ),
        "CANN 的环境变量脚本，在运行框架的任何程序之前加载；已设好变量时写 null。",
    )
    stand_in: Annotated[str | None, Place("path")] = key(
        None,
        (
            "A directory of stand-ins for torch_npu and its companions, put first on the "
            "framework's Python path: `tests/standin` rehearses the run on a CPU. null on an "
            "NPU."
        ),
        "torch_npu 等的替身目录，放在框架 Python 路径的最前面：`tests/standin` 可在 CPU 上排练。在 NPU 上写 null。",
    )
    install: Install = section(
        Install,
        "Where the framework is installed, and from where, without `home`.",
        "没有 `home` 时，框架安装到哪里、从哪里获取。",
    )
    npus_per_node: Annotated[int, Whole(1, 64)] = key(
        1,
        "NPUs of one node that a training uses, one process each.",
        "一次训练在每个节点上使用的 NPU 数，每个 NPU 一个进程。",
    )
    nodes: Annotated[int, Whole(1, 10_000)] = key(
        1,
        "Nodes that a training uses; more than one need Slurm, `hosts`, or `MASTER_ADDR` (docs/clusters.md).",
        "一次训练使用的节点数；多于一个时需要 Slurm、`hosts` 或 `MASTER_ADDR`（docs/clusters.md）。",
    )
    hosts: Annotated[list[Annotated[str, HOST]], Len(0, 10_000)] = key(
        None,
        (
            "Outside Slurm, the nodes of a training by name, the first being the master; they "
            "are reached by ssh and see the same files."
        ),
        "不用 Slurm 时训练所用节点的名字，第一个为主节点；通过 ssh 访问，且看到相同的文件。",
        made=list,
    )
    master_port: Annotated[int | None, Whole(1024, 65_535)] = key(
        None,
        "Port of the first node; null takes a free one, and 6000 on several nodes.",
        "主节点的端口；null 表示取一个空闲端口，多节点时为 6000。",
    )
    num_workers: Annotated[int, Whole(0, 1024)] = key(
        8,
        "Processes that load pictures, for each NPU.",
        "每个 NPU 读取图片的进程数。",
    )
    preprocessing_num_workers: Annotated[int, Whole(1, 1024)] = key(
        16,
        "Processes that count tokens of all conversations before the training.",
        "训练前统计所有对话词元数的进程数。",
    )
    distributed_timeout_minutes: Annotated[int, Whole(1, 100_000)] = key(
        120,
        "Minutes that processes wait for one another, also during preprocessing.",
        "进程之间相互等待的分钟数，预处理期间也适用。",
    )
    cache: Annotated[str, Place("path")] = key(
        "results/cache",
        (
            "Directory of the preprocessed data, on a disk of the node; one part for each "
            "content of data, pictures and processor, so that none is ever stale."
        ),
        "预处理数据的目录，应位于节点自己的磁盘上；数据、图片和处理器内容不同则各占一个子目录，绝不会过时。",
    )
    environment: Annotated[
        dict[Annotated[str, VARIABLE], Annotated[str, Text(minimum=0)]], Len(0, 1000)
    ] = key(
        None,
        "Environment variables to set beside the tutorial's own, or instead of them.",
        "在教程的环境变量之外另设或改设的环境变量。",
        made=dict,
    )
    extra_arguments: Annotated[list[Annotated[str, Text(maximum=1000)]], Len(0, 1000)] = key(
        None,
        (
            "Further arguments of pretrain_vlm.py, such as `--log-throughput`; those that "
            "have a key of their own are refused."
        ),
        "pretrain_vlm.py 的其他参数，例如 `--log-throughput`；已有对应配置项的参数会被拒绝。",
        made=list,
    )
    converter: Annotated[Literal["mindtune", "mm-convert"], Choice()] = key(
        "mindtune",
        (
            "What converts checkpoints: `mindtune`, our own, or the framework's `mm-convert`, "
            "whose result is then compared with ours."
        ),
        "转换检查点的工具：`mindtune` 为本项目自己的；`mm-convert` 为框架的，其结果会与我们的对照。",
    )
    inference: Annotated[Literal["pipeline", "script"], Choice()] = key(
        "pipeline",
        (
            "How questions are answered: `pipeline` asks all of them with one load of the "
            "model; `script` runs the tutorial's inference_vlm.py for each, as a cross-check."
        ),
        "如何回答问题：`pipeline` 一次加载模型回答全部；`script` 逐个运行教程的 inference_vlm.py，用于对照。",
    )
