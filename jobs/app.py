"""Provide what all jobs share: configuration, errors and exit codes, the cluster, and progress."""

import functools
import io
import logging
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from intent.config import JobConfig
from intent.errors import ConfigError, IntentError, require
from intent.progress import Steps as Steps
from intent.run.config import ClusterConfig, ClusterMode
from jobs import overrides, terminal

# The folder is next to this package both in a clone and in an installation.
CONFIGS = Path(__file__).parents[1] / "conf"
INTERRUPTED = 130
UNPICKLES = "RAY_DATA_AUTOLOAD_"
# These loggers report the source of credentials and the cluster's address at every start.
NOISY = ("botocore", "ray")
log = logging.getLogger(__name__)
_records = False


def _settings(which: str, *, _root_: DictConfig) -> str:
    """Return the job's "own" values, or those that are "shared" by all jobs, as YAML for the template of --help."""
    shared = {field.name for field in fields(JobConfig)}
    names = [name for name in _root_ if name != "hydra" and (name in shared) == (which == "shared")]
    # The template reads $$ as a dollar sign.
    return OmegaConf.to_yaml(OmegaConf.masked_copy(_root_, names)).replace("$", "$$") if names else "none\n"


OmegaConf.register_new_resolver("conf", lambda path: str(CONFIGS / path), replace=True)
OmegaConf.register_new_resolver("settings", _settings, replace=True)


def job(name: str, config: type[JobConfig] = JobConfig) -> Callable:
    """Decorate a function of a validated `config` as the entry point that reads conf/`name`.yaml and the command line.

    A refused configuration exits with 2, and any other named error with its own code. Both print one line to stderr. Of several
    runs (`-m`), all run even if some fail, and the highest code is returned.
    """
    _declare(name, config)

    def wrap(run: Callable[[JobConfig], None]) -> Callable[[], None]:
        entered, worst = False, 0

        @hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=name)
        @functools.wraps(run)
        def guarded(raw: DictConfig) -> None:
            nonlocal entered, worst
            entered = True
            worst = max(worst, _exit_code(lambda: run(_placed(_validated(raw, os.environ)))))

        def main() -> None:
            terminal.take_over()

            def read() -> None:
                sys.argv[1:] = overrides.arguments(sys.argv[1:], config)

            if code := _exit_code(read):
                sys.exit(code)
            try:
                guarded()
            except SystemExit as exit_:
                # Hydra itself exits with 1 for an unknown key, a wrong type or a missing group.
                raise SystemExit(ConfigError.exit_code if exit_.code == 1 and not entered else exit_.code) from None
            sys.exit(worst)

        return main

    return wrap


def load_config(name: str, arguments: list[str], config: type[JobConfig] = JobConfig) -> Any:
    """Return the validated configuration of the command line `python -m jobs.NAME ARGUMENTS`."""
    _declare(name, config)
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        return _validated(hydra.compose(name, overrides.arguments(arguments, config)))


def _declare(name: str, config: type[JobConfig]) -> None:
    ConfigStore.instance().store(name=f"{name}_schema", node=config)
    overrides.keep_text(config)


def _validated(raw: DictConfig, environment: Mapping[str, str] = {}) -> JobConfig:
    for name in environment:
        if name.startswith(UNPICKLES):
            raise ConfigError(name, environment[name], "lets Ray unpickle objects in data files; unset it on every node")
    try:
        if missing := sorted(OmegaConf.missing_keys(raw)):
            raise ConfigError(missing[0], "???", f"has no default; give it on the command line: {missing[0]}=...")
        return OmegaConf.to_object(raw)
    except OmegaConfBaseException as error:
        if isinstance(error.__cause__, IntentError):
            raise error.__cause__ from None
        raise ConfigError(str(error.full_key), "", str(error.msg)) from None


def _placed(config: JobConfig) -> JobConfig:
    """Return the configuration. Raises ConfigError if the job cannot write to its folders, before it works for hours."""
    for name, uri in config.written().items():
        if "://" in uri:
            continue
        there = next(path for path in (Path(uri), *Path(uri).parents) if os.path.exists(path))
        require(there.is_dir(), name, uri, f"{there} is a file; name a folder")
        require(
            os.access(there, os.W_OK | os.X_OK), name, uri, f"{there} may not be written to; change its permissions or the user"
        )
    return config


def _exit_code(run: Callable[[], None]) -> int:
    try:
        run()
    except IntentError as error:
        # A Ray task's error has the whole traceback as its text, and the task's own error as its cause.
        complain(str(getattr(error, "cause", None) or error), exit_code=error.exit_code)
        return error.exit_code
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(INTERRUPTED)
    return 0


def reason_of(error: Exception) -> str:
    """Return an error's type and first line, for a report."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0] if lines else ''}"[:300]


@contextmanager
def cluster(config: ClusterConfig) -> Iterator[None]:
    """Start a mini-cluster in this process, or attach to the running cluster of RAY_ADDRESS or of this job."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
    import ray

    already = ray.is_initialized()
    if not already:
        _start(ray, config)
    try:
        yield
    finally:
        if not already:
            ray.shutdown()


def for_machines(config: ClusterConfig) -> bool:
    """Return whether output is JSON lines, which is so on a cluster without a terminal."""
    return config.mode is ClusterMode.attach and not sys.stderr.isatty()


def watcher(config: ClusterConfig) -> TextIO | None:
    """Return the stream for progress: the log of JSON lines, or None for stderr."""
    return LogLines() if for_machines(config) else None


class LogLines(io.StringIO):
    """A stream that turns every line into a log record."""

    def write(self, text: str) -> int:
        if line := text.rstrip():
            log.info(line)
        return len(text)


def complain(text: str, **facts) -> None:
    """Report an error, as a log record if this process logs JSON lines, else as a line on stderr."""
    if _records:
        log.error(text, extra=facts)
    else:
        print(f"error: {text}", file=sys.stderr, flush=True)


def _start(ray, config: ClusterConfig) -> None:
    global _records
    # Workers print to Ray's own logs. Their errors come back as exceptions.
    if config.mode is ClusterMode.local:
        try:
            ray.init(
                address="local",
                num_cpus=config.cpus,
                num_gpus=config.gpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="error",
            )
        except OSError as error:
            if "AF_UNIX" not in str(error):
                raise
            name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
            where = os.environ.get(name, tempfile.gettempdir())
            raise ConfigError(
                name, where, "is too long for Ray's sockets; set RAY_TMPDIR to a short folder: RAY_TMPDIR=/tmp"
            ) from None
        except Exception as error:
            # Ray raises this as a plain Exception, after 30 seconds that cannot be configured.
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
            raise IntentError(
                "Ray did not start within 30 seconds: this machine is busy; run the same command again when it has free CPUs"
            ) from None
        return
    logs = {"logging_config": ray.LoggingConfig(encoding="JSON")} if for_machines(config) else {"logging_level": "error"}
    try:
        ray.init(address=os.environ.get("RAY_ADDRESS", "auto"), log_to_driver=False, **logs)
        _records = for_machines(config)
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.WARNING)
    except ConnectionError:
        raise ConfigError("cluster", "attach", "no running Ray cluster found; start one, or use cluster=local") from None
    except ray.exceptions.AuthenticationError:
        remedy = (
            "the cluster expects another token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to its own"
        )
        raise ConfigError("cluster", "attach", remedy) from None


def command() -> str:
    """Return this process's command line as a user would write it."""
    return shlex.join(["python", "-m", f"jobs.{Path(sys.argv[0]).stem}", *sys.argv[1:]])


def say(text: str) -> None:
    """Print a line for the user at once."""
    print(text, flush=True)
