"""What the users of one class send: where prompts come from, what stands before them, how long replies shall be."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import gevent
import msgspec
from msgspec import structs

from tokenswarm.options import Options, dataset, prompts
from tokenswarm.protocols.base import Generation, Message
from tokenswarm.recording.messages import Assignment
from tokenswarm.workload.ahead import Ahead
from tokenswarm.workload.dataset import Contents, Dataset
from tokenswarm.workload.order import SEQUENTIAL, SHUFFLED
from tokenswarm.workload.prompts import Prompt, PromptSource, Source, bundled_prompts
from tokenswarm.workload.synthetic import Prefix, Prefixes, Replayed, Synthetic, headed, made_unique, new_id
from tokenswarm.workload.tokenizer import Estimate, LocalTokenizer, load
from tokenswarm.workload.writing import Writer

_OF_REPLIES: Final = frozenset({"dataset_replies", "output_tokens", "ignore_eos", "temperature", "top_p"})
_OF_PROMPTS: Final = tuple(
    option.field or option.name
    for table in (dataset.OPTIONS, prompts.OPTIONS)
    for option in table
    if option.name not in _OF_REPLIES
)
"""Classes that differ in none of these take their prompts in turns from the same source."""


ALL: Final = ""
"""In the place of a class's name: those that have no options of their own."""


class Workload(NamedTuple):
    """What a class is to send: its options, and what its dataset holds, if it has one."""

    options: Options
    contents: Contents | None


@functools.lru_cache(maxsize=8)
def writer_by(tokenizer: Estimate | LocalTokenizer) -> Writer:
    """Made once, as that takes a tenth of a second. Raises WritingError."""
    return Writer(tokenizer)


class Supply:
    """An endless stream of prompts, as the options want them, and what stands before a text of the user's own."""

    def __init__(self, workload: Workload, place: Assignment, tell: Callable[[str], None], stream: str = "") -> None:
        """`stream`: what sets its draws apart from those of other classes. Raises OptionError and DatasetError."""
        options = self._options = workload.options
        self.tokenizer = load(options.tokenizer)
        self._prefixes = self._prefixes_ahead(place, stream)
        self._made: Ahead[Prompt] | None = None
        self._source: Source | None = None
        if options.input_tokens is None:
            self._source = self._questions(workload.contents, place, tell, stream)
        else:
            synthetic = Synthetic(
                writer_by(self.tokenizer),
                options.input_tokens,
                seed=options.seed,
                worker=place.worker,
                workers=place.workers,
                stream=stream,
                unique=options.unique_prompts and options.system_prompt is None,
            )
            self._made = Ahead(synthetic.next)

    def next(self) -> Prompt:
        """The next prompt. Raises DatasetError where there can be none."""
        if self._source is not None:
            return self._dressed(self._source.next())
        assert self._made is not None
        prompt = self._made.next()
        options = self._options
        if options.unique_prompts and options.system_prompt is None:
            return structs.replace(prompt, prefix_tokens=0)  # it begins with an id already
        return self._dressed(self._with_system(prompt))

    def of_length(self, line: int, tokens: int, blocks: Sequence[int] = ()) -> Prompt:
        """What an entry of a trace without a text asks, as `Replayed` makes it; the event loop goes on meanwhile.
        Raises WritingError."""
        unique = self._options.unique_prompts and self._options.system_prompt is None
        asked = line, tokens, blocks, new_id() if unique else ""
        made: Prompt = gevent.get_hub().threadpool.apply(self._replayed.prompt, asked)
        return structs.replace(made, prefix_tokens=0) if unique else self.of_trace(made)

    def of_trace(self, prompt: Prompt) -> Prompt:
        """A trace's own text as the options want it."""
        return self._dressed(self._with_system(prompt))

    def of(self, prompt: str | Prompt | Sequence[Message]) -> Prompt:
        """A user's own text as the options want it. Messages stay as they are: they may go on from others."""
        if isinstance(prompt, Prompt):
            return prompt
        if not isinstance(prompt, str):
            return Prompt("", tuple(prompt))
        system = self._options.system_prompt
        head: tuple[Message, ...] = ({"role": "system", "content": system},) if system else ()
        return self._dressed(Prompt("", (*head, {"role": "user", "content": prompt})))

    def system(self) -> tuple[str | None, int | None]:
        """The system message of a conversation, and how many of its tokens are in common with others."""
        if self._prefixes is None:
            return self._options.system_prompt, None
        prefix = self._prefixes.next()
        return prefix.text, prefix.shared

    def close(self) -> None:
        """Nothing more is asked for. Switches no greenlet."""
        for part in (self._source, self._made, self._prefixes):
            if part is not None:
                part.close()

    @functools.cached_property
    def _replayed(self) -> Replayed:
        return Replayed(writer_by(self.tokenizer), seed=self._options.seed)

    def _with_system(self, prompt: Prompt) -> Prompt:
        system = self._options.system_prompt
        if system is None:
            return prompt
        tokens = self.tokenizer.count(system)
        return headed(prompt, Prefix(system, tokens, tokens))

    def _dressed(self, prompt: Prompt) -> Prompt:
        if self._prefixes is not None:
            return headed(prompt, self._prefixes.next())
        return made_unique(prompt, self.tokenizer) if self._options.unique_prompts else prompt

    def _prefixes_ahead(self, place: Assignment, stream: str) -> Ahead[Prefix] | None:
        options = self._options
        if options.shared_prefix_tokens is None:
            return None
        prefixes = Prefixes(
            writer_by(self.tokenizer),
            options.shared_prefix_tokens,
            pool=options.prefix_pool.count,
            share=options.prefix_pool.share,
            seed=options.seed,
            worker=place.worker,
            stream=stream,
        )
        return Ahead(prefixes.next)

    def _questions(
        self, contents: Contents | None, place: Assignment, tell: Callable[[str], None], stream: str
    ) -> Source:
        options = self._options
        settings: dict[str, Any] = {
            "seed": options.seed,
            "stream": stream,
            "worker": place.worker,
            "workers": place.workers,
            "once": options.dataset_once,
            "system_prompt": options.system_prompt,
        }
        if contents is None:
            return PromptSource(bundled_prompts(), order=options.dataset_order or SHUFFLED, **settings)
        return Dataset(contents, strict=options.dataset_errors == "fail", tell=tell, **settings)


