"""Small tokenizers of the kinds that models have, trained here: nothing can be downloaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tokenswarm.workload.prompts import bundled_questions

_ALPHABET = pre_tokenizers.ByteLevel.alphabet()
_SPECIAL = ["<s>", "</s>", "<unk>"]
_GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)


def _texts() -> list[str]:
    return [question.prompt for question in bundled_questions()]


def _bpe(**settings: Any) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(show_progress=False, **settings)


def byte_level_bpe() -> Tokenizer:
    """As GPT-2's."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.train_from_iterator(_texts(), _bpe(vocab_size=2000, initial_alphabet=_ALPHABET))
    return made


def split_bpe() -> Tokenizer:
    """As Llama 3's and Qwen's: a pattern cuts first; and it puts a mark before each text that is encoded as one."""
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_GPT4), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = _bpe(vocab_size=3000, initial_alphabet=_ALPHABET, special_tokens=_SPECIAL)
    made.train_from_iterator(_texts(), trainer)
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return made


def sentencepiece_bpe() -> Tokenizer:
    """As Llama 2's: nothing cuts, so merges may cross the words."""
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.train_from_iterator(_texts(), _bpe(vocab_size=2500, special_tokens=_SPECIAL))
    made.decoder = decoders.Metaspace()
    return made


def unigram() -> Tokenizer:
    """As T5's, which knows no Chinese."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    english = [text for text in _texts() if text.isascii()]
    trainer = trainers.UnigramTrainer(show_progress=False, vocab_size=1000, special_tokens=_SPECIAL, unk_token="<unk>")
    made.train_from_iterator(english, trainer)
    return made


def word_piece() -> Tokenizer:
    """As BERT's: lower case, and a word that it does not know is one token."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(
        _texts(), trainers.WordPieceTrainer(show_progress=False, vocab_size=900, special_tokens=["[UNK]", "[CLS]"])
    )
    made.enable_truncation(64)
    made.enable_padding(length=32)
    return made


def letters() -> Tokenizer:
    """As ByT5's: no word is one token."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.train_from_iterator(_texts(), _bpe(vocab_size=256, initial_alphabet=_ALPHABET))
    return made


KINDS: Mapping[str, Callable[[], Tokenizer]] = {
    made.__name__: made for made in (byte_level_bpe, split_bpe, sentencepiece_bpe, unigram, word_piece, letters)
}


def tokenizer_json(kind: str, folder: Path) -> Path:
    """Written there as the file that a model comes with."""
    path = folder / "tokenizer.json"
    KINDS[kind]().save(str(path))
    return path
