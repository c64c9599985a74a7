"""Compares what peft-train wrote with what Python makes of it.

    python compare.py plan.json report.json [--adapters-only]

Writes rows {what, figure, limit, unit, ok}. `--adapters-only` is for old releases: loads our adapters and no more.
"""

import base64
import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import peft
import transformers
from peft import PeftModel, set_peft_model_state_dict
from reference import DEFAULTS, embed, read_texts, strict
from safetensors.torch import load_file
from transformers import AutoModel

COSINE = 0.99999
rows = []


def note(what, figure, limit, ok, unit):
    rows.append({"what": what, "figure": figure, "limit": limit, "ok": bool(ok), "unit": unit})


def note_cosines(what, ours, theirs):
    assert ours.shape == theirs.shape, f"{what}: {ours.shape} against {theirs.shape}"
    worst = float((ours.astype(np.float64) * theirs.astype(np.float64)).sum(1).min())
    note(what, worst, COSINE, worst > COSINE, "least cosine")
    difference = float(np.abs(ours - theirs).max())
    note(what, difference, 1e-4, difference < 1e-4, "max |difference|")


def note_clean(what, complaints):
    note(what, "; ".join(complaints) or "none", "none", not complaints, "complaints")


def check_ours(entry, plan, name):
    """An adapter trained by peft-train, in PEFT: accepted without a word, and the same embeddings."""
    base = AutoModel.from_pretrained(entry["model"])
    model, complaints = strict(lambda: PeftModel.from_pretrained(base, entry["adapter"]))
    tensors = load_file(Path(entry["adapter"]) / "adapter_model.safetensors")
    result = set_peft_model_state_dict(model, tensors)
    complaints += [f"unexpected {key}" for key in result.unexpected_keys]
    complaints += [f"missing {key}" for key in result.missing_keys if "lora_" in key]
    note_clean(f"{entry['name']}: loads in {name}", complaints)
    moved = sum(float(t.abs().sum()) for k, t in tensors.items() if "lora_B" in k)
    note(f"{entry['name']}: B was trained", moved, 0, moved > 0, "sum |B|")
    record = json.loads((Path(entry["adapter"]) / "peft_train.json").read_text())
    assert record, "peft_train.json is empty"
    texts = read_texts(plan["texts"])
    vectors = embed(model, entry["adapter"], texts, DEFAULTS["question1_prefix"], DEFAULTS["max_length"]).numpy()
    note_cosines(f"{entry['name']}: trained here, in {name}", np.load(entry["vectors"]), vectors)
    return model


