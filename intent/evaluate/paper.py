"""Compare the measurements with the paper "Performance Trade-offs of Optimizing Small Language Models for E-Commerce"."""

from collections.abc import Mapping, Sequence

from intent.artifacts.variant import VariantSpec
from intent.evaluate.tables import Cell, Table
from intent.hardware import GPU

ABOUT = (
    "The paper's figures are from its two abstracts: arXiv 2510.21970 (https://arxiv.org/abs/2510.21970) and the journal "
    "version, Big Data Cogn. Comput. 2026, 10(5), 155 (https://doi.org/10.3390/bdcc10050155). They hold for Llama 3.2 1B, an "
    "NVIDIA T4 and the authors' CPU. Here: the best variant of each kind, with this report's model and hardware."
)
COLUMNS = ("of arXiv 2510.21970", "there", "here", "measured with")
Result = Mapping
# The nearest to 16 bits first, as in the paper's baseline. "reference" has 16 bits on a GPU.
BASES = ("reference-float16", "reference-bfloat16", "reference", "reference-float32")
NOT_HERE = "not measured"


def side_by_side(results: Mapping[str, Result]) -> Table:
    """Return a table of the paper's figures and the best figures here. `results`: by row name, see `results_of`."""
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


def _exact(title: str, there: str, results: Sequence[tuple[str, Result]]) -> list[Cell]:
    """Return a row with the best exact match and its 95 % interval."""
    if not results:
        return [title, there, NOT_HERE, None]
    name, best = max(results, key=lambda pair: pair[1]["score"]["exact"])
    low, high = best["score"]["intervals"]["exact"]
    return [title, there, f"{best['score']['exact']:.1%} ({low:.1%} to {high:.1%})", name]


def _pairs(measured: Mapping[str, Result], engine: str, kind: str) -> list[tuple[str, Result, Result]]:
    """Return (name, result, reference) for each result of an engine on a kind of hardware.

    The reference is from the same model of hardware, and the nearest to 16 bits. A result without a reference is left out.
    """
    references = [result for result in measured.values() if result["engine"] == "reference"]
    references.sort(key=lambda result: BASES.index(result["variant"]), reverse=True)
    bases = {result["hardware"]["model"]: result for result in references}
    return [
        (name, result, bases[result["hardware"]["model"]])
        for name, result in measured.items()
        if result["engine"] == engine and result["hardware"]["kind"] == kind and result["hardware"]["model"] in bases
    ]


def _ratio(title: str, there: str, pairs: Sequence[tuple], field: str, least: bool = False) -> list[Cell]:
    """Return a row with the best ratio of `field` to that of the reference: the highest, or the lowest if `least`."""
    ratios = [(result[field] / base[field], name, base) for name, result, base in pairs if result[field] and base[field]]
    if not ratios:
        return [title, there, NOT_HERE, None]
    times, name, base = (min if least else max)(ratios, key=lambda entry: entry[0])
    ratio = f"{times - 1:+.0%} ({times:.2f}x)" if times < 2 else f"{times:.1f}x"
    return [title, there, ratio, f"{name} against {base['variant']}, {base['hardware']['model']}"]
