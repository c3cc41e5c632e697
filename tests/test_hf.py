"""Round trips and the transformers front door: Auto classes, pipeline, Trainer."""

from pathlib import Path

import pytest
import torch
from conftest import padded, ragged_ids, tiny_hugging_face
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
    pipeline,
)

import lessen
from lessen.builtin import model_folder
from lessen.errors import InputError, PlanError
from lessen.plan import ExitRule, ExitShape, Point
from lessen.reshaping import export_hugging_face


@pytest.fixture
def real_tokenizer():
    return AutoTokenizer.from_pretrained(model_folder("minilm-l6"))


@pytest.fixture
def words(real_tokenizer) -> lessen.LessenForSequenceClassification:
    """A small random model over the real vocabulary, with tokenizer and one early Point."""
    from lessen.config import LessenConfig
    from lessen.model.architecture import Architecture
    from lessen.plan import ExitShape, dense_shape

    facts = Architecture(
        family="bert",
        vocab_size=30522,
        hidden_size=32,
        embedding_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=8,
        intermediate_size=64,
        max_position_embeddings=64,
        type_vocab_size=2,
    )
    shape = dense_shape(3, 4, 64, exits=tuple(ExitShape(layer=i, pool="mean") for i in (1, 2, 3)))
    early = Point(name="early", exits=ExitRule(criterion="max_probability", threshold=0.52))
    torch.manual_seed(0)
    model = lessen.LessenForSequenceClassification(
        LessenConfig(
            architecture=facts.model_dump(mode="json"),
            shape=shape.model_dump(mode="json"),
            points=[early.model_dump(mode="json", exclude_none=True)],
            point="early",
            id2label={0: "bad", 1: "good"},
            label2id={"bad": 0, "good": 1},
            problem_type="single_label_classification",
        )
    )
    for parameter in model.parameters():
        parameter.data.normal_(std=0.2)
    model.tokenizer = real_tokenizer
    return model.eval()


TEXTS = ["a gripping film", "", "dull", "it is " * 100]


def test_a_saved_model_answers_the_same(words, tmp_path: Path) -> None:
    before = words.predict(TEXTS)
    words.save_pretrained(tmp_path / "m")
    again = lessen.load(tmp_path / "m")
    assert again.predict(TEXTS) == before
    assert again.point == words.points["early"]
    assert {p.layers for p in before} != {3}
    assert before[3].truncated
    assert not before[0].truncated


def test_results_come_back_in_input_order(words) -> None:
    alone = [words.predict([text])[0] for text in TEXTS]
    together = words.predict(TEXTS)
    assert [(p.label, p.layers, p.tokens) for p in alone] == [(p.label, p.layers, p.tokens) for p in together]


def test_auto_classes_and_pipeline(words, tmp_path: Path) -> None:
    words.save_pretrained(tmp_path)
    auto = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(auto) is lessen.LessenForSequenceClassification
    for name, tensor in words.state_dict().items():
        assert torch.equal(tensor, auto.state_dict()[name]), name
    classify = pipeline("text-classification", model=str(tmp_path))
    said = classify(TEXTS[:3], batch_size=3)
    expected = words.predict(TEXTS[:3])
    assert [answer["label"] for answer in said] == [p.label for p in expected]
    assert [answer["score"] for answer in said] == pytest.approx([p.probability for p in expected], abs=1e-5)


def test_buffers_survive_from_pretrained(words, tmp_path: Path) -> None:
    words.save_pretrained(tmp_path)
    auto = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    own, theirs = dict(words.named_buffers()), dict(auto.named_buffers())
    assert own.keys() == theirs.keys()
    ids = torch.tensor([[101, 2023, 2003, 102]])
    assert torch.equal(auto(input_ids=ids).logits, words(input_ids=ids).logits)


