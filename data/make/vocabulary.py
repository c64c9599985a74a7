"""A lower-case WordPiece vocabulary of our own, and the tokenizer files around it."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SIZE = 4096
PIECES = 700
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyz"


def build_vocabulary(own_words: list[str], general_words: list[str]) -> list[str]:
    """Special tokens, characters, the commonest pieces of all the words, our own words, general words to fill up."""
    characters = [*PUNCTUATION, *CHARACTERS, *("##" + character for character in CHARACTERS)]
    tokens = dict.fromkeys(SPECIAL + characters)
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordPieceTrainer(vocab_size=PIECES, special_tokens=SPECIAL, show_progress=False)
    learner.train_from_iterator(sorted(set(own_words + general_words)), trainer)
    tokens.update(dict.fromkeys(sorted(learner.get_vocab())))
    tokens.update(dict.fromkeys(own_words))
    if len(tokens) > SIZE:
        raise ValueError(f"{len(tokens)} tokens before any general word, {SIZE} wanted")
    for word in general_words:
        if len(tokens) == SIZE:
            break
        tokens[word] = None
    return list(tokens)


def build_tokenizer(vocabulary: list[str]) -> Tokenizer:
    ids = {token: index for index, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, vocabulary: list[str], folder: Path, max_length: int) -> None:
    roles = dict(zip(["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"], SPECIAL, strict=True))
    config = {
        **roles,
        "clean_up_tokenization_spaces": True,
        "do_lower_case": True,
        "model_max_length": max_length,
        "strip_accents": None,
        "tokenize_chinese_chars": True,
        "tokenizer_class": "BertTokenizer",
    }
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", config)
    _write_json(folder / "special_tokens_map.json", roles)
    (folder / "vocab.txt").write_text("".join(token + "\n" for token in vocabulary), encoding="utf-8")


def _write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
