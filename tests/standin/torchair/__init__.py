"""torchair's names: MindSpeed's builders of operators import them, for graphs never built here."""

import sys
import types


class _Anything:
    """Can be called, indexed and subclassed, as decorators and annotations of builders do."""

    def __init__(self, *args, **kwargs) -> None:
        pass

    def __call__(self, *args, **kwargs):
        return self

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()

    def __getitem__(self, key):
        return _Anything()


class _Module(types.ModuleType):
    """A module any of whose names exists."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything


def register_fx_node_ge_converter(*args, **kwargs):
    return lambda function: function


ge = sys.modules["torchair.ge"] = _Module("torchair.ge")


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return _Anything
