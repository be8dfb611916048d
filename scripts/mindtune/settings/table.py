"""The table of published sources (config/data_sources.yaml): what an entry may say."""

from typing import Annotated, Literal

from annotated_types import Len
from pydantic import ConfigDict, Field, RootModel, model_validator
from pydantic_core import PydanticCustomError

from mindtune.models import FAMILIES, TYPES
from mindtune.settings.kinds import WEB, Choice, Text, Whole
from mindtune.settings.section import Section, key
from mindtune.settings.sections.sources import SHA256


class File(Section):
    """A file of a source, and what is known of it."""

    name: Annotated[
        str,
        Text(pattern="[A-Za-z0-9_][A-Za-z0-9_.-]*", maximum=200,
             form="a file name without directories"),
    ] = key(..., "A file name without directories.", "文件名，不带目录。")  # fmt: skip
    bytes: Annotated[int | None, Whole(1, 10**15)] = key(
        ..., "Its size; null where nobody says it.", "字节数；无人公布时为 null。"
    )
    sha256: Annotated[str | None, SHA256] = key(
        ..., "Its SHA-256; null where nobody says it.", "SHA-256；无人公布时为 null。"
    )
    support: Annotated[Literal["strong", "two", "one"], Choice()] = key(
        ..., "How many public records agree on both.", "有多少公开记录与此一致。"
    )


class Official(Section):
    """Addresses of a publisher."""

    urls: Annotated[list[Annotated[str, WEB]], Len(1, 100)] = key(
        ..., "In order; `{file}` stands for the name.", "按顺序；`{file}` 代表文件名。"
    )


class Repository(Section):
    """A repository on a hub."""

    model: Annotated[str, Text(maximum=200)] = key("", "The id of a model.", "模型的名称。")
    dataset: Annotated[str, Text(maximum=200)] = key("", "The id of a data set.", "数据集的名称。")
    revision: Annotated[str, Text(maximum=200)] = key(..., "A commit or branch.", "提交或分支。")

    @model_validator(mode="after")
    def _one_of_both(self) -> "Repository":
        if bool(self.model) == bool(self.dataset):
            raise PydanticCustomError(
                "mindtune", "{words}",
                {"words": "must have one of the keys `model` and `dataset`.", "at": ""},
            )  # fmt: skip
        return self


class From(Section):
    """Where a source may be taken from."""

    official: Official | None = key(None, "The publisher.", "发布者。")
    modelscope: Repository | None = key(None, "ModelScope.", "ModelScope。")
    huggingface: Repository | None = key(None, "Hugging Face.", "Hugging Face。")


class Entry(Section):
    """A published source."""

    model_config = ConfigDict(populate_by_name=False)

    kind: Annotated[Literal["images", "instructions", "model"], Choice()] = key(
        ..., "What it is.", "种类。"
    )
    family: Annotated[
        str,
        Text(pattern="|".join(FAMILIES), form=f"a model_type: {TYPES}"),
    ] = key(
        None,
        "Of a model: the model_type in its config.json.",
        "模型的 model_type，见 config.json。",
    )
    version: Annotated[str, Text()] = key("", "Its version.", "版本。")
    licence: Annotated[str, Text()] = key(..., "Its licence.", "许可证。")
    note: Annotated[str, Text()] = key("", "What else should be known.", "备注。")
    place: Annotated[str, Text(maximum=1000)] = key(
        ...,
        "The directory below sources.download.directory.",
        "sources.download.directory 之下的目录。",
    )
    pictures: Annotated[int, Whole(1, 10**9)] = key(
        None, "How many pictures a zip must hold.", "zip 中应有的图片数。"
    )
    files: Annotated[list[File], Len(1, 10_000)] = key(..., "Its files.", "文件。")
    from_: From = Field(alias="from", description="Where it may be taken from.",
                        json_schema_extra={"zh": "可以从哪里获取。"})  # fmt: skip


class Table(RootModel[dict[str, Entry]]):
    """The whole table, for its JSON Schema."""
