"""Exits of a generator from the command line: compress, resume, calibrate, inspect, saved alone, refused."""

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import EXIT_OPTIONS, run, tiny_generator

import lessen
from lessen.artefact import EXITS, WEIGHTS
from lessen.errors import ArtefactError, InputError, LessenError
from lessen.model.digests import base_digest
from lessen.systems.generator import usual_exits, usual_kind

OPTIONS = EXIT_OPTIONS


@pytest.fixture(scope="module")
def talker(word_talker: Path) -> Path:
    return word_talker


@pytest.fixture(scope="module")
def text(word_text: Path) -> Path:
    return word_text


@pytest.fixture(scope="module")
def made(early_talker: tuple[Path, dict]) -> tuple[Path, dict]:
    return early_talker


def test_a_run_trains_certifies_and_tests_on_documents_of_their_own(made) -> None:
    out, facts = made
    assert facts["rows"] == {"train": 180, "tune": 30, "calibration": 40, "test": 40}
    assert [row["layer"] for row in facts["exits"]] == [1, 2]
    assert all(0 < row["agreement"] <= row["top5_agreement"] <= 1 for row in facts["exits"])
    assert all(row["asked"] < 1 and row["kl"] > 0 for row in facts["exits"])
    assert facts["training"][0]["steps"] == 5
    assert facts["calibration"]["certified"]
    (point,) = facts["calibration"]["points"]
    assert point["name"] == "disagreement-30%"
    assert point["early"] > 0
    assert point["risk"] < 0.3
    assert "macs_ratio" not in point
    full, early = facts["points"]
    assert (full["name"], full["early"], full["value"], full["mean_layers"]) == ("full", 0, 1, 3)
    assert early["mean_layers"] < 3
    assert early["value"] >= 0.7, "certified at 70 % on other prompts"
    assert not (out.parent / "small.work").exists()
    assert "text-generation" in (out / "README.md").read_text()


def test_the_certificate_says_what_it_is_about(made) -> None:
    out, _ = made
    found = json.loads((out / "certificate.json").read_text())
    how = found["generation"]
    model = lessen.load(out)
    assert (how["unit"], how["new_tokens"], how["prompt_tokens"]) == ("prompt", 6, 8)
    assert how["cache"] == "exact"
    assert how["base"] == base_digest(model.transformer)
    assert how["heads"] != how["base"]
    assert len(found["keys"]) == found["rows"] == 40
    (point,) = found["points"]
    assert point["pvalues"][point["step"]] == point["pvalue"] <= found["delta"]
    assert model.point.name == "disagreement-30%"
    assert model.point.promise.kind == "certified"
    card = " ".join((out / "README.md").read_text().split())
    assert (
        "with probability >= 80% over the calibration draw of 40 prompts, the expected share of tokens"
        in card
    )
    assert "on prompts exchangeable with the calibration set is <= 30%." in card


def test_it_is_no_certificate_of_other_weights(made, tmp_path: Path) -> None:
    out, _ = made
    model = lessen.load(out)
    model.transformer.language_exits["1"].up.weight.data.add_(1.0)
    model.save_pretrained(tmp_path / "changed")
    for file in ("certificate.json", "config.json"):
        (tmp_path / "changed" / file).write_bytes((out / file).read_bytes())
    with pytest.raises(ArtefactError, match="the folder's weights have changed since"):
        lessen.load(tmp_path / "changed")


def test_inspect_counts_the_exits(made) -> None:
    out, _ = made
    code, said, _ = run("inspect", out, "--json")
    assert code == 0
    facts = json.loads(said)
    first, _ = facts["language_exits"]
    assert first["kind"] == "gate"
    assert first["parameters"] == 36 + 2 * 4 * 36 + 36 + 1
    assert facts["parameters"]["exits"] == 2 * first["parameters"]
    assert facts["bytes_by_part"]["exits"] == 8 * first["parameters"] + 2 * 4
    assert 0 < first["layers_per_token"] < 1
    code, said, _ = run("inspect", out)
    assert "exit after layer 2: gate, rank 4" in said


