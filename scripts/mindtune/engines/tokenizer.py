"""The tokenizer of a model's directory, for what needs no more of transformers than that."""

from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer

from mindtune.errors import UserError
from mindtune.models import NAMES


def read_tokenizer(hf_dir: Path) -> Tokenizer:
    """
    Raises
    ------
    UserError: it has no tokenizer.json that can be read.
    """
    file = hf_dir / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{file} can't be read as a tokenizer ({error}); get it again.") from error


def encoder(hf_dir: Path) -> Callable[[str], list[int]]:
    """Text to token ids, special tokens in it included."""
    tokenizer = read_tokenizer(hf_dir)
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def token_ids(hf_dir: Path, *tokens: str) -> list[int]:
    """
    Raises
    ------
    UserError: the tokenizer has no such token.
    """
    tokenizer = read_tokenizer(hf_dir)
    found = [tokenizer.token_to_id(token) for token in tokens]
    if None in found:
        raise UserError(
            f"{hf_dir}/tokenizer.json has no token {tokens[found.index(None)]}; it must be that of a "
            f"{NAMES} model."
        )
    return found
