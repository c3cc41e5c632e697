"""Binary models from compress: packed, and what they learned by beside them; from scratch or a teacher."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import BAD, GOOD, run, task
from safetensors.torch import load_file, save_file

import lessen
from lessen.bits.binarizer import EDGE
from lessen.data.reading import read
from lessen.errors import ArtefactError, InputError, Interrupted, PlanError
from lessen.model.few_bits import BinaryEmbedding, BinaryLinear
from lessen.model.latent import latents_of
from lessen.model.rows import pack
from lessen.plan import ExitShape, Latent
from lessen.promise.rows import rows_for
from lessen.promise.settle import Asked
from lessen.reshaping import in_latents, in_signs
from lessen.runtime.text import encode
from lessen.systems import system_of
from lessen.systems.binarizing import Binarizing, binarized, turning
from lessen.systems.pipeline import compress, keeps_latents, latent_beside
from lessen.systems.planning import plan_for
from lessen.train.callbacks import StopAtStepEnd
from lessen.train.fine_tuning import _optimizer, fine_tune


def compressed(model, data: Path, out: Path, name: str = "beexformer", **recipe):
    system = system_of(name)
    fast = {"epochs": 3.0, "batch_size": 32, "learning_rate": 3e-3, "max_tokens": 32}
    plan = plan_for(
        system,
        seed=0,
        recipe=fast | recipe,
        model=str(model),
        data=str(data),
        promise=Asked(bounds=(0.05,)),
    )
    [outcome] = compress(plan, system, out, say=lambda _: None, quiet=True)
    return outcome


@pytest.fixture(scope="module")
def binary(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("binary") / "b"
    compressed("builtin:beexformer-test", data, out, epochs=10.0, learning_rate=1e-3)
    return out


def test_from_scratch_and_packed(binary: Path) -> None:
    model = lessen.load(binary)
    assert isinstance(model.transformer.layers[0].attention.qkv, BinaryLinear)
    assert isinstance(model.transformer.embeddings.token, BinaryEmbedding)
    form = model.config.form()
    assert form.latent is None
    assert [exit.hidden_size for exit in form.exits] == [32] * 4
    assert model.predict(["wonderful acting number 3"])[0].label == "pos"
    assert (binary / "model.safetensors").stat().st_size < 0.17 * 4 * 180_000


@pytest.mark.parametrize(
    ("options", "forms"),
    [
        (["--exits", "2"], {(2, "mean", 32, "relu"), (4, "mean", 32, "relu")}),
        (["--exits", "3", "--pool", "cls"], {(3, "cls", 32, "relu"), (4, "cls", 32, "relu")}),
        (["--exits", "1", "--exit-hidden", "8"], {(1, "mean", 8, "relu"), (4, "mean", 8, "relu")}),
    ],
)
def test_exits_that_are_named_keep_the_systems_form(options, forms, data: Path, tmp_path: Path) -> None:
    given = ["--system", "beexformer", "--data", data, "--epochs", "0.1", "--out", tmp_path / "m", *options]
    code, _, err = run("compress", "builtin:beexformer-test", *given)
    assert code == 0, err
    exits = lessen.load(tmp_path / "m").config.form().exits
    assert {(exit.layer, exit.pool, exit.hidden_size, exit.activation) for exit in exits} == forms


def test_damage_is_named_where_a_certificate_knows_of_it_too(binary: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(binary, tmp_path / "damaged")
    assert (folder / "certificate.json").exists()
    state = load_file(folder / "model.safetensors")
    name = "transformer.layers.1.attention.qkv"
    state[f"{name}.weight"][3, 0] ^= 1
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtefactError, match=rf"{name}\.weight: .*checksum"):
        lessen.load(folder)


def test_a_precision_that_changes_no_layer_is_not_promised(binary: Path, data: Path) -> None:
    before = (binary / "config.json").read_bytes()
    with pytest.raises(PlanError, match="int8 changes none of its layers; load it in float32"):
        rows_for(binary, read(str(data)), precision="int8")
    code, out, err = run("calibrate", binary, "--precision", "int8", "--out", f"{binary}-int8")
    assert (code, out) == (2, "")
    assert "int8 changes none of its layers" in err
    assert not Path(f"{binary}-int8").exists()
    assert (binary / "config.json").read_bytes() == before


def test_a_copy_keeps_its_certificate_however_its_tokenizer_was_called(binary: Path, tmp_path: Path) -> None:
    """Its file would say to what length it cut last, and another file so after each reading."""
    model = lessen.load(binary)
    called = {"truncation": True, "max_length": 5, "padding": "max_length"}
    model.tokenizer("one two three four five six", **called)
    model.save_pretrained(tmp_path / "copy")
    assert model.tokenizer.backend_tokenizer.truncation["max_length"] == 5, "as it was"
    lessen.load(tmp_path / "copy").save_pretrained(tmp_path / "again")
    for folder in ("copy", "again"):
        assert (tmp_path / folder / "certificate.json").exists()
        assert (tmp_path / folder / "calibration.safetensors").exists()
        for name in ("tokenizer.json", "tokenizer_config.json"):
            assert (tmp_path / folder / name).read_bytes() == (binary / name).read_bytes()


def test_what_it_learned_by_lies_beside_it_and_learns_on(binary: Path, data: Path, tmp_path: Path) -> None:
    card = Path(f"{binary}-latent", "README.md").read_text()
    assert f"# {binary.name}-latent\n" in card
    assert "this folder is for training on" in card
    assert "?" not in card
    latent = lessen.load(f"{binary}-latent")
    assert latent.config.form().latent is not None
    for weight in latents_of(latent):
        assert 0 < weight.abs().max() <= 1 - 1e-3
    model, texts = lessen.load(binary), ["a great story number 8", "i hate it number 9"]
    for one, other in zip(latent.predict(texts), model.predict(texts, point="full"), strict=True):
        assert one.label == other.label
        assert one.probability == pytest.approx(other.probability, abs=1e-3)
    compressed(f"{binary}-latent", data, tmp_path / "on", activation_bits=8, epochs=1.0)
    layers = lessen.load(tmp_path / "on").config.form().layers
    assert {(layer.bits, layer.activation_bits) for layer in layers} == {(1, 8)}
    with pytest.raises(PlanError, match="keeps the latents"):
        compressed(binary, data, tmp_path / "no")


def test_it_goes_on_as_it_was(small: Path, data: Path, tmp_path: Path) -> None:
    some = in_latents(
        lessen.load(small),
        Latent(scale="learned", gradient="ste"),
        activation_bits=8,
        layers=[0, 2],
        embedding=False,
    )
    some.save_pretrained(tmp_path / "some")
    given = ["--system", "beexformer", "--data", data, "--epochs", "0.1", "--max-drop", "50%"]
    code, _, err = run("compress", tmp_path / "some", *given, "--out", tmp_path / "on")
    assert code == 0, err
    form = lessen.load(tmp_path / "on-latent").config.form()
    assert form.latent == some.config.form().latent
    assert [(layer.bits, layer.activation_bits) for layer in form.layers] == [(1, 8), (32, 32), (1, 8)]
    assert form.embedding_bits == 32
    code, _, err = run(
        "compress", tmp_path / "some", *given, "--binary-layers", "1", "--out", tmp_path / "less"
    )
    assert code == 2
    assert "layer 3 is binary already; name it too" in err
    given += ["--binary-layers", "1,2,3", "--activation-bits", "32"]
    code, _, err = run("compress", tmp_path / "some", *given, "--out", tmp_path / "more")
    assert code == 0, err
    layers = lessen.load(tmp_path / "more").config.form().layers
    assert [(layer.bits, layer.activation_bits) for layer in layers] == [(1, 32)] * 3


def latent_model():
    base = lessen.load("builtin:beexformer-test")
    exits = [ExitShape(layer=layer, pool="mean") for layer in range(1, len(base.config.form().layers) + 1)]
    recipe = system_of("beexformer").stages[0].model_copy(update={"batch_size": 8, "max_tokens": 32})
    return binarized(lessen.with_exits(base, exits=exits, labels=["no", "yes"]), recipe), recipe


def test_what_it_learns_by_is_clipped_after_every_step(tmp_path: Path) -> None:
    model, recipe = latent_model()
    fast = recipe.model_copy(update={"epochs": 0.5, "learning_rate": 0.5})
    fine_tune(model, task(), fast, tmp_path, quiet=True)
    for weight in latents_of(model):
        assert float(weight.abs().max()) == pytest.approx(1 - EDGE)


def test_what_it_learns_by_does_not_decay() -> None:
    """A latent that shrinks towards 0 would change its sign for no reason in the data."""
    model, recipe = latent_model()
    groups = _optimizer(model, recipe.model_copy(update={"weight_decay": 0.1})).param_groups
    decaying = {id(p) for group in groups if group["weight_decay"] > 0 for p in group["params"]}
    assert decaying
    assert not decaying & {id(latent) for latent in latents_of(model)}


def test_a_twin_in_32_bits(data: Path, tmp_path: Path) -> None:
    compressed("builtin:beexformer-test", data, tmp_path / "m", weight_bits=32, epochs=1.0)
    assert {layer.bits for layer in lessen.load(tmp_path / "m").config.form().layers} == {32}
    assert not (tmp_path / "m-latent").exists()
    for changed in ({"activation_bits": 8}, {"scale": "learned"}, {"gradual": 0.5}, {"layers": (1,)}):
        with pytest.raises(PlanError, match="about weights of 1 bit"):
            compressed("builtin:beexformer-test", data, tmp_path / "n", weight_bits=32, **changed)


def test_a_pre_trained_model_teaches_its_binary_self(
    tiny_checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m"
    options = {"layers": (1, 3), "embedding": False, "activation_bits": 8, "scale": "learned"}
    outcome = compressed(tiny_checkpoint, data, out, "binarize", epochs=2.0, **options)
    assert [layer.bits for layer in lessen.load(out).config.form().layers] == [1, 32, 1]
    assert [record["steps"] for record in outcome.training] == [18, 36]


def test_sizes_other_than_of_signs_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--rank: beexformer has no such choice; it belongs to cost-eff"):
        compressed("builtin:beexformer-test", data, tmp_path / "m", rank=0.5)
    with pytest.raises(InputError, match="such choice; it belongs to beexformer, binarize, masked-words"):
        compressed("builtin:beexformer-test", data, tmp_path / "m", "early-exit", gradient="ste")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["cost-eff", "--params", "1/2"], "parts leave feed-forward halves of two matrices only"),
        (["beexformer", "--binary-layers", "1,x"], "expected layer numbers"),
        (["beexformer", "--binary-layers", "9"], "there is no layer 9 to binarize; the model has 4"),
        (["beexformer", "--activation-bits", "4"], "--activation-bits 4: beexformer knows 1, 8, 32"),
        (["beexformer", "--alone"], "have no teacher anyway; --alone is for binarize"),
        (["early-exit", "--gradual", "0.5"], "it belongs to beexformer, binarize, masked-words"),
        (["masked-words", "--exits", "1,2"], "reads plain text and has no task"),
        (["masked-words", "--max-drop", "2%"], "reads plain text and has no task"),
    ],
)
def test_bad_wishes_cost_nothing(options: list[str], message: str, data: Path, tmp_path: Path) -> None:
    place = tmp_path / "m"
    code, _, said = run(
        "compress", "builtin:beexformer-test", "--data", data, "--out", place, "--system", *options
    )
    assert code == 2
    assert message in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("activation_bits", [32, 1])
def test_it_learns_32_rows_by_heart(activation_bits: int, tmp_path: Path) -> None:
    """T21 of BEExformer's page, in 150 steps."""
    torch.manual_seed(0)
    table = task(32)
    exits = [ExitShape(layer=layer, pool="mean", hidden_size=20, activation="relu") for layer in range(1, 5)]
    base = lessen.load("builtin:beexformer-test")
    model = lessen.with_exits(base, exits=exits, labels=table.label_names)
    recipe = Binarizing(
        objective="soft_routing", epochs=150, learning_rate=3e-3, activation_bits=activation_bits
    )
    model = binarized(model, recipe)
    fine_tune(model, table, recipe, tmp_path, quiet=True)
    from lessen.measure.evaluation import answers_of_every_exit

    answers = answers_of_every_exit(model, encode(model.tokenizer, table.texts, 64))
    right = (answers.argmax(-1) == torch.tensor(table.labels)).float().mean(-1)
    assert right.min() >= 0.95, right


