"""What DATA means on the command line: a function of yours, or a text file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stonefx.cli.objects import FORMS, call, load_object


def load_data(name: str, tokenizer: Any, batch_size: int, most_tokens: int = 512) -> Any:
    """Data by `pkg.module:attribute`, called where it is a function; or a text file, of which each line is a sample.

    Raises:
        ValueError: nothing is there, or a text file comes without a tokenizer.
    """
    file = Path(name)
    if not file.is_file():
        if ":" not in name:
            raise ValueError(f"expected {FORMS}, or a text file, got {name!r}, which is neither")
        found = load_object(name)
        return call(name, found) if callable(found) and not hasattr(found, "__iter__") else found
    if tokenizer is None:
        raise ValueError(
            f"{file} is read as text, a sample a line, which needs a MODEL that is a folder of transformers with a "
            "tokenizer; for other models name a function: --data pkg.module:factory"
        )
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8: {error}") from error
    if not lines:
        raise ValueError(f"{file} has no line of text; expected a sample a line")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    longest = min(most_tokens, tokenizer.model_max_length)
    return [
        dict(
            tokenizer(
                lines[i : i + batch_size],
                padding=True,
                truncation=True,
                max_length=longest,
                return_tensors="pt",
            )
        )
        for i in range(0, len(lines), batch_size)
    ]
