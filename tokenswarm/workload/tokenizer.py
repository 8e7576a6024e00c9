"""How many tokens a text has: told by a local tokenizer.json, or estimated. Never downloads anything."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from tokenswarm.errors import OptionError
from tokenswarm.protocols.values import BYTES_PER_TOKEN

TOKENIZER_FILE: Final = "tokenizer.json"
INSTALL: Final = "pip install 'tokenizers>=0.21'"


class Tokenizer(Protocol):
    """Counts the tokens of texts, without any that mark their beginning or end."""

    exact: bool
    """False where it estimates."""

    def count(self, text: str) -> int:
        """Tokens in one text."""

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens in each of the texts."""


class Estimate:
    """Four bytes of UTF-8 a token: about right for English; a Chinese character comes out as three quarters of one."""

    exact = False

    def count(self, text: str) -> int:
        """As `Tokenizer` has it; rounded up."""
        return -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN)

    def counts(self, texts: Sequence[str]) -> list[int]:
        """As `Tokenizer` has it."""
        return [self.count(text) for text in texts]


class LocalTokenizer:
    """A `tokenizer.json`, as Hugging Face's tokenizers read it; safe to use from any thread."""

    exact = True

    def __init__(self, data: bytes) -> None:
        """Raises ImportError without the package, ValueError on what is no tokenizer."""
        # Before the package is loaded: its own threads do not outlive a fork, and a load test needs its cores itself.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import tokenizers

        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_buffer(data)
        except Exception as error:  # it has no class of its own for this
            raise ValueError(str(error)) from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def count(self, text: str) -> int:
        """As `Tokenizer` has it."""
        return self.counts([text])[0]

    def counts(self, texts: Sequence[str]) -> list[int]:
        """As `Tokenizer` has it. A batch, even of one: only that lets other threads run meanwhile."""
        found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(encoding) for encoding in found]


def tokenizer_file(path: str) -> Path:
    """The file that a file's or a directory's path means. Raises OptionError if there is none."""
    given = Path(path)
    found = given / TOKENIZER_FILE if given.is_dir() else given
    if not found.is_file():
        raise OptionError(f"there is no {found}; it wants a model's {TOKENIZER_FILE}, or the directory that holds it")
    return found


ESTIMATE: Final = Estimate()


def load(path: str | None) -> Estimate | LocalTokenizer:
    """The tokenizer in this file or directory; None: the estimate. Raises OptionError, naming the option."""
    if path is None:
        return ESTIMATE
    try:
        file = tokenizer_file(path)
        return _load(file, file.stat().st_mtime_ns)
    except ImportError:
        raise OptionError(f"--tokenizer needs the package tokenizers, which is not installed: {INSTALL}") from None
    except OSError as error:
        raise OptionError(f"--tokenizer {path}: {error.strerror}") from None
    except OptionError as error:
        raise OptionError(f"--tokenizer {path}: {error}") from None
    except ValueError as error:
        raise OptionError(f"--tokenizer {path}: not a {TOKENIZER_FILE} of Hugging Face's: {error}") from None


@functools.lru_cache(maxsize=4)
def _load(file: Path, modified: int) -> LocalTokenizer:
    """Once for each state of the file: one of a large model takes a second, and is asked for at every start."""
    return LocalTokenizer(file.read_bytes())
