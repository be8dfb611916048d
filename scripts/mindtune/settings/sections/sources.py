"""The section `sources`."""

from typing import Annotated, Literal

from annotated_types import Len

from mindtune.settings.kinds import (
    MOST_SEED,
    WEB,
    Addresses,
    Choice,
    Flag,
    Number,
    Place,
    Text,
    Whole,
)
from mindtune.settings.section import Section, key, section

SHA256 = Text(pattern="[0-9a-fA-F]{64}", form="a SHA-256 of 64 hexadecimal digits", lower=True)


class Source(Section):
    """A source: where pictures, instructions or a model come from."""

    use: Annotated[
        Literal["demo", "path", "official", "modelscope", "huggingface", "url"], Choice()
    ] = key(
        ...,
        (
            "`demo`; `path`: files that are already there, used in place; or where to fetch "
            "them: `official`, `modelscope`, `huggingface` (of the table of sources), or "
            "`url`."
        ),
        "`demo` 为内置演示数据；`path` 为已有文件，原地使用，不复制；其余为下载来源：`official`、`modelscope`、`huggingface`（见来源表），或 `url`。",
    )
    path: Annotated[str | None, Place("path")] = key(
        None,
        "The file or directory, with `use` = `path`.",
        "`use` 为 `path` 时的文件或目录。",
    )
    name: Annotated[str | None, Text()] = key(
        None,
        "The entry of the table of sources; null for the tutorial's.",
        "来源表中的条目；null 表示教程所用的那一条。",
    )
    url: Annotated[str | list[str] | None, Addresses()] = key(
        None,
        (
            "With `use` = `url`, the address of the file, or several in order. With "
            "`official`, other addresses for the table's files, with `{file}` where the name "
            "goes."
        ),
        "`use` 为 `url` 时文件的地址，可按顺序写多个；为 `official` 时是同一批文件的其他地址，用 `{file}` 代表文件名。",
    )
    bytes: Annotated[int | None, Whole(1, 10**15)] = key(
        None,
        "With `use` = `url`, the size that the file must have.",
        "`use` 为 `url` 时文件应有的字节数。",
    )
    sha256: Annotated[str | None, SHA256] = key(
        None,
        "With `use` = `url`, the SHA-256 that the file must have, 64 hexadecimal digits.",
        "`use` 为 `url` 时文件应有的 SHA-256，64 位十六进制数字。",
    )
    endpoint: Annotated[str | None, WEB] = key(
        None,
        "With a hub, the address of a mirror of it, such as https://hf-mirror.com.",
        "下载站的镜像地址，例如 https://hf-mirror.com。",
    )
    unpack: Annotated[bool | None, Flag()] = key(
        None,
        (
            "Of images in a zip file, whether to unpack it; with false, pictures are read "
            "from the zip. null unpacks what was fetched, and uses a zip of your own in "
            "place."
        ),
        "图片为 zip 时是否解压；false 表示直接从 zip 中读取。null 表示下载来的解压，自己的 zip 原地使用。",
    )


class Mixture(Section):
    """A further file of instructions."""

    path: Annotated[str, Place("path")] = key(
        ...,
        "The file: JSON or JSON lines, in one of the forms in data.md.",
        "文件：JSON 或 JSON Lines，格式见 data.md。",
    )
    weight: Annotated[float, Number(above=0, at_most=100)] = key(
        1.0,
        (
            "How often training sees each record, for once that it sees one of "
            "sources.instructions; of a fraction, a seeded choice is seen."
        ),
        "相对于 sources.instructions 的一条记录看一次，这里的每条记录看几次；小数部分按随机种子选取。",
    )


class Download(Section):
    """How files are fetched."""

    directory: Annotated[str, Place("path")] = key(
        "data",
        (
            "Where fetched files are kept, below the working directory unless absolute. They "
            "outlive `results`, which only has links to them."
        ),
        "下载的文件存放的目录，相对于工作目录，也可写绝对路径。它不随 `results` 删除，`results` 中只有指向它的链接。",
    )
    connections: Annotated[int, Whole(1, 32)] = key(
        4,
        "Ranges of one file that are fetched at a time.",
        "同一个文件同时下载几段。",
    )
    retries: Annotated[int, Whole(0, 1000)] = key(
        8,
        "Failures in a row, with no byte in between, after which it is given up.",
        "连续失败（其间没有收到任何字节）多少次后放弃。",
    )
    timeout: Annotated[float, Number(above=0, at_most=86_400)] = key(
        60,
        "Seconds without a byte after which a connection is retried.",
        "多少秒收不到字节就重新连接。",
    )
    offline: Annotated[bool, Flag()] = key(
        False,
        "Fetch nothing; files that are there already are verified and used.",
        "不下载任何东西；已有的文件经校验后使用。",
    )


class Demo(Section):
    """The embedded street scenes."""

    pictures: Annotated[int, Whole(20, 200_000)] = key(
        1500,
        "How many pictures to draw; each gives a conversation of four turns.",
        "画多少张图；每张图配一段四轮对话。",
    )
    text_only: Annotated[int, Whole(0, 10_000)] = key(
        30,
        "How many conversations without a picture to add.",
        "另加多少段不带图片的对话。",
    )
    seed: Annotated[int, Whole(0, MOST_SEED)] = key(
        1,
        "Seed of the scenes; another one gives other pictures.",
        "场景的随机种子；换一个种子就换一批图。",
    )


class Sources(Section):
    """Where everything comes from."""

    images: Source = section(
        Source,
        "The pictures, a directory such as COCO2017/train2017, or a zip file of them.",
        "图片目录，例如 COCO2017/train2017，或装有图片的 zip 文件。",
        use="demo",
    )
    instructions: Source = section(
        Source,
        "The conversations, a file of JSON or JSON lines in one of the forms in data.md.",
        "对话数据，JSON 或 JSON Lines 文件，格式见 data.md。",
        use="demo",
    )
    model: Source = section(
        Source,
        (
            "The base model, a directory in the layout of a Hugging Face download of Qwen2-VL, "
            "Qwen2.5-VL or Qwen3-VL."
        ),
        "基座模型目录，文件布局与从 Hugging Face 下载的 Qwen2-VL、Qwen2.5-VL 或 Qwen3-VL 相同。",
        use="demo",
    )
    mixture: Annotated[list[Mixture], Len(0, 1000)] = key(
        None,
        (
            "Further files of instructions about the same pictures, trained on together with "
            "sources.instructions."
        ),
        "与 sources.instructions 一起训练的其他指令文件，针对同一批图片。",
        made=list,
    )
    table: Annotated[str | None, Place("path")] = key(
        None,
        "The table of published sources; null for the project's config/data_sources.yaml.",
        "公开来源的表；null 表示本项目的 config/data_sources.yaml。",
    )
    download: Download = section(
        Download,
        "How files are fetched, and where they are kept.",
        "文件如何下载，存放在哪里。",
    )
    demo: Demo = section(
        Demo,
        "The embedded street scenes, used where a source says `demo`.",
        "内置的街景演示，凡来源写 `demo` 处都用它。",
    )