def test_what_cannot_be_promised_uses_no_attempt_up(made) -> None:
    folder, _ = made
    before = (folder / "certificate.json").read_bytes(), (folder / "config.json").read_bytes()
    for options, why in (
        (("--loss", "drop"), "--loss drop: of a generator choose disagreement, selective or block"),
        (("--target-agreement", "0%"), "--target-agreement 0%: "),
        (("--target-agreement", "101%"), "--target-agreement 101%: "),
        (("--max-drop", "100%"), "--max-drop 100%: "),
    ):
        code, out, err = run("calibrate", folder, *options)
        assert (code, out) == (2, "")
        assert why in err
    assert before == ((folder / "certificate.json").read_bytes(), (folder / "config.json").read_bytes())


def test_calibrating_again_with_kept_traces_and_on_new_text(made, text: Path, tmp_path: Path) -> None:
    source, _ = made
    out = tmp_path / "copy"
    out.mkdir()
    for file in source.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    options = ("--loss", "selective", "--max-drop", "40%", "--confidence", "80%", "--json")
    code, said, err = run("calibrate", out, *options)
    assert code == 0, err
    facts = json.loads(said)
    assert (facts["loss"], facts["attempt"], facts["n"]) == ("selective", 2, 40)
    more = tmp_path / "more.txt"
    more.write_text(text.read_text() + "".join(f"a new film number {i} of love\n\n" for i in range(30)))
    options = ("--loss", "block", "--block", 3, "--target-agreement", "50%", "--json")
    code, said, err = run("calibrate", out, "--data", more, *options)
    assert code == 0, err
    facts = json.loads(said)
    assert facts["n"] == 330 - facts["dropped"]
    assert facts["dropped"] == 180 + 30


