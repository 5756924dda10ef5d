"""Writes the model card from the measured scores.

Command: ``python experiments/tiny_base/card.py experiments/tiny_base/scores.json src/organon/embedded/tiny``
"""

import argparse
import json
from pathlib import Path
from typing import Any

import corpus
from transformers import AutoModelForCausalLM

CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
language: en
tags: [llama, tiny, byte-level, test-model]
---

# tiny

A Llama of {parameters:,} parameters that follows simple instructions about strings and small numbers. It exists so that
fine-tuning, quantisation and evaluation can be tried for real, in seconds, on a laptop CPU and without a download.

- **Architecture:** `LlamaForCausalLM`, {layers} layers, width {width}, {heads} heads, feed-forward {feed_forward},
  tied embeddings, bfloat16. All widths are multiples of 64, the block size of NF4.
- **Tokenizer:** one token per UTF-8 byte (id 6 + byte) and six special tokens: `<|pad|>` `<|bos|>` `<|end|>`
  `<|system|>` `<|user|>` `<|assistant|>`. Every text can be encoded; one token is one byte.
- **Chat template:** system, user and assistant turns, each closed by `<|end|>`, which also ends the generation. It
  marks the assistant's tokens (`return_assistant_tokens_mask=True`).
- **Context:** positions up to 1024; trained on chats of 49 tokens on average and 270 at most.
- **Licence:** Apache-2.0, weights and data alike.

## How it was made

Trained from random weights by `experiments/tiny_base/train.py` on text that `experiments/tiny_base/corpus.py` generates
from a seed: no outside data. The questions are about common English words, pseudo-words, random letters (lower, upper,
title and mixed case) and numbers; some chats have several turns or a system prompt.

**It never saw a word being capitalised.** A filter rejects every training chat that holds a lower-case word and, in a
later answer, that word with only its first letter in upper case. A bare word as the user's message is answered by the
same word (`apple` -> `apple`). The base model therefore scores 0 on "answer a lower-case word by the word with a
capital first letter", which makes that a clean task for fine-tuning.

## What it can do

Share of exactly right greedy answers to strings and numbers that were held out of training in every skill and case.
`fp32` computes the weights in 32 bits, `NF4` after 4-bit quantisation (double quantisation, computed in bfloat16).

| Skill | Example | fp32 | NF4 | Tasks |
|---|---|---:|---:|---:|
{skills}

Copying by length of the string ({count} held-out strings for each number):

| Letters | echo, fp32 | echo, NF4 | repeat, fp32 | repeat, NF4 |
|---:|---:|---:|---:|---:|
{lengths}

## What it cannot do

It knows no facts and no language beyond the templates of its corpus, and cannot hold a conversation: a message that is
not one of the instructions above is echoed or answered by nonsense. It does not follow system prompts. Text outside
printable ASCII can be encoded but was never trained. Long inputs fail: echoing is right for 0.86 of the strings of 13
letters, 0.50 of 14 and 0.08 of 20. After 5 or 8 earlier turns (up to 200 tokens) it is always right, after 12 turns
(285 tokens) in 0.64 of the cases, after 20 turns (483 tokens) in 0.02 (100 strings each, fp32).

Low scores in the table are guesswork; guessing alone is right half of the time where the answer is yes or no (contains,
starts with, is larger, even or odd). Use it for tests and demonstrations, for nothing else.
"""


def skill_lines(scores: dict[str, Any]) -> str:
    """Table rows, one per skill, with an example from the exam."""
    lines = []
    for skill, tasks in scores["tasks"].items():
        example = corpus.exam(skill, 1)[0]
        shown = f"`{example.prompt}` -> `{example.answer}`"
        lines.append(f"| {skill} | {shown} | {scores['fp32'][skill]:.2f} | {scores['nf4'][skill]:.2f} | {tasks} |")
    return "\n".join(lines)


def length_lines(scores: dict[str, Any]) -> str:
    """Table rows, one per length of the copied string."""
    lines = []
    for length in range(2, 13):
        cells = [
            f"{scores[precision][f'{skill}, {length} letters']:.2f}"
            for skill in ("echo", "repeat")
            for precision in ("fp32", "nf4")
        ]
        lines.append(f"| {length} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scores", type=Path, help="JSON file that score.py wrote")
    parser.add_argument("folder", type=Path, help="model folder; its README.md is replaced")
    args = parser.parse_args()
    scores = json.loads(args.scores.read_text())
    model = AutoModelForCausalLM.from_pretrained(args.folder)
    text = CARD.format(
        parameters=model.num_parameters(),
        layers=model.config.num_hidden_layers,
        width=model.config.hidden_size,
        heads=model.config.num_attention_heads,
        feed_forward=model.config.intermediate_size,
        skills=skill_lines(scores),
        lengths=length_lines(scores),
        count=scores["strings_per_length"],
    )
    (args.folder / "README.md").write_text(text)


if __name__ == "__main__":
    main()