class Traffic:
    """A class's options, its supply of prompts, and the lengths that it draws."""

    def __init__(self, options: Options, supply: Supply, place: Assignment, stream: str = "") -> None:
        self.options = options
        self.supply = supply
        self._random = random.Random(f"output lengths, seed {options.seed}{stream}, worker {place.worker}")

    def generation(self, model: str, streams: bool, prompt: Prompt, changes: Mapping[str, Any]) -> Generation:
        """What is asked of the model: by the call's own changes (None: no change), else by the prompt, else by the
        options."""
        options = self.options
        given = {name: value for name, value in changes.items() if value is not None}
        if "extra_body" in given:
            given["extra_body"] = {**options.extra_body, **given["extra_body"]}
        if "max_tokens" not in given:
            given["max_tokens"] = prompt.output_tokens
            if prompt.output_tokens is None and options.output_tokens is not None:
                given["max_tokens"] = options.output_tokens.draw(self._random)
        asked = Generation(
            model=model,
            stream=options.stream and streams,
            ignore_eos=options.ignore_eos,
            temperature=options.temperature,
            top_p=options.top_p,
            extra_body=options.extra_body,
        )
        return msgspec.structs.replace(asked, **given)


def traffic_by_class(
    workloads: Mapping[str, Workload], place: Assignment, tell: Callable[[str], None]
) -> dict[str, Traffic]:
    """What users send, by the names of classes that have a workload of their own, and of `ALL` others. Raises
    OptionError and DatasetError."""
    common = workloads[ALL]
    found = {ALL: Traffic(common.options, Supply(common, place, tell), place)}
    for name, workload in workloads.items():
        if name == ALL:
            continue
        stream = f", class {name}"
        same = all(getattr(workload.options, field) == getattr(common.options, field) for field in _OF_PROMPTS)
        supply = found[ALL].supply if same else Supply(workload, place, tell, stream)
        found[name] = Traffic(workload.options, supply, place, stream)
    return found


def prepare(options: Options, own: Mapping[str, Options]) -> dict[str, Workload]:
    """Workloads by user class, `ALL` for those without `own` options: whatever could not be sent is found out here,
    before the load. Raises OptionError, DatasetError and WritingError."""
    found: dict[tuple[Any, ...], Contents | None] = {}  # classes may share a dataset, and a large one takes a while
    workloads = {}
    for name, each in {ALL: options, **own}.items():
        key = each.dataset, each.dataset_column, each.dataset_order, each.dataset_errors
        if key not in found:
            found[key] = _contents(each)
        workloads[name] = Workload(each, found[key])
    for workload in workloads.values():
        _check_lengths(workload.options)
    return workloads


def notes(workloads: Mapping[str, Workload]) -> Iterator[str]:
    """What will have no effect, as sentences."""
    for name, workload in workloads.items():
        options = workload.options
        if options.ignore_eos and options.output_tokens is None:
            who = f" of {name}" if name else ""
            yield f"--ignore-eos{who} is only for replies whose length is asked for: give --output-tokens"


def _contents(options: Options) -> Contents | None:
    """Of the dataset, if there is one. A large one takes seconds for an order that is not its own."""
    if options.dataset is None:
        return None
    return Contents(
        options.dataset,
        column=options.dataset_column,
        order=options.dataset_order or SEQUENTIAL,
        strict=options.dataset_errors == "fail",
    )


def _check_lengths(options: Options) -> None:
    """Raises OptionError on a file that is no tokenizer, and WritingError on a length that no text has."""
    tokenizer = load(options.tokenizer)
    draws = random.Random("check")
    start = new_id() if options.unique_prompts and options.system_prompt is None else ""
    if options.input_tokens is not None:
        writer_by(tokenizer).text(options.input_tokens.least, draws, start)
    if options.shared_prefix_tokens is not None:
        fresh = new_id() if options.prefix_pool.share < 1 else ""
        writer_by(tokenizer).text(options.shared_prefix_tokens, draws, fresh)
