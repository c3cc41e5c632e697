"""Binary models: what learns and what is packed compute the same, at the sizes and parameters of the page."""

import json
from pathlib import Path

import pytest
import torch
from conftest import ragged_ids, run, tiny_generator, tiny_hugging_face
from safetensors.torch import load_file, save_file

import lessen
from lessen.bits.binarizer import rounded_activations, scales
from lessen.bits.packing import words_for
from lessen.config import LessenConfig
from lessen.depth.exits import every_exit
from lessen.errors import ArtefactError, InputError, PlanError
from lessen.families.beexformer import PRESETS
from lessen.hf import LessenForSequenceClassification
from lessen.loading import load
from lessen.model.architecture import Architecture
from lessen.model.feed_forward import RecurrentFeedForward, SelectiveFeedForward
from lessen.model.few_bits import BinaryLinear
from lessen.model.latent import LatentLinear, latents_of
from lessen.model.matrices import Numbers, weights_of
from lessen.model.rows import pack
from lessen.model.transformer import parameter_counts
from lessen.plan import ExitShape, Latent, Rank, dense_shape
from lessen.reshaping import in_few_bits, in_latents, in_signs, with_exits

ACTIVATIONS = (32, 8, 1)


def exits(depth: int, width: int | None) -> list[ExitShape]:
    return [
        ExitShape(layer=layer, pool="mean", hidden_size=width, activation="relu")
        for layer in range(1, depth + 1)
    ]


def made(preset: str = "beexformer-test", width: int = 20, seed: int = 0):
    torch.manual_seed(seed)
    base = load(f"builtin:{preset}")
    return with_exits(base, exits=exits(len(base.config.form().layers), width), labels=["no", "yes"])


def lively_binary(activation_bits: int = 32, **choices):
    """A model whose signs and biases are any, in latents."""
    model = made()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    return in_latents(model, Latent(**choices), activation_bits=activation_bits)


def answers(model, lengths, seed: int = 0):
    ids, rows = pack(ragged_ids(lengths, seed))
    with torch.no_grad():
        return torch.stack(every_exit(model.transformer, ids, rows))


@pytest.mark.parametrize(
    ("preset", "width", "parameters", "packed_bytes"),
    [
        ("beexformer-test", 20, 174_712, 0.083e6),
        ("beexformer-small", 32, 11_060_812, 1.947e6),
        ("beexformer-medium", 32, 28_412_492, 4.556e6),
        ("beexformer-base", 32, 80_570_520, 12.451e6),
    ],
)
def test_presets_have_the_pages_parameters_and_bytes(preset, width, parameters, packed_bytes):
    facts = PRESETS[preset]
    layers = facts.num_hidden_layers
    with torch.device("meta"):
        from lessen.model.transformer import Transformer

        shape = dense_shape(layers, facts.num_attention_heads, facts.intermediate_size)
        shape = shape.model_copy(update={"exits": tuple(exits(layers, width)), "embedding_bits": 1})
        few = tuple(layer.model_copy(update={"bits": 1}) for layer in shape.layers)
        model = Transformer(facts, shape.model_copy(update={"layers": few}), 2)
    assert parameter_counts(model)["total"] == parameters
    stored = sum(t.numel() * t.element_size() for n, t in model.state_dict().items() if "seal" not in n)
    assert stored == pytest.approx(packed_bytes, rel=0.006)


@pytest.mark.parametrize(
    ("preset", "form"), [("small", "slfn"), ("small-lstm", "slfn_lstm"), ("small-ffn", "ffn")]
)
def test_other_forms_of_the_feed_forward_half_have_presets(preset, form):
    """Of plain matrices as many weights as of SLFN, to a thousandth."""
    model = in_signs(in_latents(load(f"builtin:beexformer-{preset}")))
    assert model.config.facts().feed_forward == form
    assert torch.isfinite(model.embed(["a film"])).all()
    if form == "ffn":
        slfn = parameter_counts(load("builtin:beexformer-small").transformer)["encoder"]
        assert parameter_counts(model.transformer)["encoder"] == pytest.approx(slfn, rel=1e-3)


