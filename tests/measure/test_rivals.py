"""Rivals run the model's own weights, are fed as well as can be, and give the model's own answers."""

from pathlib import Path

import pytest
import torch
from conftest import TINY, lively, ragged_ids, tiny_hugging_face
from conftest import padded as pad_batch

import lessen
from lessen.config import LessenConfig
from lessen.errors import InputError, LessenError, PlanError
from lessen.hf import LessenForSequenceClassification
from lessen.measure.rivals import RIVALS, build, dense_twin
from lessen.plan import ExitShape, LayerShape
from lessen.runtime.engine import run
from lessen.runtime.text import Encoded, collate

LENGTHS = [1, 64, 7, 7, 2, 33, 1, 50]


def classifier(folder: Path, family: str = "bert", pool: str = "cls") -> LessenForSequenceClassification:
    """A tiny model whose logits differ clearly from row to row."""
    tiny_hugging_face(family).save_pretrained(folder)
    model = lessen.load(folder)
    if pool != "cls":
        exits = [ExitShape(layer=n, pool=pool) for n in (1, 3)]
        model = lessen.with_exits(model, exits=exits, labels=["a", "b", "c"])
    return lively(model)


def encoded(lengths: list[int], *, pairs: bool = False) -> list[Encoded]:
    return [
        Encoded(ids.tolist(), [int(2 * i >= len(ids)) for i in range(len(ids))] if pairs else None, False)
        for ids in ragged_ids(lengths)
    ]


def full_depth(model: LessenForSequenceClassification, rows: list[Encoded]) -> torch.Tensor:
    return run(model.transformer, *collate(rows, torch.device("cpu"))).logits


def gap(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    ("family", "pool"), [*((name, "cls") for name in sorted(TINY)), ("bert", "mean"), ("roberta", "last")]
)
def test_dense_twin_equals_full_depth(family: str, pool: str, tmp_path: Path) -> None:
    model = classifier(tmp_path, family, pool)
    rows = encoded(LENGTHS)
    ids, mask = pad_batch(ragged_ids(LENGTHS), model.config.facts().pad_token_id)
    state = torch.get_rng_state()
    twin = dense_twin(model)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        assert gap(twin(ids, mask), full_depth(model, rows)) <= 1e-5
        assert gap(twin(ids[1:2]), full_depth(model, rows[1:2])) <= 1e-5


def test_dense_twin_shares_no_memory(tmp_path: Path) -> None:
    model = classifier(tmp_path)
    expected = full_depth(model, encoded(LENGTHS))
    for parameter in dense_twin(model).parameters():
        parameter.zero_()
    assert torch.equal(full_depth(model, encoded(LENGTHS)), expected)


def test_a_chopped_model_has_a_shallower_twin(tmp_path: Path) -> None:
    whole = classifier(tmp_path)
    shape = whole.config.form()
    exit = shape.exits[0].model_copy(update={"layer": 2})
    model = with_shape(whole, layers=(shape.layers[0], shape.layers[2]), exits=(exit,))
    twin = dense_twin(model)
    assert twin.backbone.config.num_hidden_layers == 2
    rows = encoded([9, 9])
    ids = torch.tensor([row.ids for row in rows])
    with torch.no_grad():
        assert gap(twin(ids), full_depth(model, rows)) <= 1e-5


def with_shape(model: LessenForSequenceClassification, **changes) -> LessenForSequenceClassification:
    shape = model.config.form().model_copy(update=changes)
    config = LessenConfig(
        architecture=model.config.architecture,
        shape=shape.model_dump(mode="json"),
        id2label=model.config.id2label,
    )
    torch.manual_seed(0)
    fresh = LessenForSequenceClassification(config)
    for parameter in fresh.parameters():
        parameter.data.normal_(std=0.2)
    return lively(fresh)


@pytest.mark.parametrize(
    ("change", "field"), [({"heads": (0, 2)}, "heads"), ({"intermediate_size": 40}, "intermediate_size")]
)
def test_slimmed_models_are_refused(change: dict, field: str, tmp_path: Path) -> None:
    model = classifier(tmp_path)
    shape = model.config.form()
    slim = LayerShape.model_validate(shape.layers[1].model_dump() | change)
    changed = shape.model_copy(update={"layers": (shape.layers[0], slim, shape.layers[2])})
    model.config.shape = changed.model_dump(mode="json")
    with pytest.raises(PlanError, match=rf"shape\.layers\[1\]\.{field}: .* only run the dense model"):
        dense_twin(model)


