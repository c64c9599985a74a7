"""Writes a model as ONNX in float32 and, quantised dynamically, in int8.

    export_onnx.py MODEL_FOLDER OUT_FOLDER
"""

import os
import sys
from pathlib import Path

import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import AutoModel

model, out = map(Path, sys.argv[1:])
names = ["input_ids", "attention_mask"]


class TokenVectors(torch.nn.Module):
    def __init__(self):
        super().__init__()
        # ONNX Runtime fuses the plain form of attention into one operator of its own.
        self.base = AutoModel.from_pretrained(model, dtype=torch.float32, attn_implementation="eager").eval()

    def forward(self, input_ids, attention_mask):
        return self.base(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


unfinished = out.with_name(f"{out.name}.{os.getpid()}.tmp")
unfinished.mkdir(parents=True)
ids = torch.tensor([[101, 1996, 3899, 102], [101, 4937, 102, 0]])
axes = {0: "texts", 1: "tokens"}
torch.onnx.export(
    TokenVectors(),
    (ids, (ids != 0).long()),
    unfinished / "fp32.onnx",
    input_names=names,
    output_names=["hidden"],
    dynamic_axes={name: axes for name in [*names, "hidden"]},
    opset_version=17,
    dynamo=False,  # the newer exporter needs onnxscript
)
quantize_dynamic(unfinished / "fp32.onnx", unfinished / "int8.onnx", weight_type=QuantType.QInt8)
unfinished.rename(out)
