"""The page is complete in itself, says what the facts say, and cannot be broken by what a text contains."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conftest import rows, run

import lessen
from lessen.data.table import Table
from lessen.report.facts import task_in
from lessen.report.page import page_of, pieces, shown, write_report

NASTY = '<script>alert("x")</script> & <b>bold</b>'


@pytest.fixture(scope="module")
def facts(small: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("report")
    code, printed, err = run(
        "report", small, "--out", out, "--rows", 8, "--seconds", 0.1, "--batch", "1,4", "--json",
        "--data", newer(out),
    )  # fmt: skip
    assert code == 0, err
    written = json.loads((out / "report.json").read_text())
    assert {"files", *written} == set(json.loads(printed))
    return written


def newer(folder: Path) -> Path:
    place = folder / "newer.csv"
    made = [("a great story", "pos"), ("a poor story", "neg")] * 40
    lines = [f"{text} told {i},{label}\n" for i, (text, label) in enumerate(made)]
    place.write_text("text,label\n" + "".join(lines))
    return place


class Reader(HTMLParser):
    """Collects tags and ids; every opened tag must be closed."""

    EMPTY = {"meta", "br", "link", "img", "input", "hr"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    return reader


def test_the_page_is_complete_in_itself(facts: dict[str, Any]) -> None:
    page = page_of(facts)
    reader = read(page)
    assert not reader.tags & {"script", "link", "img", "iframe"}
    assert not re.findall(r'(?:src|href)="(?!#)[^"]', page), "nothing is fetched"
    assert not re.findall(r"url\((?!#)", page)
    assert len(reader.ids) == len(set(reader.ids)), "charts do not share ids"
    for reference in re.findall(r'(?:href="#|url\(#)([^")]+)', page):
        assert reference in reader.ids
    assert 'name="viewport"' in page


def test_the_page_says_what_the_facts_say(facts: dict[str, Any]) -> None:
    text = " ".join(read(page_of(facts)).text.split())
    model = facts["models"][0]
    for sentence in (*model["certificate"]["sentences"], *model["certificate"]["not_said"]):
        assert sentence in text
    own = next(spot for spot in model["points"] if spot["name"] == model["point"])
    assert shown(own["value"], "accuracy") in text
    assert facts["machine"]["processor"] in text
    assert all(example["text"] in text for example in model["examples"])
    assert {row["kind"] for row in facts["times"]} == {"lessen", "torch"}
    assert {row["batch"] for row in facts["times"]} == {1, 4}


def test_texts_and_names_cannot_break_it(facts: dict[str, Any], tmp_path: Path) -> None:
    model = facts["models"][0] | {
        "name": NASTY,
        "examples": [{"text": NASTY, "layer": 1, "answer": NASTY, "right": True}],
    }
    times = [row | {"model": NASTY} for row in facts["times"]]
    changed = facts | {"models": [model], "times": times}
    reader = read(page_of(changed))
    assert "script" not in reader.tags
    assert NASTY in reader.text
    places = write_report(changed, tmp_path)
    assert places["png"].read_bytes().startswith(b"\x89PNG")


def test_undefined_figures_and_nothing_certified(facts: dict[str, Any]) -> None:
    model = facts["models"][0]
    spots = [spot | {"value": None} for spot in model["points"]]
    steps = [spot | {"value": None} for spot in model["path"]]
    bare = model | {"points": spots, "path": steps, "certificate": None, "metric": "pearson", "exits": [
        exit | {"value": None, "bins": [], "calibration_error": None} for exit in model["exits"]
    ]}  # fmt: skip
    times = [row | {"value": None} for row in facts["times"]]
    text = read(page_of(facts | {"models": [bare], "times": times})).text
    assert "undefined" in text
    assert "Nothing is certified" in text


def test_two_models_side_by_side(facts: dict[str, Any]) -> None:
    other = facts["models"][0] | {"name": "other"}
    times = facts["times"] + [row | {"model": "other"} for row in facts["times"]]
    text = read(page_of(facts | {"models": [facts["models"][0], other], "times": times})).text
    assert "other, exit by exit" in text
    assert "tokens leave along it" not in text
    assert "Tokens left after each layer" not in text


def test_rows_a_certificate_was_made_on_are_left_out(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(small, folder)
    file = newer(tmp_path)
    assert run("calibrate", folder, "--data", file, "--max-drop", "30%")[0] == 0
    code, _, err = run("report", folder, "--data", file)
    assert code == 2
    assert "0 rows are left that no model has seen" in err


def test_bad_input(small: Path, data: Path, tmp_path: Path) -> None:
    code, _, err = run("report", tmp_path / "nothing")
    assert code == 2
    assert "no such" in err or "not a folder" in err
    code, _, err = run("report", small, small)
    assert code == 2
    assert "named twice" in err
    seen = tmp_path / "seen.csv"
    seen.write_text("".join(data.read_text().splitlines(keepends=True)[:20]))
    code, _, err = run("report", small, "--data", seen)
    assert code == 2
    assert "rows are left that no model has seen" in err
    code, _, err = run("report", small, "--against", "abacus")
    assert code == 2
    assert "abacus" in err


@pytest.mark.parametrize("task", ["regression", "multi-label"])
def test_other_tasks(task: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    made = rows(400)
    labels = [
        i % 7 / 2 + 0.25 if task == "regression" else [["good"], ["bad", "long"]][i % 2] for i in range(400)
    ]
    data = tmp_path / "data.jsonl"
    lines = (json.dumps({"text": text, "label": y}) for (text, _), y in zip(made, labels, strict=True))
    data.write_text("\n".join(lines))
    out = tmp_path / "m"
    code, _, err = run(
        "compress", tiny_checkpoint, "--data", data, "--out", out, "--epochs", 1, "--max-drop", "30%"
    )
    assert code == 0, err
    code, printed, err = run(
        "report", out, "--against", "none", "--rows", 4, "--seconds", 0.1, "--batch", "2", "--with-examples"
    )
    assert code == 0, err
    assert "at full depth" in printed
    text = read((out / "report.html").read_text()).text
    assert {"regression": "Pearson's correlation", "multi-label": "micro-averaged F1"}[task] in text
    if task == "regression":
        model = lessen.load(out)
        assert task_in(out, model, Table("", [], None, None, [])).label_range == pytest.approx(3.0)
    assert ("Is its confidence right?" in text) == (task == "multi-label")


def test_pieces_leave_the_blank_before_a_word_bare() -> None:
    read = [("[CLS]", 6), ("a", 0), ("grip", 3), ("##ping", 5), ("film", 6)]
    assert pieces(read, 6) == [
        ("", "[CLS]", 6, 5), (" ", "a", 0, 0), (" ", "grip", 3, 2), ("", "ping", 5, 4), (" ", "film", 6, 5),
    ]  # fmt: skip
    marked = [("<s>", 6), ("Ġgood", 2), ("Ġ", 1)]
    assert pieces(marked, 6) == [("", "<s>", 6, 5), (" ", "good", 2, 2), (" ", "", 1, 1)]


def test_words_are_shaded_by_the_layers_they_went_through(adjustable: Path, tmp_path: Path) -> None:
    nasty = tmp_path / "nasty.csv"
    lines = [f'"<script>alert({i})</script> a great story",pos\n"a poor story {i}",neg\n' for i in range(20)]
    nasty.write_text("text,label\n" + "".join(lines))
    code, _, err = run(
        "report", adjustable, "--out", tmp_path / "r", "--rows", 4, "--seconds", 0.1, "--batch", "1",
        "--against", "none", "--with-examples", "--data", nasty, "--json",
    )  # fmt: skip
    assert code == 0, err
    page = (tmp_path / "r" / "report.html").read_text()
    assert "<script" not in page
    assert re.search(r'<span class="piece s\d">\[CLS\]<sub>[1-3]</sub></span>', page), "it never leaves"
    assert re.search(r' <span class="piece s\d">great<sub>[0-3]</sub></span>', page), (
        "the blank is not shaded"
    )
    assert page.count("those that left on the way still count") == 1
    assert "How tokens leave" in page
    assert "in “Quality against work” tokens leave along it" in page
    tokens = json.loads((tmp_path / "r" / "report.json").read_text())["models"][0]["tokens"]
    lines = [re.findall(r"<td>(.*?)</td>", line) for line in re.findall(r"<tr>(.*?)</tr>", page)]
    assert len(tokens["dial"]) > 2
    for spot in tokens["dial"]:
        trained = ' <span class="tag trained">trained to here</span>' if spot["speedup"] == 1.8 else ""
        value = shown(spot["value"], "accuracy")
        assert [f"{spot['speedup']:.3g}x{trained}", value, f"{spot['macs_ratio']:.2f}x"] in lines
    for name, shares in tokens["left"].items():
        row = [f"{100 * share:.0f}%" for share in shares]
        assert [name.removeprefix("speedup-"), *row] in lines
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    assert "script" not in reader.tags
