"""GGUF and GPTQ compute the same as transformers on the whole sequence, with a small random Gemma 3."""

import json
import random
import shutil
import tempfile
from types import SimpleNamespace

import numpy as np
import pytest

from intent.artifacts.variant import Precision, VariantSpec
from intent.engine import Status, unpacked
from intent.engine import gptq as gptq_engine
from intent.engine.automaton import Automaton
from intent.engine.batch import BatchClassifier
from intent.engine.gguf import GgufForward
from intent.engine.gptq import load_gptq
from intent.engine.load import EngineOptions, load_classifier
from intent.errors import ConfigError
from intent.quantize import gguf, gptq
from intent.task.prompt import Prompt, load_tokenizer
from intent.task.schema import to_json
from intent.train.config import TrainConfig
from intent.train.loop import train
from tests.tiny import CART, NAMES, write_gemma

PROMPT = Prompt(CART, NAMES)
WORDS = "add two milk please remove eggs now three monitor the a of cart my we need no more stop".split()
TEXTS = (
    *NAMES,
    "two litres, please!",
    "Größe über ça va? ñandú",
    "žlica za čišćenje, đumbir",
    "牛乳をください",
    "пожалуйста, молоко",
    "من فضلك حليب",
    "דוּ חלב",
    "우유 두 개",
    "दूध दो",
    "𝔹 👍🏽 👩‍👩‍👧",
    "  leading, trailing  and    many   spaces ",
    "tab\tand\nnew lines\n\nand\r\n",
    "aaaa aaaaa bbbbbbb the then there",
    "<eos> <bos> <0x41> ▁ [PAD3]",
    "",
)


class WholeForward:
    """The simplest forward pass: every whole sequence alone, through transformers' own attention."""

    shares, lanes = False, 1

    def __init__(self, model, prefix, max_seq_len=352):
        self.model, self.prefix, self.max_seq_len, self.usual, self.computed = model, list(prefix), max_seq_len, max_seq_len, 0
        self.max_num_seqs, self.max_tokens, self.capacity = 8, 8 * max_seq_len, 8 * max_seq_len
        self.under_way: dict[int, list[int]] = {}

    def extend(self, feeds, tokens, lane=0):
        import torch

        logits = []
        for place, fed in feeds:
            self.under_way.setdefault(place, list(self.prefix)).extend(fed)
            with torch.inference_mode():
                logits.append(self.model(torch.tensor([self.under_way[place]])).logits[0, -1].float().numpy())
        return lambda rows, tokens: np.stack(logits)[np.ix_(rows, tokens)]

    def release(self, place, lane=0):
        del self.under_way[place]

    def close(self):
        pass


def load_whole(checkpoint):
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()


def classifier(forward, checkpoint) -> BatchClassifier:
    tokenizer = load_tokenizer(checkpoint)
    return BatchClassifier("x", forward, tokenizer, PROMPT, Automaton(CART, NAMES, tokenizer, "compact"), 256)


def labels(predictions) -> list[str]:
    assert {prediction.status for prediction in predictions} == {Status.OK}
    return [to_json(prediction.intent) for prediction in predictions]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_gemma(tmp_path_factory.mktemp("gemma"))


@pytest.fixture(scope="module")
def whole(checkpoint):
    return load_whole(checkpoint)


@pytest.fixture(scope="module")
def messages():
    rng = random.Random(3)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 25))) for _ in range(40)]


def test_llama_cpp_computes_gemmas_logits_as_transformers_does(checkpoint, f16, whole, messages):
    tokenizer = load_tokenizer(checkpoint)
    prefix, sequences = PROMPT.prefix_ids(tokenizer), PROMPT.message_ids(tokenizer, messages[:8])
    assert len(prefix) > 3 * whole.config.sliding_window, "a window that holds the prompt shows nothing"
    rows, everything = np.arange(8), np.arange(whole.config.vocab_size)
    ours = GgufForward(f16, prefix, 8, 352, threads=1)
    theirs = WholeForward(whole, prefix)
    for feeds in (list(enumerate(sequences)), [(place, [place + 300, 310]) for place in range(8)]):
        logits, wanted = (each.extend(feeds, everything)(rows, everything) for each in (ours, theirs))
        assert np.abs(logits - wanted).max() < 0.05
        assert wanted.std() > 0.5, "logits near nothing show nothing"


