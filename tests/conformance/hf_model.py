"""Writes a Llama of random weights with its tokenizer, as transformers saves them: `python hf_model.py FOLDER`.

Runs in a server's own environment: what one version of transformers saves, another may not read.
"""

from __future__ import annotations

import string
import sys

VOCABULARY = 512
LETTERS = 94
"""Tokens of one printable character of ASCII; they come first in the vocabulary, after the special ones."""
CONTEXT = 8192
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def main(folder: str) -> None:
    """Some 5 MB; the same each time."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    pad, begin, end = special = ["<pad>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet)
    pairs = (a + b for a in string.ascii_lowercase for b in "aeiou")
    tokenizer.train_from_iterator([" ".join(pairs)], trainer)
    names = {"pad_token": pad, "bos_token": begin, "eos_token": end}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=TEMPLATE, **names).save_pretrained(folder)

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,  # 4 heads of 64: vLLM's kernels know no smaller ones
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    # What cannot be seen is rare: special tokens, the last of which ends the reply, and bytes that are no letters.
    letters = range(len(special), len(special) + LETTERS)
    unseen = [number for number in range(len(special) + len(alphabet)) if number not in letters]
    model.lm_head.weight.data[unseen] = 0.0
    model.save_pretrained(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
