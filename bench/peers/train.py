"""Trains a sentence encoder with PEFT's LoRA over pairs in the order of the file, one JSON line an optimiser step.

Without options it does what the article's script does: each side of a batch padded to the greatest length and sent
through the model by itself, plain Adam, float32. The options are what can be done about its speed without changing
the gradient: the loss is a mean over independent pairs, so a batch may be sorted and cut as one likes.
"""

import argparse
import csv
import json

import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoModel, AutoTokenizer


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--max_length", type=int, default=70)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--padding", choices=["max", "longest"], default="max")
    parser.add_argument("--joined", action="store_true", help="both sides of the pairs in one pass")
    parser.add_argument("--micro", type=int, default=0, help="sort a batch by length and cut it into this many pairs")
    parser.add_argument("--cut", choices=["pairs", "texts"], default="pairs", help="what is sorted and cut")
    parser.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--bf16", action="store_true", help="autocast")
    parser.add_argument("--threads", type=int, default=0)
    return parser.parse_args()


def read_pairs(path, tokenizer, max_length):
    """Token ids of both sides and the labels; the tokenizer's time is not the step's."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))

    def ids(column):
        texts = ["query: " + row[column] for row in rows]
        return tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]

    return ids("question1"), ids("question2"), [float(row["is_duplicate"]) for row in rows]


class Trainer:
    def __init__(self, options):
        self.options = options
        self.tokenizer = AutoTokenizer.from_pretrained(options.model)
        base = AutoModel.from_pretrained(
            options.model, dtype=torch.float32, attn_implementation=options.attention
        )
        lora = LoraConfig(
            task_type=TaskType.FEATURE_EXTRACTION,
            r=8,
            lora_alpha=16,
            bias="none",
            target_modules=["key", "query", "value"],
        )
        self.model = get_peft_model(base, lora)
        self.model.train()  # from_pretrained leaves a model in eval mode, without dropout
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.trained, lr=5e-4)
        self.forward = torch.compile(self.model, dynamic=True) if options.compile else self.model

    def embed(self, texts):
        """Normalised means over the tokens, [texts, hidden]."""
        options = self.options
        width = options.max_length if options.padding == "max" else max(len(t) for t in texts)
        ids = torch.full((len(texts), width), self.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = torch.tensor(text)
            mask[row, : len(text)] = 1
        hidden = self.forward(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean.float(), dim=-1)

    def loss(self, first, second, labels):
        """Summed over the pairs."""
        cosine = (first * second).sum(-1)
        apart = labels * (1 - cosine) + (1 - labels) * cosine.clamp(min=0)
        return apart.square().sum()

    def embed_pairs(self, first, second):
        if not self.options.joined:
            return self.embed(first), self.embed(second)
        both = self.embed(first + second)
        return both[: len(first)], both[len(first) :]

    def backward(self, first, second, labels):
        """Adds the gradient of the batch's mean loss; returns that loss."""
        micro = self.options.micro or len(first)
        if self.options.cut == "texts":
            # Less padding than sorted pairs have, for the price of keeping every micro-batch's activations.
            texts = first + second
            order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
            parts = [order[i : i + 2 * micro] for i in range(0, len(order), 2 * micro)]
            sorted_rows = torch.cat([self.embed([texts[i] for i in part]) for part in parts])
            rows = sorted_rows[torch.tensor(order).argsort()]
            loss = self.loss(rows[: len(first)], rows[len(first) :], torch.tensor(labels)) / len(first)
            loss.backward()
            return loss.item()
        order = list(range(len(first)))
        if self.options.micro:
            order.sort(key=lambda i: max(len(first[i]), len(second[i])))
        total = 0.0
        for start in range(0, len(order), micro):
            part = order[start : start + micro]
            rows = self.embed_pairs([first[i] for i in part], [second[i] for i in part])
            loss = self.loss(*rows, torch.tensor([labels[i] for i in part])) / len(first)
            loss.backward()
            total += loss.item()
        return total

    def step(self, first, second, labels):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.options.bf16):
            loss = self.backward(first, second, labels)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss


def main():
    options = arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    trainer = Trainer(options)
    first, second, labels = read_pairs(options.pairs, trainer.tokenizer, options.max_length)
    started = {"event": "started", "threads": torch.get_num_threads()}
    print(json.dumps({**started, "trainable_parameters": sum(p.numel() for p in trainer.trained)}), flush=True)
    for step, start in enumerate(range(0, len(first), options.batch), 1):
        rows = slice(start, start + options.batch)
        loss = trainer.step(first[rows], second[rows], labels[rows])
        event = {"event": "step", "step": step, "pairs": len(first[rows]), "loss": loss}
        print(json.dumps(event), flush=True)


main()
