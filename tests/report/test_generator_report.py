"""A generator's report and evaluation: figures are those of the modes, the page says what the facts say."""

import json
import re
from pathlib import Path

import pytest
from conftest import run
from test_page import NASTY, read

from lessen.report.page import page_of, write_report


@pytest.fixture(scope="module")
def reported(early_talker, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("report")
    code, printed, err = run(
        "report", early_talker[0], "--out", out, "--rows", 3, "--seconds", 0.1, "--prompts", 20, "--json"
    )
    assert code == 0, err
    assert "20 prompts: test documents of" in err
    facts = json.loads((out / "report.json").read_text())
    assert {"files", *facts} == set(json.loads(printed))
    return out, facts


def test_the_facts_are_those_of_points_and_modes(reported) -> None:
    _, facts = reported
    assert (facts["kind"], facts["rows"]["count"], facts["rows"]["decoded"]) == ("generator", 20, 3)
    (model,) = facts["models"]
    full, own = model["points"]
    assert (full["value"], full["early"], full["mean_layers"], full["promise"]) == (1, 0, 3, None)
    assert (own["name"], own["promise"]) == (model["point"], "certified")
    assert sum(own["layers"].values()) == pytest.approx(1)
    assert own["early"] == pytest.approx(1 - own["layers"]["3"])
    assert model["block"] == 6, "no more tokens than a continuation has"
    assert [exit["layer"] for exit in model["exits"]] == [1, 2, 3]
    assert model["exits"][-1]["agreement"] == 1
    assert [line["mode"] for line in model["modes"]] == ["off", "direct exact", "direct propagate", "spec"]
    assert [row["mode"] for row in facts["times"]] == [
        "off", "direct exact", "direct propagate", "spec", "transformers",
    ]  # fmt: skip
    rows = {row["mode"]: row for row in facts["times"]}
    assert all(rows[mode]["identical"] for mode in ("off", "spec", "transformers"))
    assert len(model["examples"]) == 3
    assert all(len(piece) == 3 for example in model["examples"] for piece in example["read"])
    depths = [spot["mean_layers"] for spot in model["path"]]
    assert depths == sorted(depths, reverse=True)


def test_the_page_says_what_the_facts_say(reported) -> None:
    out, facts = reported
    page = (out / "report.html").read_text()
    reader = read(page)
    assert not reader.tags & {"script", "link", "img", "iframe"}
    assert len(reader.ids) == len(set(reader.ids)), "charts do not share ids"
    for reference in re.findall(r'(?:href="#|url\(#)([^")]+)', page):
        assert reference in reader.ids
    text = " ".join(reader.text.split())
    (model,) = facts["models"]
    for sentence in (*model["certificate"]["sentences"], *model["certificate"]["not_said"]):
        assert sentence in text
    assert f"{100 * model['points'][1]['value']:.1f}%" in text
    assert "Where tokens are named, direct exact" in text
    assert re.search(r'<span class="piece s\d( wrong)?" title="\d of 3 layers">', page)
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")


def test_texts_and_names_cannot_break_it(reported, tmp_path: Path) -> None:
    _, facts = reported
    (model,) = facts["models"]
    nasty = model | {
        "name": NASTY, "certificate": None, "examples": [{"text": NASTY, "read": [[NASTY, 1, False]]}],
    }  # fmt: skip
    reader = read(page_of(facts | {"models": [nasty]}))
    assert "script" not in reader.tags
    assert NASTY in reader.text
    assert "Nothing is certified" in reader.text
    write_report(facts | {"models": [nasty]}, tmp_path)


def test_a_model_at_full_depth_has_a_page_too(reported) -> None:
    """Exits that nothing could be certified of: no mode but off, no path."""
    _, facts = reported
    (model,) = facts["models"]
    bare = model | {
        "certificate": None, "point": "full", "points": model["points"][:1], "path": [],
        "modes": model["modes"][:1],
    }  # fmt: skip
    text = read(page_of(facts | {"models": [bare], "times": facts["times"][:1]})).text
    assert "Nothing is certified" in text
    assert "Where tokens are named" not in text


def test_own_prompts_appear_only_where_asked_for(early_talker, word_text: Path, tmp_path: Path) -> None:
    newer = tmp_path / "newer.txt"
    newer.write_text("".join(f"the good house of number {i} is a story\n\n" for i in range(12)))
    options = ("--data", newer, "--rows", 2, "--seconds", 0.1, "--against", "none", "--json")
    code, out, err = run("report", early_talker[0], "--out", tmp_path / "r", *options, "--with-examples")
    assert code == 0, err
    found = json.loads(out)
    assert "good" in found["models"][0]["examples"][0]["text"]
    assert "transformers" not in [row["mode"] for row in found["times"]]
    both = tmp_path / "both.txt"
    both.write_text(word_text.read_text() + newer.read_text())
    code, out, err = run("evaluate", early_talker[0], "--data", both, "--prompts", 3, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["n"], found["new_tokens"], found["prompt_tokens"]) == (3, 6, 8), "as it was calibrated"
    assert found["left_out"] == 180 + 30 + 40
    assert [line["mode"] for line in found["modes"]] == ["off", "direct exact", "direct propagate", "spec"]
    code, out, err = run(
        "evaluate", early_talker[0], "--data", newer, "--prompts", 3, "--point", "disagreement-30%",
        "--new-tokens", 4,
    )  # fmt: skip
    assert code == 0, err
    assert "direct exact, disagreement-30%: named " in out
    assert "continued by up to 4" in out


REFUSED = [
    (("report", "{}", "{}"), "a report is about one generator"),
    (("report", "{}", "--against", "onnxruntime"), "a generator's report knows transformers, or none"),
    (("report", "{}", "--label-column", "x"), "--label-column does not apply"),
    (("report", "{plain}", "--data", "{text}"), "has no exits that name tokens to report on"),
    (("report", "{}", "--data", "{few}"), "2 documents are left that the model has not seen"),
    (("evaluate", "{}", "--data", "{seen}"), "trained, tuned or calibrated on every document"),
    (("evaluate", "{}", "--data", "{few}", "--new-tokens", 90), "the model takes 66"),
    (("evaluate", "{}", "--data", "{few}", "--point", "slow"), "no point named 'slow'"),
]


@pytest.mark.parametrize(("command", "why"), REFUSED, ids=[why[:40] for _, why in REFUSED])
def test_what_does_not_fit_is_one_line(
    early_talker, word_talker: Path, word_text: Path, tmp_path: Path, command, why: str
) -> None:
    few, seen = tmp_path / "few.txt", tmp_path / "seen.txt"
    few.write_text("a film nobody saw\n\nanother film nobody saw\n")
    seen.write_text(word_text.read_text())
    if "{seen}" in command:
        from lessen.data.documents import documents
        from lessen.promise.prompts import unseen

        table = documents(str(word_text))
        fresh, _ = unseen(early_talker[0], table)
        left = [text for text in table.texts if text not in set(fresh.texts)]
        seen.write_text("\n\n".join(left))
    places = {
        "{}": early_talker[0],
        "{plain}": word_talker,
        "{text}": word_text,
        "{few}": few,
        "{seen}": seen,
    }
    code, out, err = run(*(places.get(part, part) for part in command), *(
        ("--out", tmp_path / "r") if command[0] == "report" else ()
    ))  # fmt: skip
    assert (code, out) == (2, "")
    assert why in err
    assert err.strip().splitlines()[-1].startswith("lessen: ")
