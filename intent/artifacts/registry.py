"""Keep a workspace's current variants by name in its file models.json, from which `classify` loads them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from intent.artifacts.record import Artifact, load
from intent.artifacts.variant import LINEAR
from intent.errors import ConfigError, CorruptData, MissingArtifact
from intent.storage import StorageOptions, open_store, split_uri

MODELS = "models.json"


@dataclass(frozen=True)
class Models:
    """The URIs of a workspace's current variants, by name, and the fingerprint of their checkpoint."""

    checkpoint: str | None = None
    variants: dict[str, str] = field(default_factory=dict)


def publish_models(
    workspace: str, variants: dict[str, Artifact], storage: StorageOptions, checkpoint: str | None = None
) -> None:
    """Make these the workspace's current variants under their names.

    Drops the variants of other checkpoints than `checkpoint`. URIs inside the workspace are stored relative to it, so that the
    workspace can be moved.
    """
    here = f"{workspace.rstrip('/')}/"

    def change(data: bytes | None) -> bytes:
        before = _parse(data, f"{here}{MODELS}")
        same = checkpoint in (None, before.checkpoint)
        variant_uris = {name: uri for name, uri in before.variants.items() if same or name.split("-")[0] in LINEAR}
        variant_uris |= {name: variant.uri.removeprefix(here) for name, variant in variants.items()}
        return json.dumps(asdict(Models(before.checkpoint if same else checkpoint, variant_uris)), indent=1).encode()

    open_store(workspace, storage).update(MODELS, change)


def read_models(uri: str, storage: StorageOptions) -> Models:
    """Read the registry at `uri`, with absolute URIs. Returns an empty one if there is no such file."""
    parent, name = split_uri(uri)
    pointer = _read(parent, name, storage)
    whole = {name: uri if "://" in uri or uri.startswith("/") else f"{parent}/{uri}" for name, uri in pointer.variants.items()}
    return Models(pointer.checkpoint, whole)


def find_models(uri: str, names: Sequence[str], storage: StorageOptions) -> dict[str, Artifact]:
    """Return the variants of these names from the registry at `uri`. Raises MissingArtifact or ConfigError with the remedy."""
    current = read_models(uri, storage).variants
    if not current:
        raise MissingArtifact(f"no models at {uri}: run make demo, or python -m jobs.train and python -m jobs.quantize")
    for name in names:
        if name not in current:
            raise ConfigError("engine.variants", name, f"{uri} has {sorted(current)}; make it with python -m jobs.quantize")
    remedy = f"{uri} names it; run python -m jobs.quantize"
    return {name: load(current[name], remedy, storage) for name in names}


def checkpoint_at(uri: str, storage: StorageOptions) -> str | None:
    """Return the fingerprint of the checkpoint in the registry at `uri`, or None."""
    return _read(*split_uri(uri), storage).checkpoint


def _read(parent: str, name: str, storage: StorageOptions) -> Models:
    try:
        return _parse(open_store(parent, storage).read(name), f"{parent}/{name}")
    except FileNotFoundError:
        return Models()


def _parse(data: bytes | None, uri: str) -> Models:
    """Parse the file at `uri`. Raises CorruptData if it is not a registry."""
    if data is None:
        return Models()
    try:
        pointer = json.loads(data)
        # Older files hold only the variants.
        return Models(**pointer) if "variants" in pointer else Models(None, pointer)
    except (ValueError, TypeError) as error:
        raise CorruptData(f"{uri}: is not a registry of models ({error}); delete it and run python -m jobs.quantize") from error