def test_trainer_trains_and_evaluates(words, tmp_path: Path) -> None:
    rows = [
        {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": label}
        for ids, label in [([101, 2204, 102], 1), ([101, 2919, 2919, 102], 0)]
    ] * 16
    trainer = Trainer(
        model=words,
        args=TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=100,
            per_device_train_batch_size=8,
            learning_rate=2e-3,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=words.tokenizer,
    )
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.2


def test_accumulated_steps_are_steps_of_all_rows(tiny_checkpoint: Path, tmp_path: Path) -> None:
    rows = [{"input_ids": [5, 6 + row, 7], "attention_mask": [1] * 3, "labels": row % 2} for row in range(8)]
    moved = []
    for together in (1, 4):
        model = lessen.with_exits(lessen.load(tiny_checkpoint), labels=["a", "b"], seed=0)
        before = model.transformer.embeddings.token.weight.detach().clone()
        args = TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=1,
            per_device_train_batch_size=8 // together,
            gradient_accumulation_steps=together,
            optim="sgd",
            learning_rate=1.0,
            max_grad_norm=0.0,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )
        Trainer(model=model, args=args, train_dataset=rows).train()
        moved.append(model.transformer.embeddings.token.weight.detach() - before)
    assert 0.5 < moved[1].norm() / moved[0].norm() < 2, "but for dropout they are alike"


def test_exits_can_be_given_to_a_finished_model_without_touching_it(tmp_path: Path) -> None:
    theirs = tiny_hugging_face("roberta")
    theirs.save_pretrained(tmp_path)
    model = lessen.with_exits(lessen.load(tmp_path))
    ids, mask = padded(ragged_ids([9, 4, 30]), 1)
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask).logits
    found = model(input_ids=ids, attention_mask=mask).logits
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert list(model.transformer.exits) == ["1", "2", "3"]


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_whatever_exits_are_asked_for_the_finished_head_stays(family: str, tmp_path: Path) -> None:
    theirs = tiny_hugging_face(family)
    theirs.save_pretrained(tmp_path)
    before = lessen.load(tmp_path)
    asked = [ExitShape(layer=1, pool="mean"), ExitShape(layer=3, pool="mean", hidden_size=7)]
    model = lessen.with_exits(before, exits=asked)
    ids, _ = padded(ragged_ids([9, 4, 30]), 0)
    assert torch.equal(model(input_ids=ids).logits, before(input_ids=ids).logits)
    assert model.config.form().exits[0].pool == "mean"


def test_gradients_reach_the_input_in_evaluation(words) -> None:
    """As with any transformers model; answers of exits are made without gradients, but can be changed."""
    ids = torch.tensor([[101, 2023, 2003, 102]])
    words.use("full")(input_ids=ids).logits.sum().backward()
    gradient = words.get_input_embeddings().weight.grad
    assert gradient is not None
    assert gradient[2023].any()
    words.use("early")(input_ids=ids).logits.add_(1)


