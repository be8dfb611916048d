"""What a Python has: its version, and those of packages. Standard library only.

python versions.py PACKAGE...
"""

import json
import platform
import sys
from importlib import metadata


def main(packages):
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    print(json.dumps({"python": platform.python_version(), "packages": found}))


if __name__ == "__main__":
    main(sys.argv[1:])
