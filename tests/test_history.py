"""What a model has learned from goes with it, and judges none of its successors."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from conftest import run
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import lessen
from lessen.data.reading import read
from lessen.data.table import row_key
from lessen.errors import ArtefactError
from lessen.history import learned_before, learned_by
from lessen.promise.rows import kept_in
from lessen.systems.dividing import read_splits
from lessen.systems.planning import CompressionPlan
from lessen.systems.prompt_tokens import ReadingPlan, read_parts

AGAIN = ("--epochs", 1, "--seed", 7, "--max-drop", "50%", "--json")


@pytest.fixture(scope="module")
def twice(small: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A compressed model compressed again, on the same rows drawn otherwise; and what was said."""
    out = tmp_path_factory.mktemp("out") / "twice"
    code, _, said = run("compress", small, "--data", data, "--out", out, *AGAIN)
    assert code == 0, said
    return out, said


def test_no_row_judges_what_has_learned_from_it(small: Path, twice: tuple[Path, str], data: Path) -> None:
    out, said = twice
    first, second = kept_in(small), kept_in(out)
    assert first is not None
    assert second is not None
    rows = len(read(str(data)))
    assert f"{len(first.seen):,} of {data} the model has learned from" in said
    judging = {*second.tune.keys, *second.calibration.keys}
    assert not judging & first.seen
    assert second.before == first.seen
    assert first.seen <= second.seen
    assert sum(json.loads((out / "training.json").read_text())["rows"].values()) == rows


def test_its_test_rows_are_found_again(small: Path, twice: tuple[Path, str]) -> None:
    """By what it had learned before, whatever became of the model it was made from."""
    out, _ = twice
    plan = CompressionPlan.model_validate_json((out / "plan.json").read_text())
    test = read_splits(plan, learned_before(out))["test"]
    assert not {row_key(text) for text in test.texts} & learned_by(out)
    code, said, err = run("report", out, "--out", out.parent / "page.html", "--seconds", 0.1, "--batch", "1")
    assert code == 0, err
    assert "seen" not in err, said


def test_it_is_carried_along_where_weights_change(small: Path, tmp_path: Path) -> None:
    model = lessen.load(small)
    model.transformer.layers[0].feed_forward.up.weight.data[0, 0] += 1
    model.save_pretrained(tmp_path / "changed")
    assert learned_by(tmp_path / "changed") == learned_by(small) != frozenset()
    lessen.load(tmp_path / "changed").save_pretrained(tmp_path / "again")
    assert learned_by(tmp_path / "again") == learned_by(small)
    lessen.with_exits(lessen.load(small), labels=["a", "b"]).save_pretrained(tmp_path / "exits")
    auto = transformers.AutoModelForSequenceClassification.from_pretrained(small)
    auto.save_pretrained(tmp_path / "auto")
    for made in ("exits", "auto"):
        assert learned_by(tmp_path / made) == learned_by(small)
    assert learned_by("builtin:minilm-l6") == frozenset()


def test_a_home_folder_is_one(small: Path, data: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(small.parent))
    model = f"~/{small.name}"
    assert learned_by(model) == learned_by(small)
    code, _, err = run("evaluate", model, "--data", data, "--json")
    assert code == 0
    assert f"of 400 rows are among those {model} was trained, tuned or calibrated on" in err


