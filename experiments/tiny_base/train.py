"""Trains the embedded base model from random weights on the generated corpus.

Command: ``python experiments/tiny_base/train.py --out src/organon/embedded/tiny``

With a given number of steps and threads the result is the same on every run of one machine. ``--minutes`` only caps the
time: when it bites, the learning rate falls to zero by the clock instead of by the step count.
"""

import argparse
import json
import math
import shutil
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random

import corpus
import tokenizer
import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

Batch = tuple[torch.Tensor, torch.Tensor]  # ids and loss weights, both (rows, length)


def config() -> LlamaConfig:
    """About 1.3 million parameters; every width is a multiple of 64, the block size of NF4."""
    return LlamaConfig(
        vocab_size=tokenizer.VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        initializer_range=0.04,
        attention_dropout=0.0,
        pad_token_id=tokenizer.SPECIAL.index(tokenizer.PAD),
        bos_token_id=tokenizer.SPECIAL.index(tokenizer.BOS),
        eos_token_id=tokenizer.SPECIAL.index(tokenizer.END),
    )


def batches(seed: int, tokens: int, copy_phase: int, prompt_weight: float) -> Iterator[Batch]:
    """Batches of about ``tokens`` tokens with rows of similar length; the first ``copy_phase`` batches favour copying.

    A pool of rows is sorted by length, cut into batches and shuffled, which leaves little padding.
    """
    given = 0
    for pool in count():
        share = 0.7 if given < copy_phase else 0.0
        encoded = [tokenizer.encode(corpus.row(seed, pool * 2048 + index, share)) for index in range(2048)]
        encoded.sort(key=lambda pair: len(pair[0]))
        cut: list[list[tuple[list[int], list[int]]]] = [[]]
        for pair in encoded:
            if cut[-1] and (len(cut[-1]) + 1) * len(pair[0]) > tokens:
                cut.append([])
            cut[-1].append(pair)
        Random(f"{seed}/{pool}").shuffle(cut)
        for group in cut:
            length = max(len(ids) for ids, _ in group)
            ids = torch.full((len(group), length), tokenizer.SPECIAL.index(tokenizer.PAD))
            weights = torch.zeros(len(group), length)
            for line, (row, mask) in enumerate(group):
                ids[line, : len(row)] = torch.tensor(row)
                weights[line, : len(row)] = torch.tensor(mask).clamp(min=prompt_weight)
            given += 1
            yield ids, weights


def loss_of(model: LlamaForCausalLM, batch: Batch) -> tuple[torch.Tensor, float]:
    """Weighted mean cross-entropy in nats per token, and the same on the answers alone."""
    ids, weights = batch[0], batch[1][:, 1:]
    # Padding stands on the right, so the causal mask alone keeps it out of every real token's view.
    logits = model(ids, use_cache=False).logits[:, :-1].float()
    losses = cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    answers = weights == 1
    return (losses * weights).sum() / weights.sum(), float(losses[answers].detach().mean())


def samples(model: LlamaForCausalLM) -> str:
    """Greedy answers to a few fixed questions, to see early whether the training fails."""
    chat = tokenizer.build()
    shown = []
    for prompt in ("quarbel", "Repeat: zxwvut", "Spell Bonk", "Reverse abcde", "Upper case: mopet", "What is 7 + 8?"):
        ids = chat.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        out = model.generate(**ids, max_new_tokens=20, do_sample=False)
        shown.append(f"{prompt} -> {chat.decode(out[0, ids['input_ids'].shape[1] :], skip_special_tokens=True)}")
    return " | ".join(shown)


def write(model: LlamaForCausalLM, out: Path) -> None:
    """Puts the model folder at ``out`` in one step, so that a reader never sees half of it."""
    fresh, old = out.with_name(out.name + ".new"), out.with_name(out.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    copy = LlamaForCausalLM(model.config).to(torch.bfloat16)
    copy.load_state_dict(model.state_dict())
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    copy.generation_config.update(**ids, do_sample=False, max_new_tokens=64)
    copy.save_pretrained(fresh)
    (fresh / "model.safetensors").chmod(0o644)
    tokenizer.save(fresh)
    if (out / "README.md").exists():
        shutil.copy(out / "README.md", fresh)
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model; replaced when it exists")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--minutes", type=float, default=math.inf, help="upper limit of the training time")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens per step, padding included")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="a second one gains little on matrices this small")
    parser.add_argument("--log-every", type=int, default=100, help="steps between two lines of the log")
    parser.add_argument("--save-every", type=int, default=0, help="steps between two saves; 0 saves at the end only")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(args.seed)
    model = LlamaForCausalLM(config())
    # On short rows and a CPU the plain attention trains half as fast again as the fused one, whose backward is slow.
    model.set_attn_implementation("eager")
    matrices = [p for p in model.parameters() if p.ndim > 1]
    gains = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), fused=True)
    print(f"parameters {model.num_parameters()}", flush=True)

    start, seen, step, progress = time.perf_counter(), 0, 0, 0.0
    answers: list[float] = []
    for batch in batches(args.seed, args.tokens, copy_phase=args.steps // 5, prompt_weight=0.03):
        minutes = (time.perf_counter() - start) / 60
        progress = max(step / args.steps, minutes / args.minutes)
        if progress >= 1:
            break
        warmup = min(1.0, (step + 1) / 100)
        for group in optimizer.param_groups:
            group["lr"] = args.lr * warmup * (0.02 + 0.98 * (1 + math.cos(math.pi * progress)) / 2)
        with torch.autocast("cpu", torch.bfloat16):
            loss, answer_loss = loss_of(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step, seen = step + 1, seen + batch[0].numel()
        answers.append(answer_loss)
        if step % args.log_every == 0:
            seconds = time.perf_counter() - start
            record = {"step": step, "seconds": round(seconds), "tokens_per_second": round(seen / seconds)}
            recent = answers[-args.log_every :]
            print(json.dumps(record | {"answer_loss": round(sum(recent) / len(recent), 4)}), flush=True)
        if step % (5 * args.log_every) == 0:
            print("   " + samples(model), flush=True)
        if args.save_every and step % args.save_every == 0:
            write(model, args.out)
    write(model, args.out)
    print(json.dumps({"steps": step, "tokens": seen, "minutes": round((time.perf_counter() - start) / 60, 2)}))


if __name__ == "__main__":
    main()
