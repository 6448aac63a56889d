import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from intent.artifacts import Artifact, ArtifactRecord
from intent.artifacts.lineage import Lineage
from intent.artifacts.variant import VariantSpec
from intent.engine import calibration
from intent.errors import ConfigError
from intent.quantize import contents, gguf, gptq
from intent.task.prompt import load_tokenizer
from intent.train.base import write_base
from intent.train.config import ModelConfig
from jobs.app import load_config
from jobs.quantize import describe
from tests.tiny import NAMES, write_checkpoint, write_gemma


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("tiny"))


def test_a_recalibrated_adapter_is_another_model(tmp_path):
    folder = Path(str(files("intent") / "adapters/gemma3-270m"))
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

    gguf.make(checkpoint, tmp_path / "model.gguf", VariantSpec.parse("gguf-F16"), 1)
    reader = llama_cpp.Llama(str(tmp_path / "model.gguf"), vocab_only=True, verbose=False)
    tokenizer = load_tokenizer(checkpoint)
    for text in (*NAMES, "two litres, please!", "ça va   <eos>", "27 inch 1L 👍"):
        assert reader.tokenize(text.encode(), add_bos=False, special=False) == tokenizer.encode(text).ids


def test_an_importance_matrix_changes_the_file_and_it_still_loads(checkpoint, tmp_path):
    import llama_cpp

    sequences = [load_tokenizer(checkpoint).encode(f"add {name} now please").ids for name in NAMES]
    gguf.make(checkpoint, tmp_path / "plain.gguf", VariantSpec.parse("gguf-Q4_K_M"), 1)
    lines, spec = [], VariantSpec.parse("gguf-Q4_K_M-imatrix")
    gguf.make(checkpoint, tmp_path / "matrix.gguf", spec, 1, sequences, lambda *report: lines.append(report))
    plain, matrix = (tmp_path / "plain.gguf").read_bytes(), (tmp_path / "matrix.gguf").read_bytes()
    assert plain != matrix
    assert not (tmp_path / "plain.f16").exists()
    llama_cpp.Llama(str(tmp_path / "matrix.gguf"), n_ctx=64, verbose=False).close()
    # The user sees the progress.
    sequence, tensor = ([report[:2] for report in lines if report[2] == unit] for unit in ("sequence", "tensor"))
    assert sequence == [(done, len(sequences)) for done in range(len(sequences) + 1)]
    assert tensor == [(done, len(tensor)) for done in range(len(tensor))] and len(tensor) > 10


def types_in(file) -> dict[str, str]:
    from gguf import GGUFReader

    return {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(file).tensors}


@pytest.mark.parametrize(
    "name, expected",
    [
        ("gguf-BF16", {"token_embd": "BF16", "blk.0.ffn_up": "BF16"}),
        ("gguf-F16-embed-Q8_0", {"token_embd": "Q8_0", "blk.0.ffn_up": "F16"}),
        ("gguf-Q4_0-embed-Q4_0", {"token_embd": "Q4_0", "blk.0.ffn_up": "Q4_0"}),
        (
            "gguf-Q4_0-embed-F16-ends-IQ4_NL-down-Q8_0-imatrix",
            {
                "token_embd": "F16",
                "blk.0.ffn_up": "IQ4_NL",
                "blk.0.ffn_down": "IQ4_NL",
                "blk.1.ffn_down": "Q8_0",
                "blk.1.ffn_up": "Q4_0",
            },
        ),
    ],
)
def test_a_name_sets_the_types_of_parts_apart(tmp_path, name, expected):
    checkpoint = write_gemma(tmp_path / "gemma")
    spec = VariantSpec.parse(name)
    held = gguf.make(checkpoint, tmp_path / "model.gguf", spec, 1, [[2, 300, 310, 320]])
    types = types_in(tmp_path / "model.gguf")
    assert {tensor: types[f"{tensor}.weight"] for tensor in expected} == expected
    assert held["fell_back"] == 0
    assert sum(held["types"].values()) < (tmp_path / "model.gguf").stat().st_size


def test_a_file_type_that_rows_do_not_fit_is_reported_with_its_fallback(checkpoint, tmp_path):
    spec = VariantSpec.parse("gguf-Q4_K_M")
    fits = gguf.make(checkpoint, tmp_path / "fits.gguf", spec, 1)
    assert set(fits["types"]) == {"Q4_K", "Q6_K"} and fits["fell_back"] == 0
    # A Gemma of 128 columns: no row of K-quants is shorter than 256.
    falls = gguf.make(write_gemma(tmp_path / "gemma"), tmp_path / "falls.gguf", spec, 1)
    assert falls["fell_back"] == falls["types"]["Q5_0"] + falls["types"]["Q8_0"] > falls["types"]["Q4_K"]
    assert contents.describe(falls).endswith("MB in a type not asked for")
    assert contents.describe({}) == ""


def test_a_job_says_which_types_a_file_has():
    held = {"types": {"Q4_0": 56_400_000, "Q8_0": 8_500_000}, "fell_back": 8_500_000}
    made = {"gguf-Q4_0": held, "gptq-w4g64": {}}
    lines = [describe(n, Artifact("w", ArtifactRecord(n, {}, {}, {"m": {"bytes": 65_000_000}}, m))) for n, m in made.items()]
    assert lines == [
        "gguf-Q4_0: w (65 MB: Q4_0 56.4 MB, Q8_0 8.5 MB; 8.5 MB in a type not asked for)",
        "gptq-w4g64: w (65 MB)",
    ]


@pytest.mark.parametrize(
    "name", ["gguf-F16-down-Q8_0", "gguf-Q4_0-embed-Q8_0-embed-F16", "gguf-Q4_0-head-Q8_0", "gguf-Q4_0-embed-Q6_K"]
)
def test_a_part_that_cannot_be_set_apart_is_refused_with_those_that_can(name):
    with pytest.raises(ConfigError, match=rf"quant\.variants='{name}'.*'embed', 'down', 'ends'.*'Q8_0'"):
        VariantSpec.parse(name)


def test_an_adapter_of_another_model_is_refused_by_name(checkpoint, tmp_path):
    with pytest.raises(ConfigError, match=r"model\.adapter='shipped:gemma3-270m'.*model\.adapter=null"):
        write_base(ModelConfig("m", str(checkpoint), adapter="shipped:gemma3-270m"), tmp_path)
