import json
import platform

import torch

from gossamer.runs.environment import differences, environment, numeric_identity


def test_the_environment_is_json_and_names_the_versions():
    found = environment(threads=3, precision="bfloat16", compiled=True)
    assert json.loads(json.dumps(found)) == found
    assert found["torch"] == torch.__version__
    assert found["python"] == platform.python_version()
    assert (found["numeric"]["threads"], found["numeric"]["precision"]) == (3, "bfloat16")
    assert found["numeric"]["compiled"] is True


def test_equal_identities_have_no_differences():
    assert numeric_identity()["threads"] == torch.get_num_threads()
    assert differences(numeric_identity(threads=2), numeric_identity(threads=2)) == []


def test_every_difference_is_one_line():
    a = {"threads": 1, "precision": "float32", "cpu": "x"}
    b = {"threads": 2, "precision": "float32", "instructions": "AVX2"}
    assert differences(a, b) == [
        "threads: 1 then, 2 now",
        "cpu: x then, None now",
        "instructions: None then, AVX2 now",
    ]