def test_one_block_can_be_all_layers(tmp_path: Path):
    facts = PRESETS["beexformer-test"].model_dump() | {"shared_layers": True}
    config = LessenConfig(
        architecture=facts, shape=dense_shape(4, 2, 32, tuple(exits(4, None))).model_dump(mode="json")
    )
    torch.manual_seed(0)
    shared = LessenForSequenceClassification(config).eval()
    block = 25_280
    assert parameter_counts(shared.transformer)["encoder"] == block
    apart = LessenForSequenceClassification(
        LessenConfig(architecture=facts | {"shared_layers": False}, shape=config.shape)
    ).eval()
    state = {
        name.replace("layers.0.", f"layers.{layer}."): tensor
        for name, tensor in shared.state_dict().items()
        for layer in range(4)
    }
    apart.load_state_dict(state)
    assert torch.equal(answers(shared, [3, 9]), answers(apart, [3, 9]))
    packed = in_signs(in_latents(shared))
    packed.save_pretrained(tmp_path / "m")
    assert torch.equal(answers(load(tmp_path / "m"), [3, 9]), answers(packed, [3, 9]))
    with pytest.raises(PlanError, match="must be alike"):
        in_latents(shared, layers=[1])
    presets = {name: load(f"builtin:beexformer-{name}").transformer for name in ("small", "shared")}
    sizes = {name: parameter_counts(model)["encoder"] for name, model in presets.items()}
    assert sizes["small"] == 6 * sizes["shared"]


def test_the_slfn_has_the_pages_parameters():
    """T12."""
    block = 4 * (64 * 64 + 64) + 4 * 64
    assert block + weights_of(SelectiveFeedForward(64, 32, Rank(), Numbers())) == 25_280
    assert weights_of(SelectiveFeedForward(10, 7, Rank(), Numbers(1))) == 4 * 10 * 7 + 2 * 7 + 2 * 10


@pytest.mark.parametrize("activation_bits", ACTIVATIONS)
@pytest.mark.parametrize("scale", ["row_mean", "tensor_mean", "learned", "none"])
def test_packed_answers_as_what_learned(activation_bits, scale):
    latent = lively_binary(activation_bits, scale=scale)
    packed = in_signs(latent)
    lengths = [1, 2, 17, 17, 40]
    learned, found = answers(latent, lengths), answers(packed, lengths)
    if activation_bits < 32:  # a number may be rounded, a sign may turn, the other way
        assert (found - learned).abs().median() < 0.02 * learned.abs().max()
    else:
        torch.testing.assert_close(found, learned, rtol=1e-3, atol=1e-3)
    assert parameter_counts(packed.transformer) == parameter_counts(latent.transformer)


def test_same_decisions_on_a_thousand_inputs():
    latent = lively_binary(8)
    packed = in_signs(latent)
    lengths = [1 + i % 12 for i in range(1000)]
    learned, found = answers(latent, lengths)[-1], answers(packed, lengths)[-1]
    apart = (found - learned).abs()
    assert apart.max() < 0.05  # a number that is rounded the other way
    assert apart.mean() < 1e-3
    clear = (learned[:, 0] - learned[:, 1]).abs() > 0.1
    assert torch.equal(learned.argmax(-1)[clear], found.argmax(-1)[clear])


