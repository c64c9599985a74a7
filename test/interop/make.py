"""The Python half of the interchange: adapters trained by PEFT, and the reference numbers.

    python make.py plan.json

Reads the plan that scripts/interop.mjs wrote, and writes beside it: an adapter folder for every entry of `theirs`, in
both layouts of tensor names, with its embeddings; zero-shot embeddings of sentence-transformers; the gradient of a
real batch.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from reference import DEFAULTS, embed, pair_loss, read_pairs, read_texts, tokenize
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

STEPS = 4
PREFIX, MAX_LENGTH = DEFAULTS["question1_prefix"], DEFAULTS["max_length"]


class Wrapper(torch.nn.Module):
    """A sentence embedding model that holds BertModel as `model`: this is where the second layout comes from."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, **inputs):
        return self.model(**inputs)


def config(options):
    return LoraConfig(task_type="FEATURE_EXTRACTION", **options)


def train(model, folder, pairs):
    """A few Adam steps with dropout on, at a rate that moves embeddings well away from the base model's."""
    texts, labels = read_pairs(pairs, 16 * STEPS)
    rows = tokenize(folder, texts, PREFIX, MAX_LENGTH)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.train()
    for step in range(STEPS):
        loss = pair_loss(model, rows[32 * step : 32 * (step + 1)], labels[16 * step : 16 * (step + 1)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()


def make_adapter(entry, plan, out):
    torch.manual_seed(1)
    model = get_peft_model(AutoModel.from_pretrained(entry["model"]), config(entry["options"]))
    train(model, entry["model"], plan["pairs"])
    model.save_pretrained(out / "plain")
    wrapped = get_peft_model(Wrapper(AutoModel.from_pretrained(entry["model"])), config(entry["options"]))
    weights = dict(model.named_parameters())
    for name, parameter in wrapped.named_parameters():
        if parameter.requires_grad:
            parameter.data.copy_(weights[name.replace("base_model.model.model.", "base_model.model.", 1)])
    wrapped.save_pretrained(out / "wrapped")
    texts = read_texts(plan["texts"])
    vectors = embed(model, entry["model"], texts, PREFIX, MAX_LENGTH)
    with model.disable_adapter():
        base = embed(model, entry["model"], texts[:32], PREFIX, MAX_LENGTH)
    closeness = (vectors[:32] * base).sum(1).mean().item()
    assert closeness < 0.999, f"{entry['name']} is hardly trained: cosine {closeness} with the base model"
    np.save(out / "vectors.npy", vectors.numpy())
    return model


def write_gradients(model, folder, plan, out):
    """Loss and gradients of one real batch without dropout, in fp32 and, for what fp32 is worth, in float64."""
    texts, labels = read_pairs(plan["pairs"], 24)
    rows = tokenize(folder, texts, PREFIX, MAX_LENGTH)
    model.eval()
    figures = {}
    for name, dtype in (("fp32", torch.float32), ("fp64", torch.float64)):
        model.to(dtype).zero_grad()
        loss = pair_loss(model, rows, labels)
        loss.backward()
        grads = {n.replace(".default", ""): p.grad for n, p in model.named_parameters() if p.grad is not None}
        save_file({n: g.contiguous() for n, g in grads.items()}, out / f"gradients-{name}.safetensors")
        figures[name] = loss.item()
    (out / "gradients.json").write_text(json.dumps({"loss": figures, "ids": rows, "labels": labels.tolist()}))


def main(path):
    plan = json.loads(path.read_text())
    work = path.parent
    for entry in plan["theirs"]:
        model = make_adapter(entry, plan, work / "theirs" / entry["name"])
        if entry["name"] == plan["gradients"]:
            write_gradients(model, entry["model"], plan, work)
    texts = read_texts(plan["texts"])[: plan["zeroShotTexts"]]
    teacher = SentenceTransformer(plan["zeroShot"], device="cpu")
    np.save(work / "zero-shot.npy", teacher.encode(texts, normalize_embeddings=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