def test_what_is_damaged_or_gone_is_said(small: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    lessen.load(small).save_pretrained(folder)
    place = folder / "calibration.safetensors"
    with safe_open(place, "pt") as file:
        about = file.metadata()
    tensors = load_file(place)
    for wrong in (tensors["seen"].flatten(), tensors["seen"].to(torch.int64)):
        save_file(tensors | {"seen": wrong}, place, metadata=about)
        code, _, err = run("compress", folder, "--data", data, "--out", tmp_path / "n", *AGAIN)
        assert code == 2
        assert f"{place}: cannot be read (hashes of" in err
    save_file({"before": tensors["before"]}, place, metadata=about)
    with pytest.raises(ArtefactError, match=r"cannot be read \('seen'\)"):
        learned_by(folder)
    save_file(tensors, place)  # by a tool that leaves out what a file says of itself
    assert learned_by(folder) == learned_by(small)
    code, _, err = run("calibrate", folder, "--max-drop", "50%")
    assert (code, f"{place}: cannot be read" in err) == (2, True), err
    place.write_bytes(b"rubbish")
    assert run("predict", folder, "a film", "--json")[0] == 0
    place.unlink()
    code, _, err = run("compress", folder, "--data", data, "--out", tmp_path / "n", *AGAIN)
    assert code == 0
    assert "what it learned from is not in its folder any more" in err


def test_rows_that_selected_steps_were_learned_from(
    tiny_checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    asked = ("--selection-share", 0.1, *AGAIN)
    code, _, err = run("compress", tiny_checkpoint, "--data", data, "--out", tmp_path / "m", *asked)
    assert code == 0, err
    counted = json.loads((tmp_path / "m" / "training.json").read_text())["rows"]
    assert len(learned_by(tmp_path / "m")) == counted["train"] + counted["selection"]


def test_what_binary_weights_learned_by_remembers(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "signs"
    asked = ("--system", "beexformer", *AGAIN)
    code, _, err = run("compress", "builtin:beexformer-test", "--data", data, "--out", out, *asked)
    assert code == 0, err
    assert learned_by(f"{out}-latent") == learned_by(out) != frozenset()


def test_a_generator_too(early_talker: tuple[Path, dict], word_text: Path, tmp_path: Path) -> None:
    from conftest import EXIT_OPTIONS

    first, out = early_talker[0], tmp_path / "twice"
    code, _, err = run("compress", first, "--data", word_text, "--out", out, *EXIT_OPTIONS, "--seed", 3)
    assert code == 0, err
    assert "the model has learned from: they are trained on again" in err
    assert learned_before(out) == learned_by(first) <= learned_by(out)


def test_one_that_reads_less_too(word_talker: Path, word_text: Path, tmp_path: Path) -> None:
    first, out, longer = tmp_path / "first", tmp_path / "second", tmp_path / "longer.txt"
    documents = word_text.read_text().split("\n\n")
    longer.write_text("\n\n".join(" ".join(documents[i : i + 4]) for i in range(0, 200, 4)))
    asked = ("--system", "latency-adjustable", "--prompt-tokens", 40, "--new-tokens", 4, "--speedup", 1.1)
    for start, place, seed in ((word_talker, first, 0), (first, out, 5)):
        options = (*asked, "--seed", seed, "--epochs", 0.2)
        code, _, err = run("compress", start, "--data", longer, "--out", place, *options)
        assert code == 0, err
    assert "the model has learned from: they are trained on again" in err
    assert learned_before(out) == learned_by(first) != frozenset()
    plan = ReadingPlan.model_validate_json((out / "plan.json").read_text())
    test = read_parts(plan, learned_before(out))["test"]
    assert not {row_key(text) for text in test.texts} & learned_by(out)
    table = tmp_path / "longer.jsonl"
    table.write_text("".join(json.dumps({"text": text}) + "\n" for text in longer.read_text().split("\n\n")))
    code, _, err = run("evaluate", out, "--data", table, "--prompt", "first-sentence")
    assert f"rows are among those {out} was trained, tuned or calibrated on" in err


def test_a_model_is_not_replaced_unless_asked(
    tiny_checkpoint: Path, small: Path, data: Path, tmp_path: Path
) -> None:
    latent = tmp_path / "signs-latent"
    lessen.load(small).save_pretrained(latent)
    asked = ("--data", data, "--system", "beexformer", "--out", tmp_path / "signs")
    code, _, err = run("compress", "builtin:beexformer-test", *asked)
    assert code == 2
    assert f"{latent} holds a model already" in err
    code, _, err = run("demo", "--out", latent)
    assert code == 2
    assert f"{latent} holds a model already; name another --out" in err
    out = tmp_path / "m"
    lessen.load(small).save_pretrained(out)
    before = (out / "model.safetensors").read_bytes()
    command = ("compress", tiny_checkpoint, "--data", data, "--out", out, *AGAIN)
    code, _, err = run(*command)
    assert code == 2
    assert f"{out} holds a model already; name another --out, or give --overwrite to replace it" in err
    assert (out / "model.safetensors").read_bytes() == before
    code, _, err = run(*command, "--overwrite")
    assert code == 0, err
    assert (out / "model.safetensors").read_bytes() != before
