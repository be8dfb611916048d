"""Doing something when a module has been imported, without importing it."""

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType


class _AfterImport(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads a module as it would be loaded anyway, then calls `action` with it."""

    def __init__(self, name: str, action: Callable[[ModuleType], None]) -> None:
        self.name = name
        self.action = action
        self.loader = None

    def find_spec(self, name, path=None, target=None):
        if name != self.name or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None:
            self.loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module) -> None:
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        self.action(module)


def after_import(name: str, action: Callable[[ModuleType], None]) -> None:
    """Call `action` with the module `name` as soon as it has been imported.

    The module must not have been imported yet.
    """
    sys.meta_path.insert(0, _AfterImport(name, action))
