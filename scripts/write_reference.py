"""Write the parts of docs/ that are made from the schema, the tables' contract and models' shapes.

    python scripts/write_reference.py          # writes them
    python scripts/write_reference.py --check  # says which are out of date, exit status 1

config/schema.yaml, docs/zh/config-meanings.yaml -> docs/config.md, docs/zh/config.md
mindtune.comparison.contract                     -> the tables in docs/outputs.md
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
from mindtune.files import writing
from mindtune.reference import column_table, config_reference, filled
from mindtune.scale import PUBLISHED, table

ROOT = Path(__file__).resolve().parents[1]
INTRO = """# Every key of the configuration

Made from [config/schema.yaml](../config/schema.yaml) by `python scripts/write_reference.py`;
change the schema, not this page. A key that isn't here is refused. The defaults are the
tutorial's values; [config/config.yaml](../config/config.yaml) sets the demo's.
"""
INTRO_ZH = """# 全部配置项

本页由 `python scripts/write_reference.py` 根据 [config/schema.yaml](../../config/schema.yaml)
和 [config-meanings.yaml](config-meanings.yaml) 生成，请勿直接修改。这里没有列出的键会被拒绝。
默认值取自教程；内置演示所用的值写在 [config/config.yaml](../../config/config.yaml) 中。
"""


def pages(root: Path = ROOT) -> dict[Path, str]:
    """What each page should say."""
    schema = load_schema(root / "config/schema.yaml")
    chinese = yaml.safe_load((root / "docs/zh/config-meanings.yaml").read_text(encoding="utf-8"))
    outputs = root / "docs/outputs.md"
    tables = {contract.name: column_table(contract) for contract in (COMPARE, SUMMARY)}
    tutorial = yaml.safe_load((ROOT / "config/qwen2-vl-2b.yaml").read_text(encoding="utf-8"))
    shapes = {name: model_shape(config) for name, config in PUBLISHED.items()}
    sizes = {"sizes": table(shapes, load(tutorial, schema), (1, 30, 300))}
    scaling = [root / "docs/scaling.md", root / "docs/zh/scaling.md"]
    return {
        **{page: filled(page.read_text(encoding="utf-8"), sizes) for page in scaling},
        root / "docs/config.md": config_reference(schema, INTRO),
        root / "docs/zh/config.md": config_reference(schema, INTRO_ZH, chinese, "zh"),
        outputs: filled(outputs.read_text(encoding="utf-8"), tables),
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
