"""Two nested tables held against each other."""

from __future__ import annotations

from typing import Any


def differences(found: Any, expected: Any, where: str, within: float = 1e-6) -> list[str]:
    """Where two tables differ, a line each; numbers may by a share of `within`, and instants by a millisecond."""
    if isinstance(expected, dict) and isinstance(found, dict):
        odd = [f"{where}.{key}: only one has it" for key in sorted(found.keys() ^ expected.keys())]
        both = [key for key in expected if key in found]
        return odd + [line for k in both for line in differences(found[k], expected[k], f"{where}.{k}", within)]
    if isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        pairs = enumerate(zip(found, expected, strict=True))
        return [line for i, (one, two) in pairs for line in differences(one, two, f"{where}[{i}]", within)]
    if isinstance(expected, int | float) and isinstance(found, int | float) and not isinstance(expected, bool):
        same = abs(found - expected) <= within * min(abs(expected), 1000) + 1e-9
    else:
        same = found == expected
    return [] if same else [f"{where} is {found!r}, not {expected!r}"]