def test_weights_turn_from_real_to_binary(data: Path, tmp_path: Path) -> None:
    """At share 0 the model is its float twin, in between neither, at the end exactly binary."""
    torch.manual_seed(0)
    base = lessen.load("builtin:beexformer-test")
    ids, rows = pack([torch.randint(5, 100, (20,))])
    for bits in (32, 1):
        recipe = Binarizing(activation_bits=bits, gradual=0.5)
        model = binarized(base, recipe)
        told = turning(model, recipe)
        assert told is not None
        found = {}
        with torch.no_grad():
            for done in (0.0, 0.25, 0.5, 1.0):
                told(done)
                found[done] = model.transformer(ids, rows)[0]
            real = base.transformer(ids, rows)[0]
            packed = in_signs(model).transformer(ids, rows)[0]
        torch.testing.assert_close(found[0.0], real, rtol=1e-4, atol=1e-5)  # products in another order
        assert (found[0.25] - found[0.0]).abs().max() > 1e-3
        assert torch.equal(found[0.5], found[1.0])
        if bits == 32:  # of one bit, a sign may turn the other way
            torch.testing.assert_close(packed, found[1.0], rtol=1e-3, atol=1e-3)
    assert turning(base, Binarizing()) is None
    assert turning(base, Binarizing(weight_bits=32, gradual=0.5)) is None


