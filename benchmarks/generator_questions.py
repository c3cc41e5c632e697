"""Yes or no after passage and question (BoolQ), as scored at the layer a token leaves at.

The likeliest next token is often neither (a line break, "The"), so the two answers are held against each
other; how often neither is the likeliest is a figure of its own. In which words to ask is chosen at full
depth, on rows that are not reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import torch

from lessen.data.reading import read
from lessen.depth.language import decide
from lessen.hf import LessenForCausalLM
from lessen.model.rows import pack
from lessen.plan import ExitRule, Point

TO_CHOOSE = 60
"""Rows the words are chosen on; those after them are reported."""

SHORT = 60
"""Words of a passage that may stand as an example, at most."""


@dataclass(frozen=True)
class Row:
    """Passage, question, and whether the answer is yes."""

    passage: str
    question: str
    yes: bool

    def asked(self) -> str:
        """Up to where the answer begins."""
        return f"{self.passage}\nQuestion: {self.question}?\nAnswer (yes or no):"


@dataclass(frozen=True)
class Wording:
    """A way to ask.

    Attributes:
        name: As it is reported.
        yes: The token of that answer.
        no: Likewise.
        prompts: Token ids of each row.
    """

    name: str
    yes: int
    no: int
    prompts: list[list[int]]


@dataclass(frozen=True)
class Answered:
    """What a way of decoding answers to rows.

    Attributes:
        said: Whether yes is likelier than no.
        named: Whether the likeliest token is one of the two.
        layers: The token was named after.
    """

    said: list[bool]
    named: list[bool]
    layers: list[int]


def rows_of_boolq() -> list[Row]:
    """All of them, in the order of the file."""
    table = read("builtin:boolq")
    assert table.labels is not None
    positive = next(i for i, name in enumerate(table.label_names) if name.lower() in ("1", "true", "yes"))
    rows = []
    for text, label in zip(table.texts, table.labels, strict=True):
        first, second = text if isinstance(text, tuple) else (text, "")
        passage, question = sorted((first, second), key=len, reverse=True)
        rows.append(Row(passage, question.rstrip("?"), label == positive))
    return rows


def wordings(tokenizer: Any, rows: Sequence[Row], examples: Sequence[Row]) -> list[Wording]:
    """Every way to ask whose answers are single tokens."""

    def of(name: str, answers: tuple[str, str], prompts: list[list[int]]) -> list[Wording]:
        ids = [tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in answers]
        return [Wording(name, ids[0][0], ids[1][0], prompts)] if [len(i) for i in ids] == [1, 1] else []

    shown = "".join(f"{each.asked()} {'yes' if each.yes else 'no'}\n\n" for each in examples)
    found = of("bare", (" yes", " no"), [tokenizer(row.asked())["input_ids"] for row in rows])
    if examples:
        texts = [shown + row.asked() for row in rows]
        name = f"after {len(examples)} examples"
        found += of(name, (" yes", " no"), [tokenizer(text)["input_ids"] for text in texts])
    if tokenizer.chat_template:
        chats = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": row.asked()}], add_generation_prompt=True, tokenize=False
            )
            for row in rows
        ]
        ids = [tokenizer(chat, add_special_tokens=False)["input_ids"] for chat in chats]
        found += of("in chat", ("Yes", "No"), ids)
    return found


def examples_of(rows: Sequence[Row]) -> list[Row]:
    """Two of each answer among short rows, in turn; fewer where there are not so many."""
    short = [row for row in rows if len(row.passage.split()) <= SHORT]
    both = [[row for row in short if row.yes is yes][:2] for yes in (True, False)]
    return [row for pair in zip(*both, strict=False) for row in pair]


@torch.no_grad()
def answered(model: LessenForCausalLM, wording: Wording, point: Point | None) -> Answered:
    """Answers at a Point, or at full depth, by one whole pass for each prompt: the slow definition."""
    inner, found = model.transformer, Answered([], [], [])
    rule = None if point is None else point.exits
    for prompt in wording.prompts:
        logits, layer = _named(model, prompt, rule)
        found.said.append(bool(logits[wording.yes] > logits[wording.no]))
        found.named.append(int(logits.argmax()) in (wording.yes, wording.no))
        found.layers.append(layer or inner.depth)
    return found


def _named(
    model: LessenForCausalLM, prompt: Sequence[int], rule: ExitRule | None
) -> tuple[torch.Tensor, int | None]:
    """Logits of what comes after a prompt, where its last token leaves, and after which layer it does."""
    inner = model.transformer
    early: list[tuple[torch.Tensor, int]] = []

    def after(layer: int, hidden: torch.Tensor, rows: Any) -> tuple[torch.Tensor, Any]:
        decision = None if early else decide(inner, layer, hidden[-1:], rule, model.stop_tokens, [0])
        if decision is not None and decision.leaves[0]:
            early.append((decision.logits[0], layer))
        return hidden, rows

    hidden, _ = inner(*pack([torch.tensor(prompt)]), after_layer=after)
    return early[0] if early else (inner.next_token(hidden[-1:])[0], None)


def balanced(said: Sequence[bool], rows: Sequence[Row]) -> float:
    """Mean of the shares of right answers among yes and among no: always saying yes gets one half."""
    shares = []
    for yes in (True, False):
        of = [one is yes for one, row in zip(said, rows, strict=True) if row.yes is yes]
        shares.append(mean(of) if of else 0.0)
    return mean(shares)


def boolq(model: LessenForCausalLM, point: Point | None, count: int) -> dict[str, Any]:
    """Accuracy at full depth and at a Point, how often neither answer is the likeliest, and agreement."""
    tokenizer, room = model.tokenizer, model.config.facts().max_tokens
    assert tokenizer is not None
    pool = rows_of_boolq()
    examples = examples_of(pool[:TO_CHOOSE])
    others = [row for row in pool[:TO_CHOOSE] if row not in examples]
    tried = {}
    for wording in wordings(tokenizer, others, examples):
        fits = [place for place, ids in enumerate(wording.prompts) if len(ids) <= room]
        asked = Wording(wording.name, wording.yes, wording.no, [wording.prompts[place] for place in fits])
        tried[wording.name] = balanced(answered(model, asked, None).said, [others[place] for place in fits])
    name = max(tried, key=lambda each: tried[each])
    pool = pool[TO_CHOOSE:]
    wording = next(each for each in wordings(tokenizer, pool[: 2 * count], examples) if each.name == name)
    fits = [place for place, ids in enumerate(wording.prompts) if len(ids) <= room][:count]
    rows = [pool[place] for place in fits]
    wording = Wording(name, wording.yes, wording.no, [wording.prompts[place] for place in fits])
    share = mean(row.yes for row in rows)
    lines: dict[str, Any] = {"most frequent": {"accuracy": max(share, 1 - share)}}
    off = answered(model, wording, None)
    ways = {"off": off} | ({} if point is None else {"direct exact": answered(model, wording, point)})
    rights = {
        way: [one is row.yes for one, row in zip(its.said, rows, strict=True)] for way, its in ways.items()
    }
    for way, its in ways.items():
        lines[way] = {
            "accuracy": mean(rights[way]),
            "balanced": balanced(its.said, rows),
            "unanswered": 1 - mean(its.named),
            "agreement": mean(one is other for one, other in zip(its.said, off.said, strict=True)),
            "mean_layers": mean(its.layers),
        }
    return {"rows": len(rows), "wording": name, "tried": tried, "lines": lines, "change": _change(rights)}


def _change(rights: dict[str, list[bool]]) -> dict[str, float] | None:
    """Accuracy at the Point less that of full depth, paired."""
    if "direct exact" not in rights:
        return None
    change = [
        float(one) - float(other) for one, other in zip(rights["direct exact"], rights["off"], strict=True)
    ]
    return {"mean": mean(change), "se": stdev(change) / len(change) ** 0.5 if len(change) > 1 else 0.0}
