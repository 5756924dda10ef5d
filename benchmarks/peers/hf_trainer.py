"""The plain Hugging Face Trainer with peft: ``python hf_trainer.py job.json``. Variants: ``default``, ``grouped``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(sys.argv[1]).parent
    import torch
    from common import log_steps
    from datasets import load_dataset
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    torch.set_num_threads(job["threads"])
    set_seed(job["seed"])
    tokenizer = AutoTokenizer.from_pretrained(job["model"])

    def encode(row: dict, length: int) -> dict:
        found = tokenizer.apply_chat_template(row["messages"], return_dict=True, return_assistant_tokens_mask=True)
        ids, trained = found["input_ids"][:length], found["assistant_masks"][:length]
        labels = [token if on else -100 for token, on in zip(ids, trained, strict=True)]
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels, "length": len(ids)}

    data = load_dataset("json", data_files=job["data"], split="train")
    data = data.map(encode, fn_kwargs={"length": job["max_length"]}, remove_columns=data.column_names)
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, job.get("weights") or "float32"))
    lora = LoraConfig(r=job["rank"], lora_alpha=2 * job["rank"], target_modules="all-linear", task_type="CAUSAL_LM")
    grouped = job["variant"] == "grouped"
    trainer = Trainer(
        model=get_peft_model(model, lora),
        args=TrainingArguments(
            output_dir=str(folder / "out"),
            per_device_train_batch_size=job["batch"],
            num_train_epochs=1,
            learning_rate=job["learning_rate"],
            bf16=job["precision"] == "bf16",
            use_cpu=job["device"] == "cpu",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=job["seed"],
            train_sampling_strategy="group_by_length" if grouped else "random",
        ),
        train_dataset=data,
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
        processing_class=tokenizer,
    )
    log_steps(trainer, folder)
    trainer.train()


if __name__ == "__main__":
    main()