def test_a_gradual_training_ends_binary_and_resumes_the_same(data: Path, tmp_path: Path, monkeypatch) -> None:
    table = task(64)
    exits = [ExitShape(layer=layer, pool="mean") for layer in range(1, 5)]
    base = lessen.with_exits(lessen.load("builtin:beexformer-test"), exits=exits, labels=table.label_names)
    recipe = Binarizing(objective="soft_routing", epochs=4, batch_size=8, learning_rate=1e-3, gradual=0.7)
    shares: list[float] = []

    def trained(folder: Path) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = binarized(base, recipe)
        told = turning(model, recipe)
        assert told is not None

        def noted(done: float) -> None:
            told(done)
            shares.append(model.transformer.layers[0].attention.qkv.share)

        fine_tune(model, table, recipe, folder, told=noted, quiet=True)
        return model.state_dict()

    whole = trained(tmp_path / "whole")
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-10:] == [1.0] * 10
    assert 0.4 < shares[len(shares) // 3] < 0.6
    original = StopAtStepEnd.on_step_end

    def stop_at_13(self, args, state, control, **rest):
        self.asked = state.global_step == 13
        return original(self, args, state, control, **rest)

    monkeypatch.setattr(StopAtStepEnd, "on_step_end", stop_at_13)
    with pytest.raises(Interrupted, match="stopped after step 13"):
        trained(tmp_path / "parts")
    monkeypatch.undo()
    parts = trained(tmp_path / "parts")
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())