def test_gguf_labels_as_transformers_does(checkpoint, f16, whole, messages):
    prefix = PROMPT.prefix_ids(load_tokenizer(checkpoint))
    ours = classifier(GgufForward(f16, prefix, 8, 352, threads=1), checkpoint).classify(messages)
    theirs = classifier(WholeForward(whole, prefix), checkpoint).classify(messages)
    assert len(set(labels(theirs))) > 5, "a test of one label shows nothing"
    assert labels(ours) == labels(theirs)
    assert [p.confidence for p in ours] == pytest.approx([p.confidence for p in theirs], rel=0.02)


def test_llama_cpp_splits_text_as_gemmas_tokenizer_does(checkpoint, f16):
    import llama_cpp

    reader = llama_cpp.Llama(str(f16), vocab_only=True, verbose=False)
    tokenizer = load_tokenizer(checkpoint)
    rng = random.Random(5)
    mixed = ["".join(rng.choices("".join(TEXTS), k=rng.randint(1, 30))) for _ in range(300)]
    for text in (*TEXTS, *mixed):
        assert reader.tokenize(text.encode(), add_bos=True, special=False) == tokenizer.encode(text).ids, repr(text)
    assert (reader.token_bos(), reader.token_eos()) == (2, 1)


def test_a_vocabulary_whose_merges_llama_cpp_cannot_follow_is_refused_by_the_token(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "cut")
    spec = json.loads((checkpoint / "tokenizer.json").read_text())
    pair = spec["model"]["merges"].pop()
    (tmp_path / "cut/tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(ConfigError, match=rf"model\.source.*{''.join(pair)}.*keep every merge"):
        gguf.write_f16(tmp_path / "cut", tmp_path / "model.gguf")


def test_a_gemma_of_another_attention_than_llama_cpps_is_refused_by_the_setting(checkpoint, tmp_path):
    config = json.loads((checkpoint / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"query_pre_attn_scalar": 168}))
    with pytest.raises(ConfigError, match="query_pre_attn_scalar=168.*quantize to gptq"):
        gguf.write_f16(tmp_path, tmp_path / "model.gguf")


def test_an_importance_matrix_has_every_linear_layer_of_gemma_and_its_output(checkpoint, f16):
    from gguf import GGUFReader

    sequences = [PROMPT.prefix_ids(load_tokenizer(checkpoint))]
    matrix = gguf.importance_matrix(checkpoint, sequences)
    linear = {tensor.name: tensor.shape[0] for tensor in GGUFReader(f16).tensors if len(tensor.shape) > 1}
    assert {name: len(values) for name, values in matrix.items()} == linear
    assert all((values > 0).any() for values in matrix.values())


