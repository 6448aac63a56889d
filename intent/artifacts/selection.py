"""Select a variant for each kind of hardware from a sweep's results, and store the selection beside the models."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from intent.errors import ConfigError
from intent.storage import StorageOptions, open_store

SELECTION = "selection.json"
MEASURED_ONLY = ("base", "endpoint")


@dataclass(frozen=True)
class Selected:
    """The variant for one model of processor, with its fingerprint, measured batch size, and the reason of its selection.

    `batch` None: as many messages as the engine has memory for.
    """

    variant: str
    fingerprint: str
    batch: int | None
    kind: str
    reason: str


def select(results: Mapping[str, Mapping], allowed_loss: float) -> dict[str, Selected]:
    """Select, for each model of processor, the cheapest result whose exact match is at most `allowed_loss` below the
    reference's.

    If there is none, selects the most accurate. All results of one processor cost the same per hour, so the cheapest is the
    fastest. Ignores results that have no reference to compare with.
    """
    classes: dict[str, list[Mapping]] = {}
    for result in results.values():
        if "reason" not in result and result["loss"] and result["engine"] not in MEASURED_ONLY:
            classes.setdefault(result["hardware"]["model"], []).append(result)
    return {model: _select(measured, allowed_loss) for model, measured in classes.items()}


def _select(measured: list[Mapping], allowed_loss: float) -> Selected:
    good = [result for result in measured if result["loss"][0] <= allowed_loss + 1e-9]
    if good:
        best = max(good, key=lambda r: (r["messages_per_second"], -r["file_bytes"]))
        why = f"the cheapest of the {len(good)} of {len(measured)} that lose at most {allowed_loss:g} of exact match"
    else:
        best = max(measured, key=lambda r: (r["score"]["exact"], r["messages_per_second"]))
        why = f"the most accurate: none of {len(measured)} loses as little as {allowed_loss:g} of exact match"
    lost, low, high = best["loss"]
    price = best["price_per_million"]
    cost = f"{best['messages_per_second']:,.1f} messages/s" + (f", ${price:,.2f} per million" if price is not None else "")
    reason = f"{why}: {best['score']['exact']:.3f} exact (loses {lost:.3f}, 95 % interval {low:.3f} to {high:.3f}), {cost}"
    return Selected(best["variant"], best["fingerprint"], best["batch"], best["hardware"]["kind"], reason)


def publish(
    workspace: str, checkpoint: str, evaluation: str, selected: Mapping[str, Selected], storage: StorageOptions
) -> None:
    """Make these the workspace's selection. Keeps selections of the same checkpoint for other hardware."""

    def change(data: bytes | None) -> bytes:
        before = json.loads(data) if data else None
        other_hardware = before["hardware"] if before and before["checkpoint"] == checkpoint else {}
        hardware = other_hardware | {model: asdict(choice) | {"evaluation": evaluation} for model, choice in selected.items()}
        return json.dumps({"checkpoint": checkpoint, "hardware": hardware}, indent=1, ensure_ascii=False).encode()

    open_store(workspace, storage).update(SELECTION, change)


def read(workspace: str, storage: StorageOptions) -> dict | None:
    """Read `checkpoint` (a fingerprint) and `hardware` (model of processor -> a `Selected` and its `evaluation`)."""
    try:
        return json.loads(open_store(workspace, storage).read(SELECTION))
    except FileNotFoundError:
        return None


def choose(workspace: str, hardware: Sequence[str], storage: StorageOptions) -> dict[str, Selected]:
    """Return the selections for these models of processor, by model. Returns all selections if none is given."""
    selections = (read(workspace, storage) or {}).get("hardware", {})
    names = [field.name for field in fields(Selected)]
    return {
        model: Selected(**{n: selections[model][n] for n in names}) for model in hardware or selections if model in selections
    }


def require_checkpoint(workspace: str, models: str, checkpoint: str | None, storage: StorageOptions) -> None:
    """Raise ConfigError if the selection is for another checkpoint than the registry at `models`."""
    selection = read(workspace, storage)
    if selection and checkpoint and selection["checkpoint"] != checkpoint:
        raise ConfigError(
            "engine.variants",
            [],
            f"{SELECTION} was made for another checkpoint ({selection['checkpoint']}; {models} has {checkpoint}); "
            "run python -m jobs.sweep again, or name engine.variants",
        )


def require_same(models: str, selected: Selected, actual: str) -> None:
    """Raise ConfigError if the fingerprint of the registry's variant, `actual`, is not that of the selected one."""
    if actual != selected.fingerprint:
        raise ConfigError(
            "engine.variants",
            [],
            f"{SELECTION} selected {selected.variant} of another checkpoint ({selected.fingerprint}; {models} has {actual}); "
            "run python -m jobs.sweep again, or name engine.variants",
        )
