"""The languages of reports. Texts stand in the code in English; a catalogue has each of them in another language.

say("{ok} of {due} requests", ok="12", due="14")        "14 个请求中 12 个成功"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tokenswarm.results.language import chinese


@dataclass(frozen=True)
class Language:
    """A call gives a text in this language, its `{places}` filled. What the catalogue lacks stays English."""

    code: str
    """As in HTML's `lang`."""
    catalogue: Mapping[str, str] = field(repr=False)

    def __call__(self, text: str, /, **values: object) -> str:
        found = self.catalogue.get(text, text)
        return found.format_map(values) if values else found


ENGLISH: Final = Language("en", {})
LANGUAGES: Final[Mapping[str, Language]] = {"en": ENGLISH, "zh": Language("zh", chinese.CATALOGUE)}
"""By the name that `--lang` has for them."""
