"""`import lessen` costs nothing, and transformers' Auto classes know lessen whatever was imported first."""

import subprocess
import sys
from pathlib import Path

import pytest

import lessen

AUTO = "AutoModelForSequenceClassification.from_pretrained(folder)"
ORDERS = {
    "lessen first": f"import lessen, transformers; found = transformers.{AUTO}",
    "lessen last": f"from transformers import {AUTO.split('.')[0]}; import lessen; found = {AUTO}",
    "the configuration alone": (
        "import lessen; from transformers import AutoConfig; found = AutoConfig.from_pretrained(folder)"
    ),
    "a pipeline": (
        "import lessen; from transformers import pipeline; "
        "found = pipeline('text-classification', folder).model; assert found.config.model_type == 'lessen'"
    ),
    "a subclass first": "from lessen.hf import LessenModel; import lessen; found = lessen.load(folder)",
}


def ran(code: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)


@pytest.mark.parametrize("order", ORDERS)
def test_auto_classes_know_lessen(order: str, small: Path) -> None:
    check = "assert type(found).__module__.startswith('lessen.'), type(found)"
    ran(f"import sys; folder = sys.argv[1]; {ORDERS[order]}; {check}", str(small))


def test_neither_the_package_nor_help_loads_torch() -> None:
    ran(
        "import sys, lessen.cli\n"
        "for given in (['--help'], ['compress', '--help'], ['compress', '--no-such-option']):\n"
        "    try: lessen.cli.main(given)\n"
        "    except SystemExit: pass\n"
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )


def test_what_is_exported_is_there() -> None:
    assert all(getattr(lessen, name) for name in lessen.__all__)
    assert set(lessen.__all__) <= set(dir(lessen))
    for name in ("laod", "_load"):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
            getattr(lessen, name)


def test_threads_may_ask_at_once() -> None:
    ran(
        "import threading, lessen\n"
        "found = []\n"
        "names = ['load', 'with_exits', 'LessenConfig', 'LessenForCausalLM']\n"
        "ask = lambda name: found.append(getattr(lessen, name))\n"
        "threads = [threading.Thread(target=ask, args=(name,)) for name in names]\n"
        "[each.start() for each in threads]; [each.join() for each in threads]\n"
        "assert len(found) == 4"
    )


def test_transformers_works_where_lessen_does_not() -> None:
    ran(
        "import sys, warnings, lessen\n"
        "sys.modules['lessen.saving'] = None\n"
        "with warnings.catch_warnings(record=True) as said:\n"
        "    warnings.simplefilter('always')\n"
        "    from transformers import AutoModelForSequenceClassification\n"
        "assert any('Auto classes do not know lessen' in str(each.message) for each in said)"
    )


def test_a_package_that_is_loaded_again_registers_once() -> None:
    ran(
        "import importlib, sys, lessen\n"
        "importlib.reload(lessen)\n"
        "assert sum(type(each).__name__ == '_Following' for each in sys.meta_path) == 1\n"
        "assert lessen.depth"
    )