def test_unknown_kinds_threads_and_missing_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = classifier(tmp_path)
    with pytest.raises(InputError, match="no rival 'tensorflow'; there is torch, "):
        build("tensorflow", model, 1)
    with pytest.raises(InputError, match="threads must be at least 1, not 0"):
        build("torch", model, 0)
    for kind, package in [
        ("onnxruntime", "onnxruntime"),
        ("openvino", "openvino"),
        ("onnxruntime-int8", "onnx"),
    ]:
        with monkeypatch.context() as patch:
            patch.setitem(__import__("sys").modules, package, None)
            with pytest.raises(InputError, match=rf"package {package}; run: pip install 'lessen\[bench\]'"):
                build(kind, model, 1)


@pytest.mark.parametrize("family", ["bert", "mpnet"])
@pytest.mark.parametrize("kind", ["torch", "torch-bf16"])
def test_torch_rivals(kind: str, family: str, tmp_path: Path) -> None:
    model = classifier(tmp_path, family, "mean")
    check(kind, model, encoded(LENGTHS), 1e-4 if kind == "torch" else 0.05)


def test_compiled_rival_always_passes_the_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = []

    def compile(twin, *, dynamic: bool, options: dict):
        assert dynamic
        assert options == {"freezing": True}

        def call(ids, mask, segments):
            masks.append(mask)
            return twin(ids, mask, segments)

        return call

    monkeypatch.setattr(torch, "compile", compile)
    model = classifier(tmp_path)
    check("torch-compiled", model, encoded(LENGTHS), 1e-4)
    check("torch-compiled", model, encoded([5]), 1e-4)
    assert masks
    assert all(mask is not None for mask in masks)


def test_torch_rivals_use_their_own_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rival = build("torch", classifier(tmp_path), torch.get_num_threads() + 1)
    used = []
    original = torch.nn.functional.linear

    def linear(*args):
        used.append(torch.get_num_threads())
        return original(*args)

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    before = torch.get_num_threads()
    rival(encoded([4]))
    assert set(used) == {before + 1}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("family", ["bert", "distilbert", "mpnet"])
def test_onnxruntime(family: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    model = classifier(tmp_path, family)
    check("onnxruntime", model, encoded(LENGTHS), 1e-4)


@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_openvino(family: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("onnx")
    model = classifier(tmp_path, family, "mean")
    check("openvino", model, encoded([5, 5, 33, 5]), 1e-4)
    check("openvino", model, encoded([5]), 1e-4)


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
def test_segments_reach_the_runtime(kind: str, tmp_path: Path) -> None:
    pytest.importorskip(kind)
    pytest.importorskip("onnx")
    model = classifier(tmp_path)
    rows = encoded([6, 9], pairs=True)
    assert gap(full_depth(model, rows), full_depth(model, encoded([6, 9]))) > 0.1
    check(kind, model, rows, 1e-4)


@pytest.mark.parametrize(
    ("kind", "package"),
    [("onnxruntime-int8", "onnxruntime"), ("openvino-int8", "nncf"), ("openvino-bf16", "openvino")],
)
def test_lower_precision_agrees_on_most_rows(
    kind: str, package: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(package)
    pytest.importorskip("onnx")
    model = classifier(tmp_path)
    rows = encoded([n % 9 + 4 for n in range(40)])
    model.transformer.exits["3"].output.bias.data -= full_depth(model, rows).mean(0)
    capfd.readouterr()
    rival = build(kind, model, 1, rows)
    assert capfd.readouterr() == ("", "")
    found, expected = rival(rows), full_depth(model, rows)
    assert len(expected.argmax(1).unique()) == 3
    assert (found.argmax(1) == expected.argmax(1)).double().mean() >= 0.8
    assert gap(found, expected) > 1e-3, "not computed in lower precision"


def test_calibration_rows_are_required_for_int8(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(InputError, match="needs rows to calibrate on"):
        build("openvino-int8", classifier(tmp_path), 1)


def test_export_is_kept_under_the_name_of_its_weights(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    cache = tmp_path / "cache"
    model = classifier(tmp_path / "model")
    build("onnxruntime", model, 1, folder=cache)
    (first,) = cache.iterdir()
    written = first.stat().st_mtime_ns
    build("onnxruntime", model, 1, folder=cache)
    assert first.stat().st_mtime_ns == written
    model.transformer.exits["3"].output.bias.data += 1
    check("onnxruntime", model, encoded(LENGTHS), 1e-4, cache)
    assert len(list(cache.iterdir())) == 2


def test_every_error_is_a_lessen_error() -> None:
    assert issubclass(InputError, LessenError)
    assert all(callable(builder) for builder in RIVALS.values())


def check(
    kind: str,
    model: LessenForSequenceClassification,
    rows: list[Encoded],
    tolerance: float,
    folder: Path | None = None,
) -> None:
    """The rival, sorted and naive, equals our full depth to `tolerance` of the largest logit."""
    rival = build(kind, model, 1, rows, folder)
    expected = full_depth(model, rows)
    for naive in (False, True):
        found = rival(rows, naive=naive)
        assert found.dtype == torch.float32
        assert gap(found, expected) <= tolerance
