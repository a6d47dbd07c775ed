import inspect

import pytest

from gossamer.errors import ConfigError
from gossamer.models import MODELS, build

COMMON = {"num_classes", "in_channels", "image_size", "last_batch_norm", "mean", "std"}


@pytest.mark.parametrize("name", MODELS)
def test_factories_take_keywords_only_and_share_the_common_options(name):
    parameters = inspect.signature(MODELS[name].factory).parameters
    assert set(parameters) >= COMMON
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters.values())
    assert all(parameter.default is not inspect.Parameter.empty for parameter in parameters.values())
    assert MODELS[name].options == tuple(parameters)


@pytest.mark.parametrize("name", MODELS)
def test_entries_say_what_they_are_and_publish_options_they_take(name):
    entry = MODELS[name]
    assert entry.description
    assert "\n" not in entry.description
    assert entry.reference
    assert set(entry.published) <= set(entry.options)


def test_an_unknown_network_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"'resnet-18'.*did you mean resnet18\?"):
        build("resnet-18")


def test_an_unlike_name_is_refused_with_all_names():
    with pytest.raises(ConfigError, match="choose among resnet18, resnet34"):
        build("zzz")


def test_an_unknown_option_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError, match=r"'num_clases'.*did you mean num_classes\?"):
        build("resnet20", num_clases=10)


def test_an_option_of_another_network_is_refused():
    with pytest.raises(ConfigError, match="option of model mobilenetv2"):
        build("mobilenetv2", width=0.5)