@pytest.mark.parametrize("activation_bits", ACTIVATIONS)
@pytest.mark.parametrize("centre", [0.0, 0.5, "rectified"])
def test_a_layer_at_rest_is_the_layer_that_learned(activation_bits, centre):
    """T10."""
    torch.manual_seed(0)
    learning = LatentLinear(70, 9, True, activation_bits, centre)
    resting = BinaryLinear(70, 9, True, activation_bits, centre)
    from lessen.bits.packing import pack as packed_signs

    resting.weight = torch.nn.Parameter(packed_signs(learning.weight), requires_grad=False)
    resting.scales.data, resting.bias.data = scales(learning.weight).squeeze(1), learning.bias.data
    values = torch.rand(11, 70)
    values[3] = 0
    with torch.no_grad():
        torch.testing.assert_close(resting(values), learning(values), rtol=1e-5, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("centre", [0.0, "rectified"])
def test_scales_that_change_are_noticed(centre):
    """Where tensors do not tell of it either, as in inference mode."""
    layer = BinaryLinear(70, 9, False, 1, centre)
    layer.weight.copy_(torch.randint(-(2**62), 2**62, layer.weight.shape) & 0x3F)
    layer.scales.fill_(0.5)
    values = torch.rand(11, 70)
    before = layer(values)
    layer.scales.mul_(2)
    torch.testing.assert_close(layer(values), 2 * before)


def test_the_centre_changes_nothing_where_inputs_are_real():
    torch.manual_seed(0)
    plain, centred = LatentLinear(20, 6), LatentLinear(20, 6, centre=0.5)
    centred.load_state_dict(plain.state_dict())
    values = torch.rand(5, 20)
    torch.testing.assert_close(centred(values), plain(values), rtol=1e-5, atol=1e-6)


def test_signs_of_a_sigmoid_still_say_something():
    layer = LatentLinear(30, 4, activation_bits=1, centre=0.5)
    values = torch.randn(6, 30).sigmoid()
    assert layer(values).std(0).min() > 0


def test_zeros_and_ones_stay_what_they_are():
    """Page 1.2: levels {0, 1} where nothing is negative, here with a scale of each row."""
    torch.manual_seed(0)
    values = (torch.rand(6, 30) < 0.3) * torch.linspace(0.5, 4, 6)[:, None]
    layer = LatentLinear(30, 4, activation_bits=1, centre="rectified")
    exact = LatentLinear(30, 4)
    exact.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(values), exact(values))


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_what_follows_a_rectifier_still_tells_tokens_apart(activation):
    """P5, of a ReLU: as signs all its answers were one, times a number."""
    torch.manual_seed(0)
    facts = PRESETS["beexformer-test"].model_dump() | {"feed_forward": "ffn", "hidden_act": activation}
    shape = dense_shape(4, 2, facts["intermediate_size"], tuple(exits(4, None)))
    config = LessenConfig(architecture=facts, shape=shape.model_dump(mode="json"))
    latent = in_latents(LessenForSequenceClassification(config).eval(), activation_bits=1)
    packed = in_signs(latent)
    apart = (answers(packed, [3, 9]) - answers(latent, [3, 9])).abs()
    assert apart.max() < 0.01  # a number whose sign is another by rounding
    half = packed.transformer.layers[0].feed_forward
    made = half(torch.randn(40, 64)) - (0 if half.down.bias is None else half.down.bias)
    assert torch.linalg.matrix_rank(made) > 10
    hidden = torch.randn(12, 64, requires_grad=True)
    latent.transformer.layers[0].feed_forward(hidden).sum().backward()
    assert hidden.grad.abs().sum() > 0


@pytest.mark.parametrize("form", ["ffn", "slfn", "slfn_lstm"])
def test_every_form_learns_packs_and_treats_tokens_alone(form):
    """T12 and T13."""
    facts = PRESETS["beexformer-test"].model_dump() | {"feed_forward": form, "intermediate_size": 64}
    facts = Architecture.model_validate(facts)
    shape = dense_shape(4, 2, 64, tuple(exits(4, None)))
    config = LessenConfig(architecture=facts.model_dump(), shape=shape.model_dump(mode="json"))
    latent = in_latents(LessenForSequenceClassification(config).eval())
    torch.testing.assert_close(answers(in_signs(latent), [3, 9]), answers(latent, [3, 9]))
    half = latent.transformer.layers[0].feed_forward
    hidden = torch.randn(12, 64)
    order = torch.randperm(12)
    torch.testing.assert_close(half(hidden)[order], half(hidden[order]))
    half(hidden).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in half.parameters())


def test_a_gate_that_learns_nothing_closes_the_branch():
    """T13."""
    half = SelectiveFeedForward(8, 4, Rank(), Numbers())
    torch.nn.init.zeros_(half.learn_down.weight)
    torch.nn.init.zeros_(half.learn_down.bias)
    assert half(torch.randn(3, 8)).abs().max() == 0
    assert RecurrentFeedForward(8, Rank(), Numbers())(torch.randn(3, 8)).shape == (3, 8)


def test_an_lstm_of_another_width_is_refused():
    facts = PRESETS["beexformer-test"].model_dump() | {"feed_forward": "slfn_lstm"}
    from lessen.model.feed_forward import feed_forward
    from lessen.plan import LayerShape

    with pytest.raises(PlanError, match="must be hidden_size 64"):
        feed_forward(
            Architecture.model_validate(facts),
            LayerShape(layer=0, heads=(0,), intermediate_size=32),
            Numbers(),
        )


