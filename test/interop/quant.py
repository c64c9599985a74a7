"""The Python half of the interchange of quantised models.

    python quant.py quantise|compare plan.json report.json

`quantise` writes what transformers and bitsandbytes make of the same model; `compare` holds tensors and embeddings of
both sides against each other, and writes rows {what, figure, limit, unit, ok}.
"""

import json
import os
import sys
from pathlib import Path

os.environ["TORCHDYNAMO_DISABLE"] = "1"

import bitsandbytes
import bitsandbytes.functional as F
import numpy as np
import peft
import torch
import transformers
from peft import PeftModel
from reference import embed, strict
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer, BitsAndBytesConfig

PREFIX, MAX_LENGTH = "query: ", 70
rows = []


def note(what, figure, limit, ok, unit):
    rows.append({"what": what, "figure": figure, "limit": limit, "ok": bool(ok), "unit": unit})


def note_cosines(what, ours, theirs, least):
    worst = float((ours.astype(np.float64) * theirs.astype(np.float64)).sum(1).min())
    note(what, worst, least, worst > least, "least cosine")


def note_clean(what, complaints):
    note(what, "; ".join(complaints) or "none", "none", not complaints, "complaints")


def read_vectors(path, count):
    return np.fromfile(path, dtype="<f4").reshape(count, -1)


def quantise(plan):
    for entry in plan["cases"]:
        if entry["options"] is None:
            continue
        config = BitsAndBytesConfig(**entry["options"])
        model = AutoModel.from_pretrained(plan["model"], quantization_config=config, dtype=torch.float32)
        model.save_pretrained(entry["theirs"])
        AutoTokenizer.from_pretrained(plan["model"]).save_pretrained(entry["theirs"])


def compare_tensors(entry):
    """Everything is the same to the bit but the word embeddings, which are float16 on our side."""
    ours, theirs = (load_file(Path(entry[side]) / "model.safetensors") for side in ("ours", "theirs"))
    ours.pop("embeddings.position_ids", None)  # a buffer of old files, which transformers leaves out
    complaints = [f"only on one side: {key}" for key in set(ours) ^ set(theirs)]
    for key in set(ours) & set(theirs):
        a, b = ours[key], theirs[key]
        if key == "embeddings.word_embeddings.weight":
            b = b.half()
        if a.dtype != b.dtype or a.shape != b.shape or not torch.equal(a, b):
            complaints.append(f"{key} differs: {a.dtype} {tuple(a.shape)}, {b.dtype} {tuple(b.shape)}")
    note_clean(f"{entry['name']}: tensors are bitsandbytes'", complaints[:3])
    configs = [json.loads((Path(entry[side]) / "config.json").read_text()) for side in ("ours", "theirs")]
    same = configs[0]["quantization_config"] == configs[1]["quantization_config"]
    note_clean(f"{entry['name']}: quantization_config is transformers'", [] if same else [str(configs[0])])


def load(entry, side):
    """The folder in transformers; keys of ours that Python does not know may be named, nothing else."""
    (model, info), complaints = strict(lambda: AutoModel.from_pretrained(entry[side], output_loading_info=True))
    for kind, keys in info.items():
        complaints += [f"{kind}: {key}" for key in keys if "outlier_" not in str(key)]
    kinds = {type(m).__name__ for m in model.modules()}
    wanted = "Linear8bitLt" if entry["settings"]["type"] == "int8" else "Linear4bit"
    if wanted not in kinds:
        complaints.append(f"no {wanted} in it")
    return model, complaints


@torch.no_grad()
def in_float32(model, source):
    """Computes with the values that the codes stand for. bitsandbytes' own forward rounds to bfloat16 on some CPUs."""
    plain = AutoModel.from_pretrained(source)
    for name, module in model.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            weight = F.dequantize_4bit(module.weight.data, module.weight.quant_state)
        elif isinstance(module, bitsandbytes.nn.Linear8bitLt):
            weight = F.int8_vectorwise_dequant(module.weight.data, module.weight.SCB)
        elif isinstance(module, torch.nn.Embedding):
            weight = module.weight
        else:
            continue
        plain.get_submodule(name).weight.data = weight.float().clone()
    return plain.eval()


def compare(plan):
    texts, count = plan["texts"], len(plan["texts"])

    def vectors(model):
        return embed(model, plan["model"], texts, PREFIX, MAX_LENGTH).numpy()

    base = vectors(AutoModel.from_pretrained(plan["model"]).eval())
    for entry in plan["cases"]:
        name = entry["name"]
        # int8 rounds activations too, and Python does not know of outliers.
        least = 0.998 if name == "int8" else 0.8 if "outliers" in name else 0.99999
        if entry["options"] is not None:
            compare_tensors(entry)
        model, complaints = load(entry, "ours")
        note_clean(f"{name}: written here, loads in transformers", complaints)
        ours = read_vectors(entry["vectors"], count)
        in_python = vectors(in_float32(model, plan["model"]))
        note_cosines(f"{name}: written here, here and in Python", ours, in_python, least)
        if entry["options"] is not None:
            theirs, _ = load(entry, "theirs")
            found = read_vectors(entry["theirVectors"], count)
            note_cosines(f"{name}: written in Python, here", found, vectors(in_float32(theirs, plan["model"])), least)
        for where, found in (("here", ours), ("in Python", in_python)):
            drift = float((found * base).sum(1).mean())
            note(f"({name} {where}: mean cosine with the model in float32)", drift, 0.9, drift > 0.9, "cosine")
        if name == plan["adapted"]:
            adapted = PeftModel.from_pretrained(in_float32(model, plan["model"]), plan["adapter"]["path"]).eval()
            found = read_vectors(plan["adapter"]["vectors"], count)
            note_cosines(f"adapter trained on {name} here, in PEFT", found, vectors(adapted), 0.99999)
            direct, complaints = strict(lambda: PeftModel.from_pretrained(model, plan["adapter"]["path"]))
            note_clean("the same on bitsandbytes' layers: loads in PEFT", complaints)
            rounded = vectors(direct.eval())
            note_cosines("the same on bitsandbytes' layers (bfloat16 on some CPUs)", found, rounded, 0.999)


if __name__ == "__main__":
    command, plan_path, report_path = sys.argv[1:]
    torch.set_num_threads(1)  # the mean that double quantisation subtracts is a sum whose order depends on them
    plan = json.loads(Path(plan_path).read_text())
    if command == "quantise":
        quantise(plan)
    else:
        compare(plan)
        peers = {"peft": peft.__version__, "transformers": transformers.__version__}
        report = {**peers, "rows": rows, "bitsandbytes": bitsandbytes.__version__}
        Path(report_path).write_text(json.dumps(report))
