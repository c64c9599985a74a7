"""Measures the demo with transformers and PEFT: ROC AUC of the test pairs before and after LoRA, over some seeds."""

import argparse
import csv
import statistics
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from sklearn.metrics import roc_auc_score
from transformers import AutoModel, AutoTokenizer

DATA = Path(__file__).parent.parent
PREFIX = "query: "


def read_pairs(path: Path, limit: int | None) -> tuple[list[str], list[str], torch.Tensor]:
    with open(path, encoding="ascii", newline="") as file:
        rows = list(csv.DictReader(file))[:limit]
    sides = [[PREFIX + row[column] for row in rows] for column in ("question1", "question2")]
    return *sides, torch.tensor([float(row["is_duplicate"]) for row in rows])


def embed(model, tokenizer, texts: list[str]) -> torch.Tensor:
    fields = tokenizer(texts, padding=True, truncation=True, max_length=70, return_tensors="pt")
    hidden = model(**fields).last_hidden_state
    weights = fields["attention_mask"].unsqueeze(-1).float()
    return torch.nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)


def cosines(model, tokenizer, first: list[str], second: list[str]) -> torch.Tensor:
    both = embed(model, tokenizer, first + second)
    return (both[: len(first)] * both[len(first) :]).sum(1)


def auc(model, tokenizer, pairs) -> float:
    first, second, labels = pairs
    model.eval()
    with torch.no_grad():
        parts = [cosines(model, tokenizer, first[i : i + 100], second[i : i + 100]) for i in range(0, len(first), 100)]
    return float(roc_auc_score(labels, torch.cat(parts)))


def finetune(arguments, tokenizer, train, test, seed: int) -> list[float]:
    """AUC before training and after each epoch."""
    torch.manual_seed(seed)
    base = AutoModel.from_pretrained(arguments.model)
    lora = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, bias="none", target_modules=["query", "key", "value"])
    model = get_peft_model(base, lora)
    first, second, labels = train
    steps = arguments.epochs * -(-len(first) // arguments.batch)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=arguments.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    results = [auc(model, tokenizer, test)]
    for _ in range(arguments.epochs):
        model.train()
        losses = []
        for chosen in torch.randperm(len(first)).split(arguments.batch):
            got = cosines(model, tokenizer, [first[i] for i in chosen], [second[i] for i in chosen])
            wanted = labels[chosen]
            loss = (wanted * (1 - got) + (1 - wanted) * got.clamp(min=0)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        results.append(auc(model, tokenizer, test))
        print(f"  seed {seed}: loss {statistics.mean(losses):.4f}, AUC {results[-1]:.4f}", flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(DATA / "encoder"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--limit", type=int, help="read only the first pairs of the training file")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    train = read_pairs(DATA / "pairs" / "train.csv", arguments.limit)
    test = read_pairs(DATA / "pairs" / "test.csv", None)
    runs = []
    for seed in range(arguments.seeds):
        start = time.time()
        runs.append(finetune(arguments, tokenizer, train, test, seed))
        print(f"seed {seed}: " + " -> ".join(f"{value:.4f}" for value in runs[-1]) + f", {time.time() - start:.0f} s")
    last = [run[-1] for run in runs]
    print(f"zero-shot {runs[0][0]:.4f}; after {arguments.epochs} epochs {statistics.mean(last):.4f}", end="")
    print(f" (lowest {min(last):.4f}, highest {max(last):.4f})")


if __name__ == "__main__":
    main()
