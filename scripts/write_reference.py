"""Write the parts of the documentation that are made from what they describe.

    python scripts/write_reference.py          # writes them
    python scripts/write_reference.py --check  # says which are out of date, exit status 1

config/schema.yaml, docs/zh/config-meanings.yaml -> docs/config.md, docs/zh/config.md
envs/hf.lock.txt                                 -> envs/workflow.yaml
mindtune.comparison.contract                     -> the tables in docs/outputs.md
mindtune.engines.mindspeed.faults                -> the table in docs/ascend.md
tests/workflow/reexecution.yaml                  -> the tables in README.md, README.zh-CN.md
mindtune.scale                                   -> the table in docs/scaling.md, docs/zh/scaling.md
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from mindtune.checkpoint.model_shape import model_shape
from mindtune.comparison.contract import COMPARE, SUMMARY
from mindtune.config import load, load_schema
from mindtune.engines.mindspeed.faults import FAULTS
from mindtune.files import writing
from mindtune.reference import (
    column_table,
    conda_environment,
    config_reference,
    fault_table,
    filled,
    reexecution_table,
)
from mindtune.scale import PUBLISHED, table

ROOT = Path(__file__).resolve().parents[1]
RERUNS = "tests/workflow/reexecution.yaml"
READMES = {"README.md": "en", "README.zh-CN.md": "zh"}
INTRO = """# Every key of the configuration

Made from [config/schema.yaml](../config/schema.yaml) by `python scripts/write_reference.py`;
change the schema, not this page. A key that isn't here is refused. The defaults are the
tutorial's values; [config/config.yaml](../config/config.yaml) sets the demo's.

A path or an address may name environment variables (`$NAME`, `${NAME}`; `$$` is a dollar sign), and
a path may begin with `~`. They are replaced once, before anything is checked; one that is not set is
told. Other text, such as a question, is taken as it is.
"""
INTRO_ZH = """# 全部配置项

本页由 `python scripts/write_reference.py` 根据 [config/schema.yaml](../../config/schema.yaml)
和 [config-meanings.yaml](config-meanings.yaml) 生成，请勿直接修改。这里没有列出的键会被拒绝。
默认值取自教程；内置演示所用的值写在 [config/config.yaml](../../config/config.yaml) 中。

路径和网址中可以使用环境变量（`$NAME`、`${NAME}`；`$$` 表示一个美元符号），路径还可以以 `~` 开头。
变量在检查之前统一展开一次；未设置的变量会被指出。其他文本（例如问题）一律原样使用。
"""


def pages(root: Path = ROOT) -> dict[Path, str]:
    """What each page should say."""
    schema = load_schema(root / "config/schema.yaml")
    chinese = yaml.safe_load((root / "docs/zh/config-meanings.yaml").read_text(encoding="utf-8"))
    outputs = root / "docs/outputs.md"
    ascend = root / "docs/ascend.md"
    reruns = yaml.safe_load((root / RERUNS).read_text(encoding="utf-8"))
    tables = {contract.name: column_table(contract) for contract in (COMPARE, SUMMARY)}
    tutorial = yaml.safe_load((ROOT / "config/qwen2-vl-2b.yaml").read_text(encoding="utf-8"))
    shapes = {name: model_shape(config) for name, config in PUBLISHED.items()}
    sizes = {"sizes": table(shapes, load(tutorial, schema), (1, 30, 300))}
    scaling = [root / "docs/scaling.md", root / "docs/zh/scaling.md"]
    return {
        root / "envs/workflow.yaml": conda_environment(
            (root / "envs/hf.lock.txt").read_text(encoding="utf-8")
        ),
        **{page: filled(page.read_text(encoding="utf-8"), sizes) for page in scaling},
        root / "docs/config.md": config_reference(schema, INTRO),
        root / "docs/zh/config.md": config_reference(schema, INTRO_ZH, chinese, "zh"),
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