@pytest.mark.parametrize("activation_bits", ACTIVATIONS)
def test_it_is_saved_packed_and_loaded(activation_bits, tmp_path: Path):
    """T11."""
    latent = lively_binary(activation_bits)
    packed = in_signs(latent)
    packed.save_pretrained(tmp_path / "m")
    again = load(tmp_path / "m")
    assert torch.equal(answers(again, [2, 30]), answers(packed, [2, 30]))
    state = load_file(tmp_path / "m" / "model.safetensors")
    sealed = [name for name in state if ".seal" in name]
    assert len(sealed) == 21
    assert all(state[name.replace("seal", "weight")].dtype == torch.int64 for name in sealed)
    matrices = [t for n, t in state.items() if n.endswith("weight") and t.dim() == 2 and "exits" not in n]
    real = [t for t in matrices if t.dtype.is_floating_point]
    assert [tuple(t.shape) for t in real] == [(64, 64)]  # the table of positions
    rows = [(1000, 64), *[(192, 64), (64, 64), (64, 64), (64, 32), (64, 32)] * 4]
    signs = sum(r * words_for(c) * 8 + 4 * r for r, c in rows)
    others = parameter_counts(packed.transformer)["total"] - sum(r * c for r, c in rows)
    size = (tmp_path / "m" / "model.safetensors").stat().st_size
    with open(tmp_path / "m" / "model.safetensors", "rb") as file:
        header = 8 + int.from_bytes(file.read(8), "little")
    seals = 16 * len(rows)
    assert size == signs + 4 * others + header + seals
    facts = json.loads(run("inspect", tmp_path / "m", "--json")[1])
    assert sum(v for k, v in facts["bytes_by_part"].items() if k != "tokenizer") == size == facts["bytes"]
    assert {(row["bits"], row["activation_bits"]) for row in facts["layers"]} == {(1, activation_bits)}
    assert facts["embedding_bits"] == 1


