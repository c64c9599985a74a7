"""Writes a model folder of e5-small's shape with random weights, and the tokenizer of another model.

    make_shape.py TOKENIZER_FOLDER OUT_FOLDER
"""

import os
import shutil
import sys
from pathlib import Path

import torch
from transformers import BertConfig, BertModel

tokenizer, out = map(Path, sys.argv[1:])
torch.manual_seed(0)
config = BertConfig(
    vocab_size=30522,
    hidden_size=384,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=1536,
    max_position_embeddings=512,
)
# Renamed when it is whole: a run that was stopped leaves nothing that looks like a model.
unfinished = out.with_name(f"{out.name}.{os.getpid()}.tmp")
BertModel(config, add_pooling_layer=True).save_pretrained(unfinished)
for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"]:
    if (tokenizer / name).exists():
        shutil.copyfile(tokenizer / name, unfinished / name)
unfinished.rename(out)
