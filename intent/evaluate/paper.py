"""Compare what was measured here with "Performance Trade-offs of Optimizing Small Language Models for E-Commerce"."""

from collections.abc import Mapping, Sequence

from intent.artifacts.variant import VariantSpec
from intent.evaluate.tables import Cell, Table
from intent.hardware import GPU

ABOUT = (
    "The paper's figures are those of its two abstracts: arXiv 2510.21970 (https://arxiv.org/abs/2510.21970) and the journal's "
    "version, Big Data Cogn. Comput. 2026, 10(5), 155 (https://doi.org/10.3390/bdcc10050155). They hold for Llama 3.2 1B, an "
    "NVIDIA T4 and its authors' CPU. Here: the best of the kind, on the hardware and with the model of this report."
)
COLUMNS = ("of arXiv 2510.21970", "there", "here", "measured with")
Result = Mapping
# The paper's baseline uses 16 bits. So does "reference" on a GPU.
BASES = ("reference-float16", "reference-bfloat16", "reference", "reference-float32")
NOT_HERE = "not measured"


def side_by_side(results: Mapping[str, Result]) -> Table:
    measured = {name: result for name, result in results.items() if "reason" not in result}
    by_engine = {
        engine: [(name, result) for name, result in measured.items() if result["engine"] == engine]
        for engine in ("base", "reference", "endpoint")
    }
    rows = [
        _exact("model before fine-tuning, exact match", "not in its abstracts", by_engine["base"]),
        _exact("fine-tuned model, 16 bits or more, exact match", "99 % (journal: 98.8 %)", by_engine["reference"]),
        _exact("commercial model, exact match", "GPT-4.1, which the 99 % match", by_engine["endpoint"]),
    ]
    gptq, gguf = _pairs(measured, "gptq", GPU), _pairs(measured, "gguf", "cpu")
    four = [pair for pair in gptq if VariantSpec.parse(pair[1]["variant"]).bits == 4]
    rows += [
        _ratio("GPTQ 4-bit on a GPU, memory against 16 bits", "-41 % (T4)", four, "gpu_peak_bytes", least=True),
        _ratio("GPTQ 4-bit on a GPU, speed against 16 bits", "-82 % (T4)", four, "messages_per_second"),
        _ratio("GGUF on a CPU, speed against the unquantized model", "up to 18x", gguf, "messages_per_second"),
        _ratio("GGUF on a CPU, memory against the unquantized model", "over -90 %", gguf, "peak_bytes", least=True),
    ]
    return Table(COLUMNS, rows, prose=True)


def _exact(what: str, there: str, found: Sequence[tuple[str, Result]]) -> list[Cell]:
    if not found:
        return [what, there, NOT_HERE, None]
    name, best = max(found, key=lambda pair: pair[1]["score"]["exact"])
    low, high = best["score"]["intervals"]["exact"]
    return [what, there, f"{best['score']['exact']:.1%} ({low:.1%} to {high:.1%})", name]


def _pairs(measured: Mapping[str, Result], engine: str, kind: str) -> list[tuple[str, Result, Result]]:
    """Return (name, result, the reference of its hardware class nearest to 16 bits) of the engine's results on that
    hardware.
    """
    own = [result for result in measured.values() if result["engine"] == "reference"]
    own.sort(key=lambda result: BASES.index(result["variant"]), reverse=True)
    bases = {result["hardware"]["model"]: result for result in own}
    return [
        (name, result, bases[result["hardware"]["model"]])
        for name, result in measured.items()
        if result["engine"] == engine and result["hardware"]["kind"] == kind and result["hardware"]["model"] in bases
    ]


def _ratio(what: str, there: str, pairs: Sequence[tuple], field: str, least: bool = False) -> list[Cell]:
    """Return the best ratio of the pairs: the lowest or the highest of the field against its base."""
    known = [(result[field] / base[field], name, base) for name, result, base in pairs if result[field] and base[field]]
    if not known:
        return [what, there, NOT_HERE, None]
    times, name, base = (min if least else max)(known, key=lambda entry: entry[0])
    said = f"{times - 1:+.0%} ({times:.2f}x)" if times < 2 else f"{times:.1f}x"
    return [what, there, said, f"{name} against {base['variant']}, {base['hardware']['model']}"]
