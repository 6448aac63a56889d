import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from intent import calibration
from intent.artifacts.lineage import Lineage
from intent.config import ModelConfig
from intent.errors import ConfigError
from intent.prompt import load_tokenizer
from intent.quantize import gguf, gptq
from intent.train.base import write_base
from jobs.app import load_config
from tests.tiny import NAMES, write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("tiny"))


def test_an_adapter_calibrated_anew_is_another_model(tmp_path):
    folder = Path(str(files("intent") / "adapters/smollm2-135m"))
    before = Lineage(load_config("train", [f"model.adapter={folder}"])).base_record().fingerprint
    shutil.copytree(folder, tmp_path / "adapter")
    same = Lineage(load_config("train", [f"model.adapter={tmp_path}/adapter"]))
    assert same.base_record().fingerprint == before
    calibration.write(tmp_path / "adapter", {"action": 3.0})
    assert same.base_record().fingerprint != before


def test_a_group_size_that_does_not_divide_the_model_is_refused_with_those_that_do(checkpoint, tmp_path):
    config = json.loads((checkpoint / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_size": 576, "intermediate_size": 1536, "head_dim": 64}))
    with pytest.raises(ConfigError, match=r"group size 128.*\[16, 32, 64\]"):
        gptq.check_group_size(tmp_path, 128)
    gptq.check_group_size(checkpoint, 128)


def test_an_architecture_without_a_gguf_form_is_refused_by_name(checkpoint, tmp_path):
    config = json.loads((checkpoint / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    with pytest.raises(ConfigError, match="mamba"):
        gguf.write_f16(tmp_path, tmp_path / "model.gguf")


def test_llama_cpp_reads_the_vocabulary_as_the_checkpoint_does(checkpoint, tmp_path):
    import llama_cpp

    gguf.make(checkpoint, tmp_path / "model.gguf", "F16", 1)
    reader = llama_cpp.Llama(str(tmp_path / "model.gguf"), vocab_only=True, verbose=False)
    tokenizer = load_tokenizer(checkpoint)
    for text in (*NAMES, "two litres, please!", "ça va   <eos>", "27 inch 1L 👍"):
        assert reader.tokenize(text.encode(), add_bos=False, special=False) == tokenizer.encode(text).ids


def test_an_importance_matrix_changes_the_file_and_it_still_loads(checkpoint, tmp_path):
    import llama_cpp

    sequences = [load_tokenizer(checkpoint).encode(f"add {name} now please").ids for name in NAMES]
    gguf.make(checkpoint, tmp_path / "plain.gguf", "Q4_K_M", 1)
    said = []
    gguf.make(checkpoint, tmp_path / "matrix.gguf", "Q4_K_M", 1, sequences, lambda *report: said.append(report))
    plain, matrix = (tmp_path / "plain.gguf").read_bytes(), (tmp_path / "matrix.gguf").read_bytes()
    assert plain != matrix
    assert not (tmp_path / "plain.f16").exists()
    llama_cpp.Llama(str(tmp_path / "matrix.gguf"), n_ctx=64, verbose=False).close()
    # Whoever waits sees how far it is.
    sequence, tensor = ([report[:2] for report in said if report[2] == unit] for unit in ("sequence", "tensor"))
    assert sequence == [(done, len(sequences)) for done in range(len(sequences) + 1)]
    assert tensor == [(done, len(tensor)) for done in range(len(tensor))] and len(tensor) > 10


def test_an_adapter_of_another_model_is_refused_by_name(checkpoint, tmp_path):
    with pytest.raises(ConfigError, match=r"model\.adapter='shipped:smollm2-135m'.*model\.adapter=null"):
        write_base(ModelConfig("m", str(checkpoint), adapter="shipped:smollm2-135m"), tmp_path)
