"""Prompts as people write them for Stable Diffusion: with weights, of any length, with the names of LoRAs in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

# Tokens of one run of the text encoder, without the two that begin and end it.
_CHUNK = 75
# Each chunk makes every step slower, and by ten the model has long lost the thread.
_MOST_TOKENS = 10 * _CHUNK
_STRONGER = 1.1
_LORA = re.compile(r"<(?:lora|lyco|hypernet):([^:>]+)(?::[^>]*)?>", re.IGNORECASE)
_PIECES = re.compile(r"\\[()\[\]\\]|[(\[]|:\s*([+-]?\d*\.?\d+)\s*\)|[)\]]|[^\\()\[\]:]+|:|\\")


class TooLong(Exception):
    """A prompt is too long to be read."""

    def __init__(self, prompt: Prompt, message: str) -> None:
        super().__init__(message)
        self.prompt = prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt in pieces of one weight each, and the LoRAs that its tags name."""

    pieces: tuple[tuple[str, float], ...]
    loras: tuple[str, ...]


def parse(text: str) -> Prompt:
    """Read a prompt: (more) weighs 1.1, [less] its reciprocal, (so:1.3) what it says; all multiply. `\\(` is a bracket.

    Brackets that are not closed weigh to the end.
    """
    loras = tuple(match[1].strip() for match in _LORA.finditer(text))
    text = _LORA.sub("", text)
    pieces: list[list[Any]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def multiply(start: int, factor: float) -> None:
        for piece in pieces[start:]:
            piece[1] *= factor

    for match in _PIECES.finditer(text):
        found = match[0]
        if found in opened:
            opened[found].append(len(pieces))
        elif match[1] is not None and opened["("]:
            multiply(opened["("].pop(), float(match[1]))
        elif found == ")" and opened["("]:
            multiply(opened["("].pop(), _STRONGER)
        elif found == "]" and opened["["]:
            multiply(opened["["].pop(), 1 / _STRONGER)
        else:
            pieces.append([found[1:] if found[0] == "\\" and len(found) > 1 else found, 1.0])
    for start in opened["("]:
        multiply(start, _STRONGER)
    for start in opened["["]:
        multiply(start, 1 / _STRONGER)
    return Prompt(pieces=_merged(pieces), loras=loras)


def encode(
    tokenizer: Any, encoder: Any, prompts: Sequence[Prompt], vectors: dict[str, int], device: torch.device
) -> torch.Tensor:
    """Return what the text encoder makes of prompts: (prompts, 77 for each 75 tokens of the longest, width).

    `vectors` are the embeddings of the user's by name, with how many tokens each stands for. Raises TooLong.
    """
    tokens = [_tokens(tokenizer, prompt, vectors) for prompt in prompts]
    chunks = max(1, *(-(-len(one) // _CHUNK) for one in tokens))
    return torch.cat([_encoded(tokenizer, encoder, one, chunks, device) for one in tokens])


def _encoded(
    tokenizer: Any, encoder: Any, tokens: Sequence[tuple[int, float]], chunks: int, device: torch.device
) -> torch.Tensor:
    made = []
    for number in range(chunks):
        part = list(tokens[number * _CHUNK : (number + 1) * _CHUNK])
        # The end, and padding up to the length that the encoder was trained on.
        ids = [tokenizer.bos_token_id, *(token for token, _ in part), tokenizer.eos_token_id]
        ids += [tokenizer.pad_token_id] * (_CHUNK + 2 - len(ids))
        hidden = encoder(torch.tensor([ids], device=device))[0]
        if any(weight != 1 for _, weight in part):
            weights = torch.ones(_CHUNK + 2, device=device)
            weights[1 : len(part) + 1] = torch.tensor([weight for _, weight in part], device=device)
            weighted = hidden * weights[:, None].to(hidden.dtype)
            # Else more of one thing would be more of everything.
            mean = weighted.mean()
            hidden = weighted * (hidden.mean() / mean) if bool(mean != 0) else weighted
        made.append(hidden)
    return torch.cat(made, dim=1)


def _tokens(tokenizer: Any, prompt: Prompt, vectors: dict[str, int]) -> list[tuple[int, float]]:
    found = []
    for text, weight in prompt.pieces:
        if vectors:
            text = _named(vectors).sub(lambda match: _spelt(match[0], vectors[match[0]]), text)
        ids = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        found += [(token, weight) for token in ids]
    if len(found) > _MOST_TOKENS:
        raise TooLong(prompt, f"it has {len(found)} tokens, and {_MOST_TOKENS} are taken at most")
    return found


def _named(vectors: dict[str, int]) -> re.Pattern[str]:
    """Finds the names of embeddings as words: the longest first, and none within another word."""
    names = "|".join(map(re.escape, sorted(vectors, key=len, reverse=True)))
    return re.compile(rf"(?<![\w-])(?:{names})(?![\w-])")


def _spelt(name: str, count: int) -> str:
    """One word of the prompt stands for several tokens."""
    return " ".join([name, *(f"{name}_{number}" for number in range(1, count))])


def _merged(pieces: Sequence[Sequence[Any]]) -> tuple[tuple[str, float], ...]:
    merged: list[tuple[str, float]] = []
    for text, weight in pieces:
        if merged and merged[-1][1] == weight:
            merged[-1] = (merged[-1][0] + text, weight)
        else:
            merged.append((text, weight))
    return tuple((text.strip(), weight) for text, weight in merged if text.strip())
