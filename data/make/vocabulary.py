"""A lower-case WordPiece vocabulary of our own, and the tokenizer files around it."""

import json
from collections import Counter
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

SIZE = 4096
PIECES = 700
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyz"


def build_vocabulary(own_words: list[str], general_words: list[str]) -> list[str]:
    """Special tokens, characters, the commonest pieces of all the words, our own words, general words to fill up."""
    characters = [*PUNCTUATION, *CHARACTERS, *("##" + character for character in CHARACTERS)]
    tokens = dict.fromkeys(SPECIAL + characters)
    tokens.update(dict.fromkeys(common_pieces(set(own_words + general_words))))
    tokens.update(dict.fromkeys(own_words))
    if len(tokens) > SIZE:
        raise ValueError(f"{len(tokens)} tokens before any general word, {SIZE} wanted")
    for word in general_words:
        if len(tokens) == SIZE:
            break
        tokens[word] = None
    return list(tokens)


def common_pieces(words: set[str]) -> list[str]:
    """Beginnings and continuations that save the most tokens over all words (count * (length - 1)), best first.

    The WordPiece trainer of the tokenizers library does much the same, but breaks ties at random.
    """
    counts: Counter[str] = Counter()
    for word in words:
        for length in range(2, 6):
            if len(word) > length:
                counts[word[:length]] += 1
            counts.update("##" + word[start : start + length] for start in range(1, len(word) - length + 1))
    gains = {piece: count * (len(piece.removeprefix("##")) - 1) for piece, count in counts.items() if count > 1}
    return sorted(gains, key=lambda piece: (-gains[piece], piece))[:PIECES]


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