def test_plain_text_makes_a_start(data: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"{words} number {i}" for i in range(100) for words in (*GOOD, *BAD)))
    out = tmp_path / "start"
    code, said, err = run(
        "compress", "builtin:beexformer-test", "--data", text, "--out", out, "--system", "masked-words",
        "--epochs", 2, "--learning-rate", 5e-3, "--gradual", 0.2, "--json",
    )  # fmt: skip
    assert code == 0, err
    made = json.loads(said)
    assert made["after"]["loss"] < 0.8 * made["before"]["loss"]
    assert made["rows"] == {"train": 720, "test": 80}
    start = lessen.load(out)
    assert start.config.form().latent is not None
    assert not start.config.form().exits
    assert set(start.state_dict()) == set(lessen.load("builtin:beexformer-test").state_dict())
    assert not (tmp_path / "start.work").exists()
    assert "an encoder without a task, to train on from" in " ".join((out / "README.md").read_text().split())
    outcome = compressed(out, data, tmp_path / "m", epochs=1.0)
    assert outcome.model.config.form().latent is None
    first = "transformer.embeddings.position.weight"
    random = lessen.load("builtin:beexformer-test").state_dict()[first]
    assert (outcome.model.state_dict()[first] - start.state_dict()[first]).abs().mean() < (
        outcome.model.state_dict()[first] - random
    ).abs().mean()


def test_without_a_teacher_the_labels_teach(tiny_checkpoint: Path) -> None:
    plan = plan_for(
        system_of("binarize"), seed=0, recipe={}, alone=True, model=str(tiny_checkpoint), data="d.csv"
    )
    assert [(stage.objective, stage.teacher) for stage in plan.stages] == [("depth_weighted", None)] * 2
    for stage in system_of("beexformer").stages:  # as in the paper
        assert stage.teacher is None


def test_words_are_left_out_in_training_only() -> None:
    model = lessen.load("builtin:beexformer-test")
    part = model.transformer.embeddings
    part.word_dropout = 0.5
    ids, rows = pack([torch.randint(5, 100, (60,))])
    plain = part.eval()(ids, rows)
    part.train()
    part.dropout.p = 0.0
    changed = (part(ids, rows) != plain).any(1).float().mean()
    assert 0.2 < changed < 0.8


def test_packed_signs_are_not_trained_by_other_systems(binary: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="packed signs cannot be trained"):
        compressed(binary, data, tmp_path / "m", "early-exit", epochs=1.0)
    assert not (tmp_path / "m.work").exists()


def test_what_signs_learn_by_is_kept_where_they_are_trained_or_were(tiny_classifier, tmp_path: Path) -> None:
    latent, plain = tmp_path / "latent", tmp_path / "plain"
    in_latents(tiny_classifier).save_pretrained(latent)
    tiny_classifier.save_pretrained(plain)

    def kept(system: str, model: Path, **recipe: int) -> bool:
        made = plan_for(system_of(system), seed=0, recipe=recipe, model=str(model), data="d.csv")
        return keeps_latents(made)

    assert kept("binarize", plain)
    assert not kept("early-exit", plain)
    assert kept("early-exit", latent), "it is trained on, whatever trains it"
    assert not kept("masked-words", plain), "it saves nothing else"


def test_the_folder_beside_is_beside_wherever_one_is(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert latent_beside(Path()) == tmp_path / "here-latent"
