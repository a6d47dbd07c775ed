"""Do artifacts of every kind compute what their networks compute, over random small architectures and densities?"""

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import PACKAGE, Case, networks, package_case

from gossamer.deploy.artifact import open_artifact
from gossamer.deploy.export import export
from gossamer.deploy.parity import EXACT, parity

KINDS = ("sparse", "c", "onnx", "torch")
ASKED = given(case=networks(), kind=st.sampled_from(KINDS))
QUIET = settings(deadline=None, suppress_health_check=list(HealthCheck))


def check(case: Case, kind: str) -> None:
    images = case.images(5)
    with tempfile.TemporaryDirectory() as folder:
        made = export(case.network, images[:1], kind, Path(folder) / "net")
        artifact = open_artifact(made.path, module=case.network, trust=True)
        assert (artifact.kind, artifact.shape) == (kind, case.shape)
        for many in (images[:1], images, torch.rand(3, *case.shape, generator=torch.Generator().manual_seed(0))):
            assert parity(case.network, artifact.model, many).error <= EXACT


@settings(QUIET, max_examples=12)
@ASKED
def test_random_networks_as_every_exact_kind(case: Case, kind: str):
    check(case, kind)


@pytest.mark.long
@settings(QUIET, max_examples=300)
@ASKED
def test_many_random_networks_as_every_exact_kind(case: Case, kind: str):
    check(case, kind)


@pytest.mark.long
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "c"])
@pytest.mark.parametrize("name", PACKAGE)
def test_networks_of_the_package_as_every_exact_kind(name: str, kind: str):
    """As C they are compared value by value elsewhere."""
    check(package_case(name)[0], kind)
