"""Write the parts of the documentation that are made from what they describe.

    python scripts/write_reference.py          # writes them
    python scripts/write_reference.py --check  # says which are out of date, exit status 1

mindtune.settings.sections                       -> docs/config.md, docs/zh/config.md and
                                                    config/schema.json, for editors
mindtune.settings.table                          -> config/data_sources.schema.json, for editors
envs/hf.lock.txt                                 -> envs/workflow.yaml
mindtune.comparison.contract                     -> the tables in docs/outputs.md
mindtune.engines.mindspeed.faults                -> the table in docs/ascend.md
tests/workflow/reexecution.yaml                  -> the tables in README.md, README.zh-CN.md
mindtune.settings.scale_tables                   -> the tables in docs/scaling.md, docs/zh/scaling.md
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from mindtune.comparison.contract import COMPARE, SUMMARY, control_columns
from mindtune.engines.mindspeed.faults import FAULTS
from mindtune.files import writing
from mindtune.models.published import PUBLISHED
from mindtune.models.shape import model_shape
from mindtune.settings import Settings, load
from mindtune.settings.reference import (
    column_table,
    conda_environment,
    config_reference,
    fault_table,
    filled,
    reexecution_table,
)
from mindtune.settings.scale_tables import memory_table, table
from mindtune.settings.schema import json_schema
from mindtune.settings.table import Table

ROOT = Path(__file__).resolve().parents[1]
RERUNS = "tests/workflow/reexecution.yaml"
READMES = {"README.md": "en", "README.zh-CN.md": "zh"}
INTRO = """# Every key of the configuration

Made from the models in [scripts/mindtune/settings/sections](../scripts/mindtune/settings/sections) by
`python scripts/write_reference.py`; change a model, not this page. Editors with a YAML language
server complete and check keys from [config/schema.json](../config/schema.json), which the first line
of each shipped configuration names. `python scripts/check_config.py FILE` says all mistakes of a
file, with their lines. A key that isn't here is refused. The defaults are the
tutorial's values; [config/config.yaml](../config/config.yaml) sets the demo's.

A path or an address may name environment variables (`$NAME`, `${NAME}`; `$$` is a dollar sign), and
a path may begin with `~`. They are replaced once, before anything is checked; one that is not set is
reported. Other text, such as a question, is taken as it is.
"""
INTRO_ZH = """# 全部配置项

本页由 `python scripts/write_reference.py` 根据
[scripts/mindtune/settings/sections](../../scripts/mindtune/settings/sections) 中的模型生成，请勿直接修改。
支持 YAML 语言服务器的编辑器可据 [config/schema.json](../../config/schema.json) 补全和检查（自带的每个配置
文件首行已注明）。`python scripts/check_config.py FILE` 会列出文件中的全部错误及其行号。这里没有列出的键会被拒绝。
默认值取自教程；内置演示所用的值写在 [config/config.yaml](../../config/config.yaml) 中。

路径和网址中可以使用环境变量（`$NAME`、`${NAME}`；`$$` 表示一个美元符号），路径还可以以 `~` 开头。
变量在检查之前统一展开一次；未设置的变量会被指出。其他文本（例如问题）一律原样使用。
"""


def pages(root: Path = ROOT) -> dict[Path, str]:
    """What each page should say."""
    outputs = root / "docs/outputs.md"
    ascend = root / "docs/ascend.md"
    reruns = yaml.safe_load((root / RERUNS).read_text(encoding="utf-8"))
    contracts = [found for one in (COMPARE, SUMMARY) for found in (one, control_columns(one))]
    tables = {contract.name: column_table(contract) for contract in contracts}
    tutorial = yaml.safe_load((ROOT / "config/qwen2-vl-2b.yaml").read_text(encoding="utf-8"))
    shapes = {name: model_shape(config) for name, config in PUBLISHED.items()}
    sizes = {
        "sizes": table(shapes, load(tutorial), (1, 30, 300)),
        "memory": memory_table(shapes),
    }
    scaling = [root / "docs/scaling.md", root / "docs/zh/scaling.md"]
    return {
        root / "envs/workflow.yaml": conda_environment(
            (root / "envs/hf.lock.txt").read_text(encoding="utf-8")
        ),
        **{page: filled(page.read_text(encoding="utf-8"), sizes) for page in scaling},
        root / "docs/config.md": config_reference(Settings, INTRO),
        root / "docs/zh/config.md": config_reference(Settings, INTRO_ZH, "zh"),
        root / "config/schema.json": _json(json_schema(Settings, "mindtune configuration")),
        root / "config/data_sources.schema.json": _json(json_schema(Table, "table of sources")),
        ascend: filled(
            ascend.read_text(encoding="utf-8"),
            {"known faults": fault_table((fault.name, fault.sentence) for fault in FAULTS)},
        ),
        outputs: filled(outputs.read_text(encoding="utf-8"), tables),
        **{
            root / name: filled(
                (root / name).read_text(encoding="utf-8"),
                {"what runs again": reexecution_table(reruns, language)},
            )
            for name, language in READMES.items()
        },
    }


def _json(schema: Mapping[str, Any]) -> str:
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    given = parser.parse_args(arguments)
    old = 0
    for path, text in pages().items():
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        old += 1
        if given.check:
            print(f"{path.relative_to(ROOT)} is out of date")
        else:
            with writing(path) as handle:
                handle.write(text)
            print(f"wrote {path.relative_to(ROOT)}")
    return int(given.check and old > 0)


if __name__ == "__main__":
    sys.exit(main())