def test_gptq_of_gemma_loads_and_labels(messages, tmp_path, monkeypatch):
    import torch

    checkpoint = write_gemma(tmp_path / "gemma", num_hidden_layers=2, layer_types=["sliding_attention", "full_attention"])
    gptq.check_group_size(checkpoint, 128)
    tokenizer = load_tokenizer(checkpoint)
    prefix = PROMPT.prefix_ids(tokenizer)
    sequences = [prefix + ids for ids in PROMPT.message_ids(tokenizer, messages)]
    for name in ("working", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "working")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    gptq.quantize(checkpoint, tmp_path / "gptq", 8, 128, sequences, "cpu")
    assert not list((tmp_path / "working").iterdir()), "GPTQModel's log files would lie in the user's folder"
    assert not list((tmp_path / "temporary").iterdir()), "each quantization would leave a copy of the layers"
    model = load_gptq(tmp_path / "gptq", VariantSpec.parse("gptq-w8g128"), "cpu")
    theirs = labels(classifier(WholeForward(load_whole(checkpoint), prefix), checkpoint).classify(messages))
    ours = labels(classifier(WholeForward(model, prefix), checkpoint).classify(messages))
    assert len(set(theirs)) > 5, "a test of one label shows nothing"
    assert np.mean([a == b for a, b in zip(ours, theirs, strict=True)]) > 0.8

    # As on a GPU: the same weights, unpacked by plain operations.
    layer = model.get_decoder().layers[0].mlp.down_proj
    expected = layer.dequantize_weight().float()
    unpacked.replace_linears(model.float(), 8, torch.float32)
    made = model.get_decoder().layers[0].mlp.down_proj
    assert torch.allclose(made.weight(), expected, atol=1e-3), "GPTQModel rounds to bfloat16"
    again = labels(classifier(WholeForward(model, prefix), checkpoint).classify(messages))
    assert np.mean([a == b for a, b in zip(again, ours, strict=True)]) > 0.9


def test_weights_of_four_bits_are_two_to_a_byte():
    import torch

    levels = torch.randint(-8, 8, (64, 24), dtype=torch.int8)
    raw = (levels.int() + 8).view(8, 8, 24)
    qweight = sum(raw[:, i].long() << 4 * i for i in range(8)).to(torch.int64)
    qweight = torch.where(qweight >= 2**31, qweight - 2**32, qweight).int()
    assert torch.equal(unpacked.levels(qweight, 4), levels)
    scales = torch.rand(4, 24)
    layer = unpacked.unpacked_class()(levels, scales, 4, None)
    assert layer.packed.numel() == levels.numel() // 2
    assert torch.allclose(layer.weight(), levels * scales.repeat_interleave(16, 0))


@pytest.mark.skipif("not __import__('torch').cuda.is_available()", reason="the kernel needs a GPU")
@pytest.mark.parametrize("bits", [4, 8])
def test_the_kernel_unpacks_the_same_weights_as_plain_operations(bits):
    import torch

    for inputs, outputs in ((640, 2048), (2048, 512)):
        packed = torch.randint(-128, 128, (inputs * bits // 8, outputs), dtype=torch.int8, device="cuda")
        scales = torch.rand(inputs // 64, outputs, device="cuda").to(torch.bfloat16)
        launch = unpacked.prepare(packed, scales, bits)
        assert launch and torch.equal(launch(), unpacked.unpack(packed, scales, bits))


def test_gemma_is_refused_in_float16(checkpoint):
    with pytest.raises(ConfigError, match=r"engine\.variants='reference-float16': .*overflow.*reference-float32"):
        load_classifier(checkpoint, "reference-float16", PROMPT, EngineOptions("compact"))
    config = TrainConfig(precision=Precision.float16)
    with pytest.raises(ConfigError, match=r"train\.precision='float16': .*overflow.*use float32, or bfloat16"):
        train(checkpoint, config, [], [], None)


def test_gptq_computes_in_float16_on_no_card(monkeypatch, tmp_path):

    import torch

    seen = []

    def load(folder, dtype, **options):
        seen.append(dtype)
        return SimpleNamespace(model=SimpleNamespace(eval=lambda: None))

    package = SimpleNamespace(GPTQModel=SimpleNamespace(load=load), BACKEND=SimpleNamespace(GPTQ_TORCH=1, AUTO=2))
    (tmp_path / "quantize_config.json").write_text('{"sym": true}')
    monkeypatch.setattr(unpacked, "replace_linears", lambda *layers: None)
    monkeypatch.setattr(gptq_engine, "import_gptqmodel", lambda: package)
    for bfloat16 in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True, has=bfloat16: has)
        for device in ("cuda", "cpu"):
            for bits in (4, 8):
                load_gptq(tmp_path, VariantSpec.parse(f"gptq-w{bits}g128"), device)
    assert len(seen) == 8 and torch.float16 not in seen
