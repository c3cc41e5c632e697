"""gpt2, flan-t5-small and flan-t5-base in their real shapes, with random weights, equal Hugging Face's.

Their weights are packaged nowhere. float32, to 1e-5 of the largest logit; two prompts, one of a single token.
"""

import gc
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from conftest import padded, ragged_ids
from transformers.initialization import no_init_weights

import lessen

FLAN = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "d_kv": 64}
SMALL = {"d_model": 512, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8, "num_heads": 6}
BASE = {"d_model": 768, "d_ff": 2048, "num_layers": 12, "num_decoder_layers": 12, "num_heads": 12}

REAL = {
    "gpt2": (124_439_808, {}),
    "flan-t5-small": (76_961_152, FLAN | SMALL),
    "flan-t5-base": (247_577_856, FLAN | BASE),
}
"""Parameters, and what is not as transformers has it by default."""


def of_config(sizes: dict):
    """Theirs; its weights are whatever the memory holds."""
    with no_init_weights():
        if not sizes:
            model = transformers.GPT2LMHeadModel(transformers.GPT2Config())
            model.tie_weights()
            return model
        model = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes))
        model.tie_weights()
    model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight))
    return model


def with_random_weights(model):
    """About as large as trained ones; T5's queries are smaller, for nothing divides its scores."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        parameter.data.normal_(mean=float(parameter.ndim == 1), std=0.05)
        if name.endswith("Attention.q.weight"):
            parameter.data.div_(8)
    return model.eval()


@pytest.mark.parametrize("name", sorted(REAL))
def test_real_shapes_equal_hugging_face(name: str, tmp_path: Path) -> None:
    parameters, sizes = REAL[name]
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in of_config(sizes).parameters()) == parameters
    theirs = with_random_weights(of_config(sizes))
    theirs.save_pretrained(tmp_path)
    (ids, mask), (target, _) = (
        padded([each * 301 for each in ragged_ids(lengths, seed)], 0)
        for seed, lengths in enumerate(([11, 1], [4, 4]))
    )
    batch = {"input_ids": ids, "attention_mask": mask}
    batch |= {"decoder_input_ids": target} if sizes else {}
    real = torch.ones_like(target, dtype=torch.bool) if sizes else mask.bool()
    with torch.no_grad():
        expected = theirs(**batch).logits[real]
        del theirs
        gc.collect()
        found = lessen.load(tmp_path)(**batch).logits[real]
    shutil.rmtree(tmp_path)
    assert expected.std() > 1e-2
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
