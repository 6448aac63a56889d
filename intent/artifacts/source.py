"""Name the content of `model.source`: a folder's files, a package's file, or a commit of a repository on the Hub."""

import importlib.util
import logging
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

from intent.artifacts.content import file_sha256, fingerprint
from intent.errors import ConfigError
from intent.train.config import PACKAGE, ModelConfig

# The files that transformers may read from a folder. Code and pickles are never read.
READ = {".safetensors", ".json", ".jinja", ".model", ".txt", ".tiktoken"}
COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_SECONDS = 20.0

logger = logging.getLogger(__name__)


def pinned(model: ModelConfig) -> ModelConfig:
    """Return the model with `source` as an absolute folder, or with `revision` as the commit that it has on the Hub now.

    All tasks of a job then load the same files, and a fingerprint can name them. Raises ConfigError if no commit is known.
    """
    if model.source.startswith(PACKAGE):
        return model
    if Path(model.source).is_dir():
        return replace(model, source=str(Path(model.source).absolute()))
    if model.source.startswith(("/", ".", "~")):
        raise ConfigError("model.source", model.source, "no such folder on this machine; give one that every node has")
    return replace(model, revision=_commit(model.source, model.revision))


def source_content(model: ModelConfig) -> str:
    """Return a name for the content of a `pinned` model's source: a SHA-256, a fingerprint of SHA-256s, or a commit."""
    if model.source.startswith(PACKAGE):
        return model.sha256 or _package_sha256(model.source)
    folder = Path(model.source)
    if not folder.is_dir():
        return str(model.revision)
    files = sorted(path for path in folder.iterdir() if path.suffix in READ)
    return fingerprint({path.name: file_sha256(path) for path in files})


def _package_sha256(source: str) -> str:
    pieces = [piece.partition("/") for piece in source.removeprefix(PACKAGE).split()]
    return fingerprint([file_sha256(_in_package(source, package, file)) for package, _, file in pieces])


def _in_package(source: str, package: str, file: str) -> Path:
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin).parent / file if spec and spec.origin else None
    if path is None or not path.is_file():
        raise ConfigError("model.source", source, f"{package} is not installed or has no {file}; run make install")
    return path


@cache
def _commit(source: str, revision: str | None) -> str:
    """Return the commit of a branch or tag (None: main), from the Hub or else from this machine's cache of the Hub."""
    if revision and COMMIT.fullmatch(revision):
        return revision
    resolved = _on_hub(source, revision) or _loaded(source, revision)
    if resolved is None:
        remedy = "the Hub does not answer, and this machine has no copy; name the commit: model.revision=COMMIT"
        raise ConfigError("model.revision", revision, f"{source} is not pinned to a commit, {remedy}")
    logger.warning(
        "model.source=%s is not pinned and is commit %s now; set model.revision=%s, so that later jobs find its artifacts "
        "even if the branch moves",
        source,
        resolved,
        resolved,
    )
    return resolved


def _on_hub(source: str, revision: str | None) -> str | None:
    """Return the Hub's commit; None if the Hub cannot be reached. Raises ConfigError if it has no such model or revision."""
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return huggingface_hub.model_info(source, revision=revision, timeout=HUB_SECONDS).sha
    except HFValidationError as error:
        raise ConfigError("model.source", source, "is neither a folder on this machine nor an ORG/NAME of the Hub") from error
    except (GatedRepoError, RepositoryNotFoundError) as error:
        remedy = "the Hub has no such model, or you have no access to it; check the name and HF_TOKEN"
        raise ConfigError("model.source", source, remedy) from error
    except RevisionNotFoundError as error:
        raise ConfigError("model.revision", revision, f"{source} has no such revision on the Hub; correct it") from error
    except Exception:
        # The Hub's library may raise the errors of any HTTP client if the Hub is offline, refuses, or does not answer.
        return None


def _loaded(source: str, revision: str | None) -> str | None:
    """Return the commit of a branch or tag in the Hub's cache on this machine."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=source, repo_type="model")
    path = folder / "refs" / (revision or "main")
    return path.read_text().strip() if path.is_file() else None