@pytest.fixture(scope="module")
def alone(talker: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exits of the same run, saved without the model."""
    out = tmp_path_factory.mktemp("alone") / "exits"
    code, _, err = run("compress", talker, "--data", text, "--out", out, *OPTIONS, "--exits-only")
    assert code == 0, err
    return out


def test_exits_saved_alone_find_their_model_and_refuse_another(
    talker: Path, tmp_path: Path, made, alone: Path
) -> None:
    exits = copied(alone, tmp_path / "exits")
    assert not (exits / WEIGHTS).exists()
    assert (exits / EXITS).stat().st_size < 20_000
    found, whole = lessen.load(exits), lessen.load(made[0])
    states = whole.transformer.state_dict()
    for name, value in found.transformer.state_dict().items():
        assert torch.equal(value, states[name]), name
    assert found.point.promise.kind == "certified"
    assert found.point.exits == whole.point.exits
    other = tmp_path / "other"
    tiny_generator("llama-grouped", seed=1, vocab_size=40, eos_token_id=None).save_pretrained(other)
    with pytest.raises(ArtefactError, match=rf"exits belong to {talker}; the weights of {other} are others"):
        lessen.load(tmp_path / "exits", base=other)
    tiny_generator("llama", vocab_size=40).save_pretrained(other)
    with pytest.raises(ArtefactError, match="hidden_size 36, not 40"):
        lessen.load(tmp_path / "exits", base=other)
    with pytest.raises(InputError, match="is a whole model"):
        lessen.load(talker, base=other)
    code, said, err = run("calibrate", tmp_path / "exits", "--target-agreement", "60%", "--json")
    assert code == 0, err
    assert json.loads(said)["points"][0]["name"] == "disagreement-40%"


CHANGED = {
    "vocabulary": {"vocab_size": 41},
    "depth": {"num_hidden_layers": 4},
    "norm": {"rms_norm_eps": 1e-3},
    "positions": {"max_position_embeddings": 70},
    "turning": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "weights": {"seed": 1},
}


@pytest.mark.parametrize("what", CHANGED)
def test_exits_are_refused_by_any_other_model(what: str, alone: Path, tmp_path: Path) -> None:
    """P17: sizes, norms, positions and weights of the model are those the exits were trained on."""
    changes = {"vocab_size": 40, "eos_token_id": None, **CHANGED[what]}
    tiny_generator("llama-grouped", **changes).save_pretrained(tmp_path / "other")
    assert lessen.load(alone).transformer.language_exits
    with pytest.raises(ArtefactError, match="exits belong to"):
        lessen.load(alone, base=tmp_path / "other")


def test_exits_saved_alone_become_a_whole_model_that_keeps_its_promises(
    alone: Path, made, tmp_path: Path
) -> None:
    """Same weights in another file: certificate, Points, path and traces go along."""
    model = lessen.load(alone)
    model.save_pretrained(tmp_path / "whole")
    whole = lessen.load(tmp_path / "whole")
    assert (tmp_path / "whole" / WEIGHTS).exists()
    assert not (tmp_path / "whole" / EXITS).exists()
    assert whole.point.promise.kind == "certified"
    assert [step.exits for step in whole.config.steps()] == [step.exits for step in model.config.steps()]
    assert whole.config.steps()
    before, after = certificate_of(alone), certificate_of(tmp_path / "whole")
    assert before["weights"] != after["weights"]
    assert before["form"] != after["form"]
    assert before | {"weights": 0, "form": 0} == after | {"weights": 0, "form": 0}
    code, said, err = run("calibrate", tmp_path / "whole", "--target-agreement", "60%", "--json")
    assert code == 0, err
    assert json.loads(said)["attempt"] == 2, "it knows that these prompts were used"
    lessen.load(tmp_path / "whole").save_pretrained(tmp_path / "again")
    assert lessen.load(tmp_path / "again").points["disagreement-40%"].promise.kind == "certified"


def test_exits_that_were_changed_are_saved_whole_without_promises(alone: Path, tmp_path: Path) -> None:
    for part in ("language_exits.1.up.weight", "layers.0.attention.output.weight"):
        model = lessen.load(alone)
        with torch.no_grad():
            model.transformer.get_parameter(part).add_(1e-3)
        model.save_pretrained(tmp_path / part)
        found = lessen.load(tmp_path / part)
        assert found.point.promise.kind == "uncertified"
        assert not (tmp_path / part / "certificate.json").exists()
        assert not (tmp_path / part / "calibration.safetensors").exists()
    lessen.load(alone, precision="bfloat16").save_pretrained(tmp_path / "rounded")
    assert not (tmp_path / "rounded" / "certificate.json").exists()


def edited(folder: Path, tmp_path: Path, change) -> Path:
    """A copy of exits saved alone, uncertified, whose config was changed by hand."""
    place = copied(folder, tmp_path / "edited")
    (place / "certificate.json").unlink()
    config = json.loads((place / "config.json").read_text())
    config |= {"points": [], "path": [], "point": "full"}
    change(config)
    (place / "config.json").write_text(json.dumps(config))
    return place


def certificate_of(folder: Path) -> dict:
    return json.loads((folder / "certificate.json").read_text())


def copied(folder: Path, place: Path) -> Path:
    return Path(shutil.copytree(folder, place))


EDITED = {
    "depth": lambda config: config["shape"]["language_exits"].pop(0),
    "kind": lambda config: config["shape"]["language_exits"][0].update(kind="tied"),
    "rank": lambda config: config["shape"]["language_exits"][0].update(rank=5),
    "shape's version": lambda config: config["shape"].update(version=2),
    "format's version": lambda config: config.update(format_version=9),
}


@pytest.mark.parametrize("what", EDITED)
def test_exits_are_what_their_config_says(what: str, alone: Path, tmp_path: Path) -> None:
    """P17: another depth, kind or size than the file's, or a newer format, is refused in one line."""
    place = edited(alone, tmp_path, EDITED[what])
    code, out, err = run("generate", place, "a film", "--mode", "spec", "--point", "1")
    assert (code, out) == (2, ""), err
    assert len(err.strip().splitlines()) == 1
    assert str(place) in err


def test_a_file_of_exits_from_another_model_is_refused(alone: Path, tmp_path: Path) -> None:
    """P17: the same sizes, other weights; the file itself says whose they are."""
    from safetensors.torch import load_file, save_file

    place = edited(alone, tmp_path, lambda config: None)
    assert lessen.load(place).transformer.language_exits
    heads = load_file(place / EXITS)
    for metadata in (None, {"base": "0" * 64}):
        save_file(heads, place / EXITS, metadata=metadata)
        code, _, err = run("generate", place, "a film")
        assert code == 2
        assert f"{place / EXITS} belongs to another model than config.json says" in err


@pytest.mark.parametrize("left", [0, 100, None])
def test_weights_that_are_cut_or_gone_are_said_before_any_promise(
    made, left: int | None, tmp_path: Path
) -> None:
    place = copied(made[0], tmp_path / "copy")
    weights = place / WEIGHTS
    if left is None:
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:left])
    code, _, err = run("generate", place, "a film")
    assert code == 2
    assert ("has no model.safetensors" if left is None else "is truncated or not a safetensors file") in err
    assert "calibrate" not in err


