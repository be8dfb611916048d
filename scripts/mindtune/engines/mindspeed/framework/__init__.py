"""The framework MindSpeed-MM: pinned, installed or checked, and the machine that it runs on.

`pins` says what belongs together, `installing` brings it about in an environment of its own,
`checking` holds an installation against the pins, and `doctor` looks at the machine as well. The
framework has its own Python; everything about it is asked by `probe`, a program for that Python.
"""
