"""Random changes of bytes, text, JSON, YAML and settings, for `mutations.py`."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import yaml

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 10**9, 10**20, -(10**20), 0.5, 1e30, 1e-30, float("nan"),
    float("inf"), "", "x", "1", "[1", "\u00e4", "a/b", "../..", "\x1b[31m", "x" * 300, [], [[]],
    [1, 2], ["x"], [None], {}, {"a": 1}, {"name": "x"}, "2017-13-01", "2025-12-01", "<f4",
)  # fmt: skip
"""Values of other types and sizes."""
WORDS = (
    b"0",
    b"-1",
    b"1",
    b"7",
    b"1000000000",
    b"100000000000000000000",
    b"1e400",
    b"nan",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"=",
    b"\n",
    b";",
    b"\xff\xfe",
    b"\x00",
    b"x" * 300,
    b"\x1b[2J",
    b"&a",
    b"*a",
    b"1" + b"0" * 5000,
    b"bsq",
    b"inf",
    b"12",
    b"\xc3\xa4",
    b"'",
    b'"',
    b": ",
    b"- ",
    b"!!float",
)


def change_bytes(rng: random.Random, content: bytes, at_most: int | None = None) -> bytes:
    """Turn, remove, insert or cut bytes, of the first `at_most`."""
    if not content:
        return rng.randbytes(8)
    changed = bytearray(content)
    place = rng.randrange(min(len(content), at_most or len(content)))
    match rng.randrange(6):
        case 0:
            changed[place] ^= 1 << rng.randrange(8)
        case 1:
            for _ in range(rng.randrange(1, 20)):
                changed[rng.randrange(min(len(content), at_most or len(content)))] = rng.randrange(
                    256
                )
        case 2:
            del changed[place:]
        case 3:
            del changed[place : place + rng.randrange(1, 64)]
        case 4:
            changed[place:place] = rng.randbytes(rng.randrange(1, 64))
        case _:
            size = rng.randrange(1, 64)
            changed[place : place + size] = rng.choice([b"\0", b"\xff"]) * size
    return bytes(changed)


def change_text(rng: random.Random, content: bytes) -> bytes:
    """Change a line, a number or a word of a text once to three times."""
    for _ in range(rng.randrange(1, 4)):
        lines = content.split(b"\n")
        at = rng.randrange(len(lines))
        words = [m.span() for m in re.finditer(rb"[\w.]+", content)] or [(0, 0)]
        start, end = rng.choice(words)
        match rng.randrange(7):
            case 0:
                del lines[at]
                content = b"\n".join(lines)
            case 1:
                lines.insert(at, rng.choice(lines))
                content = b"\n".join(lines)
            case 2:
                content = content[: rng.randrange(len(content) + 1)]
            case 3:
                content = change_bytes(rng, content)
            case 4:
                content = content[:start] + rng.choice(WORDS) + content[start:]
            case _:
                content = content[:start] + rng.choice(WORDS) + content[end:]
    return content


def _nodes(value: Any) -> list[tuple[Any, Any]]:
    """All places in nested lists and mappings, as (container, key)."""
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    return [(value, key) for key in keys] + [n for key in keys for n in _nodes(value[key])]


def _change_nested(rng: random.Random, value: Any) -> Any:
    nodes = _nodes(value)
    if not nodes or rng.random() < 0.03:
        return rng.choice(VALUES)
    container, key = rng.choice(nodes)
    match rng.randrange(8):
        case 0:
            del container[key]
        case 1 if isinstance(container, dict):
            container[rng.choice(["x", "name", "kind", ""])] = rng.choice(VALUES)
        case 2:
            other, place = rng.choice(nodes)
            container[key] = json.loads(json.dumps(other[place], default=str))
        case 3:
            deep: Any = 1
            for _ in range(rng.choice([3, 200])):
                deep = [deep]
            container[key] = deep
        case 4 if isinstance(container[key], list):
            container[key] = container[key] * rng.choice([0, 2, 100])
        case _:
            container[key] = rng.choice(VALUES)
    return value


def change_json(rng: random.Random, text: str) -> str:
    """Change a value, a key or the text of JSON."""
    if rng.random() < 0.15:
        return change_text(rng, text.encode()).decode("utf-8", "replace")
    try:
        return json.dumps(_change_nested(rng, json.loads(text)))
    except ValueError:
        return text + rng.choice(["{", "", "]"])


def change_yaml(rng: random.Random, text: str) -> str:
    """Change a value or a key of YAML."""
    return str(yaml.safe_dump(_change_nested(rng, yaml.safe_load(text)), allow_unicode=True))


def setting(rng: random.Random, text: str) -> str:
    """Return a `key=value` for `--set`, of a key that a recipe has or may have."""
    nodes = yaml.safe_load(text)
    known = [
        f"{section}.{key}"
        for section, keys in nodes.items()
        if isinstance(keys, dict)
        for key in keys
    ]
    more = [
        "seed", "name", "model.wavelength_nm", "model.image_size", "model.tree", "model.size",
        "model.aggregation", "model.channel_embedding", "model.input_channels", "training.patience",
        "training.clip_norm", "training.ema_decay", "training.micro_batch", "training.precision",
        "training.learning_rate", "training.start_from", "data.workers", "data.region",
        "parallel.tp", "parallel.dp", "parallel.fsdp", "prepare.region", "evaluation.batch",
        "evaluation.metrics", "task.mask_ratio", "task.rollout", "channels", "model.dropout",
    ]  # fmt: skip
    key = rng.choice(known + more)
    value = rng.choice(VALUES)
    if rng.random() < 0.3:
        return f"{key}={rng.choice(WORDS).decode('utf-8', 'replace')}"
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"