def test_a_prompt_that_is_not_utf_8_is_refused(made, monkeypatch) -> None:
    torn = b"a caf\xe9 film".decode("utf-8", "surrogateescape")
    monkeypatch.setattr("sys.stdin", io.StringIO(torn))
    for prompt in (torn, "-"):
        code, _, err = run("generate", made[0], prompt)
        assert code == 2
        assert "the prompt is not UTF-8 text (character 6)" in err
    with pytest.raises(InputError, match="not UTF-8"):
        lessen.load(made[0]).generate_text([torn])
    with pytest.raises(InputError, match=r"point 0\.3: give a Point, or the name of one"):
        lessen.load(made[0]).generate_text(["a film"], mode="spec", point=0.3)


def test_short_lists_are_no_longer_than_the_text_has_words(talker: Path, text: Path, tmp_path: Path) -> None:
    options = [*OPTIONS, "--head", "shortlist", "--words", 39]
    code, _, err = run("compress", talker, "--data", text, "--out", tmp_path / "small", *options)
    assert code == 0, err
    model = lessen.load(tmp_path / "small")
    words = model.config.form().language_exits[0].words
    assert 0 < words < 39
    assert f"the text has {words} different tokens: short lists are of these" in err
    assert len(model.transformer.language_exits["1"].words) == words


