"""What a Python has: versions, whether packages are whole, and what imports.

This is a program for the framework's Python (3.8 or newer; standard library only), run as

    python probe.py packages | imports MODULE...

It prints one JSON object on a line of its own, after whatever the imports print.
"""

import json
import os
import platform
import sys
import time
from importlib import import_module, metadata, util

MARK = "mindtune-probe:"


def packages():
    """Each installed distribution: version, files that are missing or cut, and where it points."""
    found = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if not name or name in found:
            continue
        found[name] = {
            "version": distribution.version,
            "damaged": damaged(distribution),
            "url": json.loads(distribution.read_text("direct_url.json") or "{}").get("url"),
        }
    return found


def damaged(distribution):
    """The first of its files that isn't there in full; pip writes the list of them last."""
    if distribution.read_text("RECORD") is None:
        return "RECORD"
    for path in distribution.files or ():
        if path.suffix == ".pyc" or path.size is None:
            continue
        try:
            size = path.locate().stat().st_size
        except OSError:
            return str(path)
        if size != path.size:
            return str(path)
    return None


def place(module):
    """The directory in which a top-level module lies, without running it."""
    try:
        spec = util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    return next(iter(spec.submodule_search_locations or ()), spec.origin)


def imported(module):
    """None, or why a module can't be imported."""
    try:
        import_module(module)
    except BaseException as error:  # a broken native library raises all sorts
        return f"{type(error).__name__}: {error}"
    return None


def devices():
    """How many NPUs torch_npu sees; None where that can't be asked."""
    try:
        return sys.modules["torch_npu"].npu.device_count()
    except (KeyError, AttributeError, RuntimeError):
        return None


def main(arguments):
    sys.path.pop(0)  # this file's own directory
    found = {
        "python": platform.python_version(),
        "executable": sys.executable,
        "machine": platform.machine(),
    }
    if arguments[0] == "packages":
        found["packages"] = packages()
        found["places"] = {name: place(name) for name in arguments[1:]}
    else:
        start = time.time()
        found["imports"] = {name: imported(name) for name in arguments[1:]}
        found["seconds"] = round(time.time() - start, 1)
        found["devices"] = devices()
    print(MARK + json.dumps(found), flush=True)
    os._exit(0)  # native libraries that are half there can hang on the way out


if __name__ == "__main__":
    main(sys.argv[1:])
