"""Encodes texts with sentence-transformers or ONNX Runtime; one JSON line with what was measured.

    encode.py --backend st|onnx --model FOLDER [--onnx FILE] --texts FILE [--vectors FILE | --single 200]
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

BATCH_WARM = 64
SINGLE_WARM = 20


class SentenceTransformers:
    def __init__(self, options):
        from sentence_transformers import SentenceTransformer

        self.batch = options.batch
        self.model = SentenceTransformer(options.model, device="cpu")
        self.model.max_seq_length = options.max_length

    def encode(self, texts):
        return self.model.encode(
            texts, batch_size=self.batch, normalize_embeddings=True, show_progress_bar=False
        )


class Onnx:
    def __init__(self, options):
        import onnxruntime
        from tokenizers import Tokenizer

        self.batch = options.batch
        self.session = onnxruntime.InferenceSession(options.onnx, providers=["CPUExecutionProvider"])
        # The bare tokenizer: what surrounds it in transformers costs more than a short text takes to encode.
        self.tokenizer = Tokenizer.from_file(str(Path(options.model) / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(options.max_length)

    def encode(self, texts):
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        vectors = [None] * len(ids)
        for start in range(0, len(order), self.batch):
            part = order[start : start + self.batch]
            for row, vector in zip(part, self.embed([ids[i] for i in part])):
                vectors[row] = vector
        return np.stack(vectors)

    def embed(self, rows):
        width = max(len(row) for row in rows)
        ids = np.zeros((len(rows), width), np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
        (hidden,) = self.session.run(["hidden"], {"input_ids": ids, "attention_mask": mask})
        mean = np.einsum("bth,bt->bh", hidden, mask.astype(np.float32)) / mask.sum(1, keepdims=True)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", choices=["st", "onnx"], required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--onnx")
    parser.add_argument("--texts", required=True)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--max_length", type=int, default=128)
    parser.add_argument("--single", type=int, default=200)
    parser.add_argument("--vectors", help="write float32 vectors there and time nothing")
    options = parser.parse_args()
    texts = json.loads(Path(options.texts).read_text(encoding="utf-8"))
    encoder = (SentenceTransformers if options.backend == "st" else Onnx)(options)
    if options.vectors:
        encoder.encode(texts).astype("<f4").tofile(options.vectors)
        print(json.dumps({"event": "written"}))
        return
    encoder.encode(texts[:BATCH_WARM])
    together = seconds(lambda: encoder.encode(texts))
    for text in texts[:SINGLE_WARM]:
        encoder.encode([text])
    single = [seconds(lambda: encoder.encode([text])) for text in texts[: options.single]]
    print(json.dumps({"event": "encoded", "texts": len(texts), "seconds": together, "single": single}))


main()
