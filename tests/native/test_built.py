"""Where a C++ compiler is, the kernels must have been built: their tests would be passed over in silence."""

import os
import shutil

import pytest

from lessen.native import native, why_not

compiler = shutil.which(os.environ.get("CXX", "c++"))


@pytest.mark.skipif(compiler is None, reason="no C++ compiler")
@pytest.mark.skipif(os.environ.get("LESSEN_DISABLE_NATIVE") == "1", reason="switched off")
def test_kernels_are_there():
    assert native() is not None, why_not()
