"""What an audit says of a model without gradients: which signs apply, by what it is attacked, how it is trusted."""

import pytest
import torch
from evaluation_toys import convnet, labelled

import gossamer
from gossamer.errors import ConfigError
from gossamer.evaluation.adapters import NumpyModel, as_module
from gossamer.evaluation.audit import Budget

TINY = Budget(steps=3, more_steps=4, restarts=2, noise=3, queries=20, passes=2, doublings=1)
WITHOUT = {"single-step", "gradients", "saturation", "softmax"}


def numpy_model(*, probabilities=False):
    network = convnet().eval()

    def call(images):
        with torch.no_grad():
            logits = network(torch.from_numpy(images))
        return (logits.softmax(dim=1) if probabilities else logits).numpy()

    return NumpyModel(call)


def audit(model, **options):
    return gossamer.audit(model, labelled(convnet(), n=30), threat="linf:0.002", n=30, budget=TINY, **options)


def inapplicable(found):
    return {sign.name for sign in found.signs if not sign.applicable}


def test_without_a_twin_a_search_by_queries_is_all_and_doubt_the_best():
    found = audit(numpy_model())
    assert found.verdict == "doubt"
    assert found.claimed_attack == "Square, 20 queries"
    assert inapplicable(found) == {*WITHOUT, "black-box"}
    assert "not applicable: no gradients" in str(found)
    assert "not applicable: single-step" in found.reason
    assert "no twin was given" in found.sign("transfer").says
    assert found.attacks[0].attack == "square"


def test_with_its_float_twin_it_can_be_trusted():
    found = audit(numpy_model(), twin=convnet())
    assert found.verdict == "trust"
    assert "from the twin" in found.claimed_attack
    assert inapplicable(found) == WITHOUT
    assert {"transfer from the twin", "margin", "dlr", "square", "40 queries"} <= {a.attack for a in found.attacks}
    assert found.sign("transfer").measured[0].count == 0


def test_a_twin_that_predicts_otherwise_is_no_evidence():
    found = audit(numpy_model(), twin=lambda x: -convnet().eval()(x))
    assert found.verdict != "trust"
    assert found.sign("transfer").settled is False
    assert found.sign("transfer").measured[0].count > 10


def test_probabilities_are_no_sign_where_no_loss_is_followed():
    assert "softmax" in inapplicable(audit(numpy_model(probabilities=True)))
    assert audit(as_module(numpy_model(probabilities=True), outputs="probabilities")).judge == "the model"


def test_a_torch_function_that_hides_its_gradient_is_no_such_model():
    network = convnet().eval()

    def call(x):
        with torch.no_grad():
            return network(x).softmax(dim=1)

    found = audit(call)
    assert inapplicable(found) == set()
    assert found.verdict != "trust"
    assert found.sign("gradients").settled is found.sign("softmax").settled is False


def test_layers_cannot_be_named():
    with pytest.raises(ConfigError, match="none, as layers of an ONNX file"):
        audit(numpy_model(), layers=("conv1",))
