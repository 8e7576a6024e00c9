"""Who may read: HTTP basic authentication against a file as `htpasswd -B` writes it, bcrypt only."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import threading
from pathlib import Path
from typing import Final

import bcrypt

_NOBODY: Final = bcrypt.hashpw(b"", bcrypt.gensalt(10))
"""Checked for names that there are not, so that these take as long as a wrong password."""
_LONGEST: Final = 72
"""Bytes of a password that bcrypt looks at; longer ones are refused by the library."""


class Passwords:
    """Users and the hashes of their passwords. Raises OSError, or ValueError with the line that is wrong."""

    def __init__(self, path: Path) -> None:
        self._hashes: dict[bytes, bytes] = {}
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if line.strip() and not line.startswith(b"#"):
                user, colon, hashed = line.strip().partition(b":")
                if not (user and colon and _is_bcrypt(hashed)):
                    raise ValueError(
                        f"line {number} is not NAME:HASH with a bcrypt hash, as `htpasswd -nB NAME` prints it"
                    )
                self._hashes[user] = hashed
        if not self._hashes:
            raise ValueError("there is no user in it")
        # bcrypt is slow on purpose, and a scraper sends the same header every second: what was right is remembered,
        # as a keyed digest. One check at a time, so that guesses cost at most one core.
        self._key = os.urandom(32)
        self._right: set[bytes] = set()
        self._checking = threading.Lock()

    def allow(self, header: str | None) -> bool:
        """Whether an Authorization header names a user and the right password."""
        if header is None:
            return False
        digest = hmac.digest(self._key, header.encode("utf-8", "surrogateescape"), hashlib.sha256)
        if digest in self._right:
            return True
        pair = _decode(header)
        if pair is None:
            return False
        user, password = pair
        with self._checking:
            right = bcrypt.checkpw(password[:_LONGEST], self._hashes.get(user, _NOBODY))
        if right and user in self._hashes and len(password) <= _LONGEST:
            self._right.add(digest)
            return True
        return False


def _is_bcrypt(hashed: bytes) -> bool:
    try:
        bcrypt.checkpw(b"", hashed)
    except ValueError:
        return False
    return True


def _decode(header: str) -> tuple[bytes, bytes] | None:
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(text.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if colon and b"\0" not in password else None