@pytest.mark.parametrize("what", ["a bit", "the version", "a scale", "kind of scales", "kind of words"])
def test_damaged_signs_are_refused_by_name(what, tmp_path: Path):
    in_signs(lively_binary()).save_pretrained(tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    state = load_file(file)
    name = "transformer.layers.1.attention.qkv"
    if what == "a bit":
        state[f"{name}.weight"][3, 0] ^= 1
    elif what == "the version":
        state[f"{name}.seal"][0] = 2
    elif what == "a scale":
        state[f"{name}.scales"][3] = float("nan")
    elif what == "kind of scales":
        state[f"{name}.scales"] = state[f"{name}.scales"].long()
    else:
        state[f"{name}.weight"] = state[f"{name}.weight"].double()
    save_file(state, file, metadata={"format": "pt"})
    why = {
        "a bit": r"\.weight: .*checksum",
        "the version": r"\.weight: .*version 2",
        "a scale": r"\.scales holds what is no number",
        "kind of scales": r"\.scales holds I64, config.json says F64 or F32 or F16 or BF16",
        "kind of words": r"\.weight holds F64, config.json says I64",
    }
    with pytest.raises(ArtefactError, match=name + why[what]):
        load(tmp_path / "m")
    code, _, said = run("predict", tmp_path / "m", "text")
    assert code == 2
    assert said.strip().count("\n") == 0


def test_packed_signs_do_not_learn_and_latents_do():
    latent = lively_binary()
    packed = in_signs(latent).train()
    ids, rows = pack(ragged_ids([4, 4]))
    with pytest.raises(PlanError, match="packed signs cannot be trained"):
        every_exit(packed.transformer, ids, rows)
    with pytest.raises(PlanError, match="keeps the latents"):
        in_latents(packed)
    sum(every_exit(latent.transformer, ids, rows)).sum().backward()
    for weight in latents_of(latent):
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0
    again = in_latents(latent, activation_bits=8)
    assert again.config.form().layers[0].activation_bits == 8
    name = "transformer.layers.0.attention.qkv.weight"
    assert torch.equal(again.state_dict()[name], latent.state_dict()[name])


def test_how_signs_are_scaled_can_be_changed():
    latent = lively_binary(scale="learned")
    plain = in_latents(latent, Latent(scale="row_mean"))
    assert not any("scales" in name for name in plain.state_dict())
    learned = in_latents(plain, Latent(scale="learned"))
    assert sum("scales" in name for name in learned.state_dict()) == 21
    assert answers(in_signs(learned), [3]).isfinite().all()


def test_a_gate_in_bfloat16():
    packed = in_signs(lively_binary())
    exact = answers(packed, [3, 9])
    assert (
        packed.to(torch.bfloat16)
        .transformer.layers[0]
        .feed_forward(torch.randn(2, 64, dtype=torch.bfloat16))
        .dtype
        == torch.bfloat16
    )
    torch.testing.assert_close(answers(packed.float(), [3, 9]), exact, rtol=0.1, atol=0.1)


def test_presets_in_other_precisions():
    assert load("builtin:beexformer-test", precision="int8").precision == "int8"
    assert load("builtin:beexformer-test", precision="bfloat16").dtype == torch.bfloat16
    with pytest.raises(PlanError, match="no classifier"):
        load("builtin:beexformer-test", point="drop-1%")


def test_chosen_layers_and_a_real_table(tmp_path: Path):
    tiny_hugging_face("mpnet").save_pretrained(tmp_path / "m")
    model = load(tmp_path / "m")
    some = in_latents(model, layers=[0, 2], embedding=False)
    assert [layer.bits for layer in some.config.form().layers] == [1, 32, 1]
    packed = in_signs(some)
    assert packed.transformer.embeddings.token.weight.dtype == torch.float32
    torch.testing.assert_close(answers(packed, [3, 5]), answers(some, [3, 5]), rtol=1e-4, atol=1e-4)
    mixed = in_few_bits(packed, "int8")
    assert [layer.bits for layer in mixed.config.form().layers] == [1, 8, 1]
    with pytest.raises(PlanError, match="there is no layer 4"):
        in_latents(model, layers=[3])
    with pytest.raises(PlanError, match="layer 1 has weights of 8 bits"):
        in_latents(in_few_bits(model, "int8"))
    with pytest.raises(PlanError, match="layer 3 is binary already; name it too"):
        in_latents(some, layers=[0], embedding=False)
    whole = in_latents(some)
    assert [layer.bits for layer in whole.config.form().layers] == [1, 1, 1]
    with pytest.raises(PlanError, match="token table is binary already; to keep it in 32 bits"):
        in_latents(whole, embedding=False)


def test_what_generates_is_not_binarized(tmp_path: Path):
    tiny_generator("llama").save_pretrained(tmp_path / "m")
    with pytest.raises(InputError, match="binary weights are for encoders"):
        in_latents(load(tmp_path / "m"))


def test_a_table_of_segments_and_a_projection_stay_real(tmp_path: Path):
    tiny_hugging_face("electra").save_pretrained(tmp_path / "m")
    latent = in_latents(load(tmp_path / "m"), activation_bits=8)
    assert answers(in_signs(latent), [3]).isfinite().all()


def test_activations_have_few_levels_and_pass_gradients():
    torch.manual_seed(0)
    values = torch.randn(5, 2000, requires_grad=True)
    eight = rounded_activations(values, 8)
    assert all(150 < len(row.unique()) <= 255 for row in eight)
    torch.testing.assert_close(eight, values, rtol=0, atol=float(values.detach().abs().max()) / 253)
    eight.sum().backward()
    assert torch.equal(values.grad, torch.ones_like(values))
    values.grad = None
    one = rounded_activations(values, 1)
    size = values.detach().abs().mean(1, keepdim=True)
    torch.testing.assert_close(one.detach(), torch.where(values < 0, -size, size))
    one.sum().backward()
    torch.testing.assert_close(values.grad, (1 - values.detach().abs() / (2 * size)).clamp(min=0))
    assert rounded_activations(values, 32) is values


def test_presets_differ_by_seed_and_read_text():
    name = "transformer.layers.0.attention.qkv.weight"
    assert not torch.equal(made(seed=0).state_dict()[name], made(seed=1).state_dict()[name])
    model = made()
    assert lessen.load("builtin:beexformer-test").config.form().latent is None
    prediction = model.predict(["Some words, naïvely."])[0]
    assert prediction.tokens > 10
    assert model.tokenizer("é")["input_ids"] == model.tokenizer("e")["input_ids"]