def test_exits_are_judged_once(talker: Path, text: Path, made, tmp_path: Path, monkeypatch) -> None:
    """A run stopped while prompts are continued does not judge its exits again."""
    from lessen.promise import traces
    from lessen.systems import generator

    judged: list[int] = []
    whole, judge = traces.continued, generator.exit_quality
    monkeypatch.setattr(traces, "continued", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr(generator, "exit_quality", lambda *_: judged.append(1) or judge(*_))
    arguments = ("compress", talker, "--data", text, "--out", tmp_path / "small", *OPTIONS)
    assert run(*arguments)[0] == 130
    monkeypatch.setattr(traces, "continued", whole)
    code, out, err = run(*arguments)
    assert code == 0, err
    assert judged == [1]
    assert json.loads(out)["exits"] == made[1]["exits"]


def test_another_tokenizer_ends_the_certificate(made, tmp_path: Path) -> None:
    """P17: token ids would mean other words."""
    place = copied(made[0], tmp_path / "copy")
    tokenizer = json.loads((place / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    words["film"], words["song"] = words["song"], words["film"]
    (place / "tokenizer.json").write_text(json.dumps(tokenizer))
    code, _, err = run("generate", place, "a film", "--mode", "direct")
    assert code == 2
    assert "the folder's tokenizer has changed since" in err


def test_continuing_prompts_can_be_stopped_and_goes_on(
    talker: Path, text: Path, made, tmp_path: Path, monkeypatch
) -> None:
    """Stopped while a second batch of calibration prompts is continued: the first is not continued again."""
    from lessen.promise import traces

    prompts: list[int] = []
    whole = traces.continued

    def counted(model, batch, *options):
        prompts.append(len(batch))
        if len(prompts) == 4:  # 30 tuning prompts are two batches
            raise KeyboardInterrupt
        return whole(model, batch, *options)

    monkeypatch.setattr(traces, "continued", counted)
    arguments = ("compress", talker, "--data", text, "--out", tmp_path / "small", *OPTIONS)
    code, out, err = run(*arguments)
    assert (code, out) == (130, "")
    assert "stopped after 16 of 40 prompts; run the same command to continue" in err
    assert prompts == [16, 14, 16, 16]
    prompts[:] = [0] * 4
    code, out, err = run(*arguments)
    assert code == 0, err
    assert prompts[4:] == [16, 8, 16, 16, 8], "what is left of calibration prompts, and those of the test"
    assert json.loads(out)["points"] == made[1]["points"]
    assert certificate_of(tmp_path / "small")["answers"] == certificate_of(made[0])["answers"]
    assert not (tmp_path / "small.work").exists()

    newer = tmp_path / "newer.txt"
    newer.write_text("".join(f"a new film number {i} of love\n\n" for i in range(40)))
    prompts[:] = [0] * 2
    arguments = ("calibrate", tmp_path / "small", "--data", newer, "--json")
    code, out, err = run(*arguments)
    assert (code, out) == (130, "")
    assert "stopped after 16 of 40 prompts" in err
    assert (tmp_path / "small.work" / "calibration").is_dir()
    prompts[:] = [0] * 4
    code, out, err = run(*arguments)
    assert code == 0, err
    assert prompts[4:] == [16, 8]
    assert not (tmp_path / "small.work").exists()

    prompts[:] = [0] * 2
    few = tmp_path / "few"
    arguments = (*arguments, "--precision", "int8", "--out", few)
    code, out, err = run(*arguments)
    assert (code, out) == (130, "")
    assert (tmp_path / "few.work" / "calibration").is_dir()
    assert not few.exists()
    prompts[:] = [0] * 4
    code, out, err = run(*arguments)
    assert code == 0, err
    assert prompts[4:] == [16, 8]
    assert not (tmp_path / "few.work").exists()
    assert lessen.load(few).precision == "int8"


def test_a_block_longer_than_a_continuation_is_refused(made, tmp_path: Path) -> None:
    """It would be certified of tokens nobody looked at."""
    place = copied(made[0], tmp_path / "copy")
    options = ("--loss", "block", "--target-agreement", "50%")
    code, _, err = run("calibrate", place, *options)
    assert code == 2
    assert "a block of 32 tokens is longer than the 6 new tokens of a continuation" in err
    assert run("calibrate", place, *options, "--block", 6)[0] == 0


def said_by(folder: Path, *options: object) -> tuple[dict, str]:
    code, out, err = run("generate", folder, "a film", "--max-new-tokens", 12, *options, "--json")
    assert code == 0, err
    return json.loads(out), err


def test_modes_of_generating(made) -> None:
    """Drafts change nothing of the text; early tokens say where they left, and what is promised of them."""
    folder, _ = made
    off, _ = said_by(folder)
    spec, err = said_by(folder, "--mode", "spec")
    assert (spec["tokens"], spec["text"]) == (off["tokens"], off["text"])
    assert (spec["point"], err) == (None, ""), "it drafts by what was chosen on tuning prompts"
    assert json.loads((folder / "config.json").read_text())["drafts"]["weights_saved"] > 0
    named, _ = said_by(folder, "--mode", "spec", "--point", "disagreement-30%")
    assert (named["tokens"], named["point"]) == (off["tokens"], "disagreement-30%")
    assert (off["layers"], off["weight_passes"], off["point"]) == ([3] * 12, 1.0, None)
    code, out, err = run("generate", folder, "a film", "--mode", "direct", "--json")
    assert (code, err) == (0, "")
    sure = json.loads(out)
    assert (sure["kv"], sure["certified"]) == ("exact", True)
    assert len(sure["tokens"]) == 6, "as many as the Point is certified for"
    direct, err = said_by(folder, "--mode", "direct")
    assert direct["certified"] is False
    assert "certified for texts of up to 6 tokens; with --max-new-tokens 12 nothing is promised" in err
    assert len(direct["layers"]) == len(direct["tokens"]) == 12
    assert direct["mean_layers"] < 3
    assert direct["weight_passes"] < 1
    loose, err = said_by(folder, "--mode", "direct", "--kv", "propagate")
    assert (loose["kv"], loose["certified"]) == ("propagate", False)
    assert "certified for exact keys and values; of propagate nothing is promised" in err


def test_nothing_is_promised_of_other_prompts_or_other_ends(made, tmp_path: Path) -> None:
    folder, _ = made
    code, out, err = run("generate", folder, "a film of " * 6, "--mode", "direct", "--json")
    assert code == 0
    assert json.loads(out)["certified"] is False
    assert "certified for prompts of up to 8 tokens" in err
    shutil.copytree(folder, tmp_path / "m")
    place = tmp_path / "m" / "generation_config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"eos_token_id": 7}))
    with pytest.raises(LessenError, match=r"texts end at tokens \[7\]"):
        lessen.load(tmp_path / "m")
    code, _, err = run("generate", tmp_path / "m", "a film")
    assert code == 2
    assert "calibrate again" in err


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("evaluate", ("--batch-size", 4)), ("evaluate", ("--label-column", "y")), ("evaluate", ("--strict",)),
        ("evaluate", ("--speedups", "2")), ("bench", ("--batch", "1")), ("bench", ("--task", "regression")),
        ("report", ("--batch", "1")), ("calibrate", ("--pair-column", "b")),
    ],
)  # fmt: skip
def test_options_that_would_say_nothing_are_refused(
    made, word_text: Path, command: str, option: tuple
) -> None:
    code, _, err = run(command, made[0], "--data", word_text, *option)
    assert code == 2
    assert option[0] in err


def test_thresholds_in_place_of_a_point(made) -> None:
    folder, _ = made
    found, err = said_by(folder, "--mode", "direct", "--point", "-1,99")
    assert set(found["layers"]) == {2, 3}, "the gate lets some tokens pass, and no other exit is asked"
    assert found["certified"] is False
    assert "point 'entropy -1,99' is uncertified" in err
    found, _ = said_by(folder, "--mode", "direct", "--point", "-1", "--criterion", "closeness")
    assert set(found["layers"]) == {3}


def test_tokens_are_coloured_by_the_layer_they_left_at(made) -> None:
    folder, _ = made
    options = ("--max-new-tokens", 4, "--mode", "direct", "--point", "-1,99", "--explain")
    code, out, _ = run("generate", folder, "a film", *options)
    assert code == 0
    shown, text = out.splitlines()
    assert shown.split(": ")[1].split() == ["1", "2", "3"]
    assert text.count("₂") + text.count("₃") == 4
    assert "₂" in text


def test_one_text_is_no_list_of_texts(made) -> None:
    with pytest.raises(InputError, match="prompts is one text"):
        lessen.load(made[0]).generate_text("hello")


def test_heads_are_short_where_the_vocabulary_is_dear(made) -> None:
    facts = lessen.load(made[0]).config.facts()
    assert usual_kind(facts) == "tied"
    smollm2 = facts.model_copy(update={"vocab_size": 49152, "hidden_size": 576})
    assert usual_kind(smollm2) == "shortlist"
    assert usual_kind(smollm2.model_copy(update={"hidden_size": 2048})) == "tied"
    assert usual_exits(30, "tied") == [8, 16, 23]
    assert usual_exits(30, "shortlist") == [8, 16, 23, 29]
    assert usual_exits(2, "shortlist") == [1]


def test_the_same_words_in_python(made) -> None:
    model = lessen.load(made[0])
    off, spec = (model.generate_text(["a film"], max_new_tokens=8, mode=mode)[0] for mode in ("off", "spec"))
    assert off.tokens == spec.tokens
    assert off.layers == [3] * 8
    point = model.points["disagreement-30%"]
    (direct,) = model.generate_text(["a film"], max_new_tokens=8, mode="direct", point=point)
    assert min(direct.layers) < 3
    pieces = model.stream_text("a film", max_new_tokens=8, mode="direct", point="disagreement-30%")
    assert "".join(pieces) == direct.text


def test_every_mode_is_timed_and_compared(made, text: Path) -> None:
    options = ("--data", text, "--prompt-tokens", 4, "--new-tokens", 6, "--rows", 2, "--precision", "float32")
    code, out, err = run("bench", made[0], *options, "--json")
    assert code == 0, err
    found = json.loads(out)
    rows = {row["mode"]: row for row in found["rows"]}
    assert list(rows) == ["off", "direct exact", "direct propagate", "spec", "transformers"]
    assert found["point"] == "disagreement-30%"
    assert all(rows[mode]["identical"] for mode in ("off", "spec", "transformers"))
    assert rows["off"]["weight_passes"] == 1
    assert rows["direct exact"]["weight_passes"] < 1
    assert rows["direct propagate"]["macs_per_token"] < rows["off"]["macs_per_token"]
    assert rows["off"]["macs_per_token"] == rows["transformers"]["macs_per_token"]
    assert 0 <= rows["spec"]["acceptance"] <= 1
    assert rows["off"]["acceptance"] is None
    code, out, _ = run("bench", made[0], *options, "--point", "-1,-1", "--against", "none")
    assert code == 0
    assert "direct propagate" in out
    assert "transformers" not in out
    code, _, err = run("bench", made[0], *options, "--point", "full", "--point", "full")
    assert code == 2
    assert "timed at one Point" in err


GENERATE_REFUSED = [
    (("--mode", "fast"), "mode 'fast': choose off, direct, spec"),
    (("--mode", "direct", "--kv", "copy"), "kv 'copy': choose exact, propagate"),
    (("--mode", "direct", "--point", "slow"), "no point named 'slow'; this model has full, disagreement-30%"),
    (("--mode", "direct", "--point", "full"), "no token leaves early at point 'full'; this model has disag"),
    (("--mode", "direct", "--point", "1,2,3"), "3 thresholds, but there are exits after 1, 2"),
    (("--mode", "direct", "--point", "nan"), "--point: thresholds"),
    (("--mode", "direct", "--point", "1", "--criterion", "patience"), "cannot judge a next token"),
    (("--mode", "direct", "--criterion", "closeness"), "--criterion is of thresholds; give them too"),
    (("--mode", "direct", "--point", "disagreement-30%", "--criterion", "entropy"), "--criterion is of thr"),
    (("--top-k", 5), "--top-k and --top-p are about drawing tokens; give a --temperature above 0"),
    (("--temperature", -1), "Invalid value for '--temperature'"),
    (("--temperature", "inf"), "temperature inf: must be 0 or more, and finite"),
    (("--mode", "direct", "--temperature", 1), "use mode spec to draw tokens"),
    (("--mode", "spec", "--kv", "propagate"), "'propagate' is for mode direct"),
    (("--point", "full"), "mode off asks no exit"),
]


@pytest.mark.parametrize(("options", "why"), GENERATE_REFUSED, ids=[why[:40] for _, why in GENERATE_REFUSED])
def test_modes_that_do_not_fit_are_one_line(made, options, why: str) -> None:
    code, out, err = run("generate", made[0], "a film", *options)
    assert (code, out) == (2, "")
    assert why in err
    assert len(err.strip().splitlines()) == 1


def test_a_model_without_exits_has_one_mode(talker: Path) -> None:
    for mode in ("direct", "spec"):
        code, _, err = run("generate", talker, "a film", "--mode", mode)
        assert code == 2
        assert f"mode {mode}: the model has no exits that name tokens" in err


REFUSED = [
    (("--system", "pabee"), "use --system self-exit"),
    (("--system", "self-exit", "--epochs", 2), "--epochs does not apply"),
    (("--system", "self-exit", "--head", "wide"), "--head"),
    (("--system", "self-exit", "--exits", "1,3", "--prompt-tokens", 8, "--new-tokens", 6), "before the last"),
    (("--system", "self-exit", "--exits", "one"), "expected layer numbers"),
    (("--system", "self-exit", "--time-limit", "soon"), "such as 15m"),
    (("--system", "self-exit", "--criterion", "patience", "--exits", "1"), "cannot judge a next token"),
    (("--system", "self-exit", "--max-drop", "1%", "--target-agreement", "99%"), "give one of them"),
    (("--system", "self-exit", "--exits", "1", "--prompt-tokens", 64), "the model takes 66"),
]


@pytest.mark.parametrize(("options", "why"), REFUSED, ids=[why for _, why in REFUSED])
def test_what_does_not_fit_is_one_line(talker: Path, text: Path, tmp_path: Path, options, why: str) -> None:
    steps = ("--steps", 1) if "--prompt-tokens" in options else ()
    code, out, err = run("compress", talker, "--data", text, "--out", tmp_path / "o", *options, *steps)
    assert (code, out) == (2, "")
    assert why in err
    assert not (tmp_path / "o.work").exists()
    assert err.strip().splitlines()[-1].startswith("lessen: ")


def test_options_of_generators_are_not_for_classifiers(small: Path, data: Path, tmp_path: Path) -> None:
    code, _, err = run("compress", small, "--data", data, "--head", "tied", "--out", tmp_path / "out")
    assert code == 2
    assert "--head is for models that generate" in err
    code, _, err = run("calibrate", small, "--target-agreement", "95%")
    assert code == 2
    assert "is for models that generate" in err


@pytest.mark.parametrize("precision", ["int8-weights", "int4"])
def test_it_is_stored_in_few_bits_and_certified_so(made, tmp_path: Path, precision: str) -> None:
    folder, few = made[0], tmp_path / "few"
    options = ("--precision", precision, "--out", few, "--max-drop", "30%", "--json")
    code, printed, err = run("calibrate", folder, *options)
    assert code == 0, err
    assert "calibration documents of" in err
    assert json.loads(printed)["certified"]
    model = lessen.load(few)
    assert model.precision == precision
    assert model.points["disagreement-30%"].promise.kind == "certified"
    assert json.loads((few / "certificate.json").read_text())["precision"] == precision
    code, printed, err = run("generate", few, "the", "--mode", "direct", "--max-new-tokens", "4", "--json")
    assert code == 0, err
    assert json.loads(printed)["precision"] == precision