def adapter_keys(entry, config):
    model = peft.get_peft_model(AutoModel.from_pretrained(entry["model"]), config)
    return model, {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def check_config(entry):
    """Every key of our adapter_config.json has the value that PEFT writes for the same options; the targets, which may
    be spelled in several ways, resolve to the same modules."""
    saved = json.loads((Path(entry["adapter"]) / "adapter_config.json").read_text())
    options = peft.LoraConfig(task_type="FEATURE_EXTRACTION", **entry["options"])
    model, wanted = adapter_keys(entry, options)
    stored = peft.LoraConfig.from_pretrained(entry["adapter"])
    stored.inference_mode = False
    _, found = adapter_keys(entry, stored)
    theirs = {**model.peft_config["default"].to_dict(), "inference_mode": True}  # save_pretrained always writes true
    complaints = [f"only one side adapts {name}" for name in sorted(wanted ^ found)]
    for key, value in saved.items():
        expected = theirs.get(key)
        expected = sorted(expected) if isinstance(expected, set) else expected
        if key != "target_modules" and value != expected:
            complaints.append(f"{key} is {value}, PEFT has {theirs.get(key)}")
    note_clean(f"{entry['name']}: adapter_config.json is PEFT's", complaints)
    if "trained" in entry:
        model, _ = adapter_keys(entry, peft.LoraConfig(task_type="FEATURE_EXTRACTION", **entry["trained"]))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        model.print_trainable_parameters()
    line = printed.getvalue().strip()
    note_clean(f"{entry['name']}: parameter count", [] if line in entry["printed"] else [f"not printed: {line}"])


def check_transformers(entry, plan):
    """transformers' own adapter support, which sentence-transformers builds on."""
    base = AutoModel.from_pretrained(entry["model"])
    _, complaints = strict(lambda: base.load_adapter(entry["adapter"]))
    note_clean(f"{entry['name']}: loads in transformers", complaints)
    texts = read_texts(plan["texts"])
    vectors = embed(base, entry["adapter"], texts, DEFAULTS["question1_prefix"], DEFAULTS["max_length"]).numpy()
    note_cosines(f"{entry['name']}: trained here, in transformers", np.load(entry["vectors"]), vectors)


def check_gradients(work):
    ours = json.loads((work / "gradients-ours.json").read_text())
    theirs = json.loads((work / "gradients.json").read_text())
    difference = abs(ours["loss"] - theirs["loss"]["fp32"])
    note("real batch: loss", difference, 1e-6, difference < 1e-6, "|difference|")
    reference = load_file(work / "gradients-fp32.safetensors")
    exact = load_file(work / "gradients-fp64.safetensors")
    found = {k: np.frombuffer(base64.b64decode(v), dtype=np.float32) for k, v in ours["gradients"].items()}
    complaints = [f"only on one side: {key}" for key in set(reference) ^ set(found)]
    note_clean("real batch: keys of the gradients", complaints)

    def worst(tensors, against):
        return max(
            float(np.abs(tensors[k].reshape(-1) - t.numpy().reshape(-1)).max() / np.abs(t.numpy()).max())
            for k, t in against.items()
        )

    figure = worst(found, reference)
    note("real batch: gradients", figure, 1e-4, figure < 1e-4, "worst relative")
    figure = worst(found, exact)
    note("real batch: gradients, from float64", figure, 1e-4, figure < 1e-4, "worst relative")
    figure = worst({k: t.numpy() for k, t in reference.items()}, exact)
    note("(PEFT in fp32, from float64)", figure, 1e-4, True, "worst relative")


def check_golden(again, committed):
    """The files that `npm test` compares with, written once more by these releases of the peers."""
    figures, complaints = {"gradients": 0.0, "the rest": 0.0}, []
    for path in sorted(committed.rglob("*.safetensors")):
        name = path.relative_to(committed)
        if name.parts[0] == "dropout":
            continue
        old, new = load_file(path), load_file(again / name)
        complaints += [f"{name}: {key}" for key in set(old) ^ set(new)]
        for key in set(old) & set(new):
            difference = float((old[key].double() - new[key].double()).abs().max())
            kind = "gradients" if name.parts[0] == "gradients" else "the rest"
            if kind == "gradients" and difference > 0:
                difference /= float(old[key].abs().max())
            figures[kind] = max(figures[kind], difference)
    note_clean("golden files: keys", complaints)
    note("golden files: gradients", figures["gradients"], 2e-5, figures["gradients"] < 2e-5, "worst relative")
    note("golden files: the rest", figures["the rest"], 2e-5, figures["the rest"] < 2e-5, "max |difference|")


def main(plan_path, report_path, adapters_only):
    plan = json.loads(plan_path.read_text())
    work = plan_path.parent
    name = f"PEFT {peft.__version__}"
    for entry in plan["ours"]:
        if adapters_only and entry.get("recent"):
            continue
        check_ours(entry, plan, name)
        if not adapters_only:
            check_config(entry)
            # transformers 5.23 loads no magnitudes, PEFT's own no more than ours: PeftModel does.
            if not entry["options"].get("use_dora"):
                check_transformers(entry, plan)
    if not adapters_only:
        for entry in plan["theirs"]:
            theirs = np.load(work / "theirs" / entry["name"] / "vectors.npy")
            for layout in ("plain", "wrapped"):
                ours = np.fromfile(work / "theirs" / entry["name"] / f"{layout}.f32", dtype="<f4").reshape(theirs.shape)
                note_cosines(f"{entry['name']}: trained in {name}, here ({layout})", ours, theirs)
        note_cosines("zero-shot: sentence-transformers", np.load(work / "zero-shot-ours.npy"), np.load(work / "zero-shot.npy"))
        check_gradients(work)
        check_golden(work / "golden", Path(__file__).parent.parent / "fixtures" / "golden")
    report_path.write_text(json.dumps({"peft": peft.__version__, "transformers": transformers.__version__, "rows": rows}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), "--adapters-only" in sys.argv)
