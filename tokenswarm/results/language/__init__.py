"""The languages of reports. Texts stand in the code in English; a catalogue has each of them in another language.

say("{ok} of {due} requests", ok="12", due="14")        "14 个请求中 12 个成功"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Final

from tokenswarm.results.language import chinese

_PLACE: Final = re.compile(r"\\\{(\w+)\\\}")


@dataclass(frozen=True)
class Language:
    """A call gives a text in this language, its `{places}` filled. What the catalogue lacks stays English."""

    code: str
    """As in HTML's `lang`."""
    catalogue: Mapping[str, str] = field(repr=False)
    recorded: Mapping[str, str] = field(repr=False, default_factory=dict)
    """Of sentences that summary.json has, with their places filled."""

    def __call__(self, text: str, /, **values: object) -> str:
        found = self.catalogue.get(text, text)
        return found.format_map(values) if values else found

    def again(self, sentence: str) -> str:
        """A sentence of summary.json in this language, and so what stands in its places. What nobody knows stays."""
        for template, translated in self.recorded.items():
            if found := _pattern(template).fullmatch(sentence):
                return translated.format_map({name: self.again(text) for name, text in found.groupdict().items()})
        return sentence


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(_PLACE.sub(r"(?P<\1>.+?)", re.escape(template)), re.DOTALL)


ENGLISH: Final = Language("en", {})
LANGUAGES: Final[Mapping[str, Language]] = {
    "en": ENGLISH,
    "zh": Language("zh", chinese.CATALOGUE, chinese.RECORDED),
}
"""By the name that `--lang` has for them."""
