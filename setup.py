"""The one thing that pyproject.toml cannot say: the native receive thread, where there is epoll and a C compiler.

Without either the package installs all the same and reads its sockets from Python.
"""

import sys

from setuptools import Extension, setup

FOLDER = "tokenswarm/transport/"

receiver = Extension(
    "tokenswarm.transport._receiver",
    [FOLDER + "receiver.c", FOLDER + "receivermodule.c"],
    depends=[FOLDER + name for name in ("bell.h", "clocks.h", "receiver.h", "ring.h", "slots.h")],
    extra_compile_args=["-std=c11", "-Wall", "-Wextra", "-pthread", "-fvisibility=hidden"],
    extra_link_args=["-pthread"],
    py_limited_api=True,
    optional=True,
)

setup(
    ext_modules=[receiver] if sys.platform == "linux" else [],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