def test_a_layer_wrapped_by_another_library_is_called_as_it_is(words) -> None:
    """An adapter around `up` adds before the activation, not after it."""

    class Adapter(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return self.inner(values) - 1000.0

    block = words.transformer.layers[0]
    block.feed_forward.up = Adapter(block.feed_forward.up)
    hidden = torch.randn(5, 32)
    with torch.no_grad():
        assert torch.allclose(
            block.feed_forward(hidden), block.feed_forward.down.bias.expand(5, -1), atol=1e-6
        )


def test_export_gives_the_backbone_back(family: str, tmp_path: Path) -> None:
    theirs = tiny_hugging_face(family)
    theirs.save_pretrained(tmp_path)
    state = export_hugging_face(lessen.load(tmp_path))
    backbone = getattr(theirs, theirs.base_model_prefix).state_dict()
    for name, tensor in state.items():
        assert torch.equal(tensor, backbone[name]), name
    left = {name for name in backbone if name not in state and "pooler" not in name and "_ids" not in name}
    assert not left


def test_embeddings_are_mean_pooled_and_normal() -> None:
    model = lessen.load("builtin:minilm-l6")
    texts = ["a cat sits on the mat", "", "stocks fell sharply on Monday", "a kitten rests on the rug"]
    found = model.embed(texts)
    theirs = AutoModel.from_pretrained(model_folder("minilm-l6")).eval()
    batch = model.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = theirs(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    expected = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    assert torch.allclose(found, expected, atol=1e-5)
    assert found[0] @ found[3] > found[0] @ found[2]


def test_what_a_user_can_do_wrong_is_an_error_of_lessen(words, tiny_checkpoint: Path) -> None:
    encoder = lessen.load(tiny_checkpoint)
    with pytest.raises(InputError, match="not one text"):
        words.predict("a film")
    with pytest.raises(InputError, match="not one text"):
        encoder.embed("a film")
    for texts in ([None], [("a", "b", "c")]):
        with pytest.raises(InputError, match="text 1 is neither a text nor a pair"):
            words.predict(texts)
    half = "half a \ud83d"
    for rows in (["whole", half], [("a", "b"), ("a", half)]):
        with pytest.raises(InputError, match=r"text 2 is not UTF-8 text: .*; convert it first"):
            words.predict(rows)
    for model in (words, encoder):
        with pytest.raises(InputError, match="point 3: give a Point"):
            model.use(3)
        with pytest.raises(PlanError, match="the vocabulary is fixed"):
            model.resize_token_embeddings(100)
    with pytest.raises(InputError, match="batch_size 0"):
        words.predict(["a"], batch_size=0)
    with pytest.raises(InputError, match="precision 'fp16': choose float32, bfloat16"):
        lessen.load(tiny_checkpoint, precision="fp16")
    with pytest.raises(PlanError, match="99"):
        lessen.with_exits(encoder, exits=[ExitShape(layer=99, pool="mean")], labels=["a", "b"])
    with pytest.raises(PlanError, match="point 'x' is for int8, and this model runs in float32; load it in"):
        words.use(Point(name="x", precision="int8"))
    with pytest.raises(PlanError, match="retention: it has 1 shares, the model 3 layers"):
        words.predict(["a film"], point=Point(name="x", retention=(0.5,)))
    for rule, why in (
        (
            {"criterion": "entorpy", "threshold": 1.0},
            "'entorpy' cannot judge single label",
        ),
        ({"criterion": "closeness", "threshold": 1.0}, "cannot judge single label classification"),
        ({"criterion": "entropy", "threshold": 1.0, "decay": {"rate": 1.0, "tokens": 9}}, "leave it out"),
    ):
        with pytest.raises(PlanError, match=why):
            words.use(Point(name="x", exits=ExitRule(**rule)))
    with pytest.raises(InputError, match="at least one token"):
        words(torch.ones(1, 4, dtype=torch.long), torch.zeros(1, 4, dtype=torch.long))
    words.dial(latency_ms=1e6, tokens=10_000)
    assert words.point.name == "full", "no row is longer than the model takes"


def test_a_model_in_training_answers_as_a_whole_without_dropout(words) -> None:
    words.train()
    words.predict(["a film"])
    assert not any(module.training for module in words.modules())


def test_inputs_it_would_pass_over_are_refused(words):
    """So are ids no table knows, in training as in evaluation, with an error of ours."""
    ids = torch.tensor([[3, 4, 5, 6]])
    for model in (words, lessen.LessenModel(words.config).eval()):
        plain = model(input_ids=ids, output_attentions=False, inputs_embeds=None)[0]
        assert torch.equal(plain, model(input_ids=ids)[0])
        for wrong in ({"output_hidden_states": True}, {"attention_maskk": ids}, {"position_ids": ids}):
            with pytest.raises(PlanError, match=f"{next(iter(wrong))}: a model of lessen takes no such"):
                model(input_ids=ids, **wrong)
        for training in (False, True):
            with pytest.raises(InputError, match="token id 99999: the model knows 0 to"):
                model.train(training)(input_ids=torch.tensor([[3, 99999]]))
