"""Sentence embeddings and the pair loss as transformers and PEFT compute them, on real models and text."""

import csv
import json
import warnings
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

DEFAULTS = {"question1_prefix": "query: ", "max_length": 70}


def read_pairs(path, count):
    """The first `count` rows as (texts, labels); texts 2i and 2i + 1 are pair i."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row, _ in zip(csv.DictReader(file), range(count))]
    texts = [row[column] for row in rows for column in ("question1", "question2")]
    return texts, torch.tensor([float(row["is_duplicate"]) for row in rows])


def read_texts(path):
    return [json.loads(line)["text"] for line in Path(path).read_text(encoding="utf-8").splitlines()]



def tokenize(folder, texts, prefix, max_length):
    """Token ids of every text, [CLS] and [SEP] included."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prefixed = [prefix + text for text in texts]
    return tokenizer(prefixed, truncation=True, max_length=max_length, padding=False)["input_ids"]


def embed_ids(model, rows):
    """[texts, hidden]: mean over real tokens, L2-normalised."""
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=1)


@torch.no_grad()
def embed(model, folder, texts, prefix, max_length):
    rows = tokenize(folder, texts, prefix, max_length)
    model.eval()
    return torch.cat([embed_ids(model, rows[i : i + 32]) for i in range(0, len(rows), 32)])


def pair_loss(model, rows, labels):
    vectors = embed_ids(model, rows)
    cos = (vectors[0::2] * vectors[1::2]).sum(1)
    y = labels.to(cos.dtype)
    return (y * (1 - cos) + (1 - y) * cos.clamp(min=0)).square().mean()


def strict(action):
    """Runs `action` and returns (its value, warnings about keys or options): PEFT warns where we want to fail."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = action()
    about = ("key", "adapter", "config", "argument", "missing", "unexpected")
    return value, [str(w.message) for w in caught if any(word in str(w.message).lower() for word in about)]
