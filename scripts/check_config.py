#!/usr/bin/env python3
"""Say all mistakes of configuration files, with file and line, before Snakemake reads them.

    python scripts/check_config.py [FILE …]     # config/config.yaml where none is named

Several files count one over the other, as with --configfile. Nothing is run or written, and no
template in a file is executed. The exit status is 1 where there is a mistake.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from mindtune.errors import UserError
from mindtune.glue.settings_reading import check_files

TABLE = Path(__file__).resolve().parents[1] / "config" / "data_sources.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "files", nargs="*", type=Path, default=[Path("config/config.yaml")], metavar="FILE"
    )
    files = parser.parse_args(arguments).files
    try:
        configuration = check_files(files, TABLE)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Nothing is wrong; the experiments: {', '.join(configuration.experiments)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
