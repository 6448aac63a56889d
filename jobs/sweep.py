"""Make and measure every variant of a grid, report the trade-off, and select one for each kind of hardware."""

from collections.abc import Mapping

from intent.artifacts import Artifact
from intent.artifacts.lineage import Lineage
from intent.artifacts.selection import SELECTION, Selected, publish, select
from intent.config import JobConfig
from intent.errors import ConfigError
from intent.evaluate.report import REPORT, render_text
from intent.openai import require_key
from jobs.app import cluster, job, reason_of, say
from jobs.evaluate import REFERENCE, evaluate, results_at
from jobs.quantize import attempt, publish_variants, refusals, require_context


def sweep(lineage: Lineage) -> tuple[Artifact, dict[str, Selected]]:
    """Evaluate all of `quant.variants`. Returns the evaluation and the selection. A variant that fails is a row with its
    reason.

    If a variant could be selected, publishes the variants as the workspace's models, and the selection.
    """
    if gold := lineage.config.gold:
        raise ConfigError("gold", gold.value, "is for measuring only, and a sweep selects; use jobs.evaluate with it")
    require_key(lineage.config.baseline)
    # The reference can be selected too, so it is published like the other variants.
    specs = list(dict.fromkeys([REFERENCE, *lineage.config.quant.specs()]))
    require_context(lineage, specs)
    refused = refusals(lineage, specs)
    variants, failed = attempt(lineage, [spec for spec in specs if spec.name not in refused])
    reasons = {name: reason_of(error) for name, error in (refused | failed).items()}
    evaluation = evaluate(lineage, [spec for spec in specs if spec.name not in reasons], reasons)
    selected = select(results_at(evaluation, lineage), lineage.config.quant.allowed_loss)
    if selected:
        publish_variants(lineage, variants)
        publish(lineage.config.workspace, lineage.checkpoint().fingerprint, evaluation.uri, selected, lineage.options)
    return evaluation, selected


def describe(selected: Mapping[str, Selected]) -> str:
    """Describe the selection for the operator."""
    if not selected:
        return "nothing selected: the reference was not measured; the workspace's models and selection stay as they were"
    return "\n".join(f"{model}: {choice.variant}, {choice.reason}" for model, choice in selected.items())


@job("sweep")
def main(config: JobConfig) -> None:
    lineage = Lineage(config)
    lineage.check()
    with cluster(config.cluster):
        evaluation, selected = sweep(lineage)
    say(f"{render_text(results_at(evaluation, lineage))}\n\n{describe(selected)}")
    say(f"report: {evaluation.files_uri}/{REPORT}\nselection: {config.workspace}/{SELECTION}")


if __name__ == "__main__":
    main()
