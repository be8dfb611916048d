"""The section `data`."""

from typing import Annotated, Literal

from mindtune.settings.kinds import MOST_SEED, Choice, Number, Whole
from mindtune.settings.section import Section, key


class Data(Section):
    """From records to samples."""

    held_out_fraction: Annotated[float, Number(at_least=0, at_most=1)] = key(
        0.005,
        "Share of the images (not records) that training never sees; 1, all of them, where every "
        "model was trained elsewhere.",
        "训练从不接触的图片所占比例（按图片计，不按记录计）；所有模型都在别处训练好时可写 1，即全部。",
    )
    split_seed: Annotated[int, Whole(0, MOST_SEED)] = key(
        1,
        "Seed of the split by image id.",
        "按图片编号划分时的随机种子。",
    )
    max_samples: Annotated[int | None, Whole(1, 1_000_000_000)] = key(
        None,
        "Use so many records of the instructions; null for all.",
        "只用这么多条指令数据；null 表示全部。",
    )
    subset_seed: Annotated[int | None, Whole(0, MOST_SEED)] = key(
        None,
        "Seed of the choice of max_samples records; null for the first ones.",
        "选取 max_samples 条记录的随机种子；null 表示取最前面的。",
    )
    check_pictures: Annotated[Literal["signature", "size"], Choice()] = key(
        "signature",
        (
            "How fast pictures are looked at, with one result: `signature` reads the first and "
            "last bytes of each, `size` of those only whose size or time stamp has changed since "
            "the last conversion. The rule check_data decodes them all."
        ),
        "检查图片的快慢，结果相同：`signature` 读取每张图片开头和结尾的字节；`size` 只读取上次转换以来"
        "大小或修改时间有变化的图片。规则 check_data 会把所有图片解码一遍。",
    )
    max_dropped_fraction: Annotated[float, Number(at_least=0, at_most=1)] = key(
        0.01,
        (
            "Share of records that may be dropped because their picture can't be used, or "
            "because they can't be trained on as they were meant (docs/data.md); above it the "
            "conversion stops."
        ),
        "因图片不可用、或无法按原意训练（见 docs/data.md）而允许丢弃的记录比例；超过则停止转换。",
    )
