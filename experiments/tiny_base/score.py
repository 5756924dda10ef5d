"""Measures the base model: greedy exact match per skill on held-out strings and numbers, in fp32 and in NF4.

Command: ``python experiments/tiny_base/score.py src/organon/embedded/tiny --out scores.json``
"""

import argparse
import json
from pathlib import Path
from random import Random

import corpus
import torch
from skills import SKILLS, Task
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from words import any_word


def load(folder: Path, precision: str) -> PreTrainedModel:
    """The model with its weights in ``fp32`` or in 4-bit blocks (``nf4``, computed in bfloat16)."""
    if precision == "fp32":
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, quantization_config=quantization)
    disable_cpu_kernel(model)
    return model.eval()


def disable_cpu_kernel(model: torch.nn.Module) -> None:
    """Turns off the AVX512-BF16 kernel of bitsandbytes.

    The first pass in evaluation mode repacks the weights for it; after that most gradients of a fine-tuning are zero.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.__dict__["support_avx512bf16_for_cpu"] = False


def answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], batch: int = 100
) -> list[str]:
    """Greedy answers to single user messages, in the order of ``prompts``."""
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers = [""] * len(prompts)
    for start in range(0, len(order), batch):
        group = order[start : start + batch]
        chats = [[{"role": "user", "content": prompts[index]}] for index in group]
        inputs = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            out = model.generate(**inputs, do_sample=False, max_new_tokens=40)
        texts = tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for index, text in zip(group, texts, strict=True):
            answers[index] = text
    return answers


def accuracy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tasks: list[Task]) -> float:
    """Share of the tasks whose answer is exactly right."""
    given = answer(model, tokenizer, [task.prompt for task in tasks])
    return sum(text == task.answer for text, task in zip(given, tasks, strict=True)) / len(tasks)


def copies(length: int, count: int, template: str = "{}") -> list[Task]:
    """Held-out strings of one length to copy, in every case: bare (echo) or inside a template."""
    rng = Random(f"copies/{length}")
    tasks: list[Task] = []
    while len(tasks) < count:
        word = any_word(rng, length, length)
        task = Task(template.format(word), word, word.lower())
        if corpus.held_out(task):
            tasks.append(task)
    return tasks


def score(folder: Path, precision: str, count: int) -> dict[str, float]:
    """Accuracy per skill, and of copying per length of the string."""
    model, tokenizer = load(folder, precision), AutoTokenizer.from_pretrained(folder)
    scores = {skill: accuracy(model, tokenizer, corpus.exam(skill, count)) for skill in SKILLS}
    for length in range(2, 13):
        scores[f"echo, {length} letters"] = accuracy(model, tokenizer, copies(length, count))
        scores[f"repeat, {length} letters"] = accuracy(model, tokenizer, copies(length, count, "Repeat: {}"))
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=300, help="tasks per skill, fewer where fewer are held out")
    parser.add_argument("--out", type=Path, help="JSON file for the scores")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result: dict[str, object] = {precision: score(args.folder, precision, args.count) for precision in ("fp32", "nf4")}
    result["tasks"] = {skill: len(corpus.exam(skill, args.count)) for skill in SKILLS}
    result["strings_per_length"] = args.count
    text = json.dumps(result, indent=1)
    if args.out:
        args.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
