"""The images, checked without building one."""

import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

from ray.autoscaler._private.command_runner import _with_interactive

ROOT = Path(__file__).parents[2]
# A continued line is one instruction; a comment is none.
LINES = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", (ROOT / "infra/Dockerfile").read_text())).splitlines()
INSTRUCTIONS = [tuple(line.split(maxsplit=1)) for line in LINES if line.strip()]


def stages() -> dict[str, list[tuple[str, str]]]:
    """Return the instructions of each stage, after those of the stages that it is built from."""
    instructions: dict[str, list[tuple[str, str]]] = {}
    for name, rest in INSTRUCTIONS:
        if name == "FROM":
            source, _, stage = rest.partition(" AS ")
            instructions[stage] = list(instructions.get(source, []))
        instructions[stage].append((name, rest))
    return instructions


def test_the_linter_finds_nothing():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "infra/Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_outside_images_are_pinned_to_a_full_version():
    names = set(stages())
    outside = [rest.split(" AS ")[0] for name, rest in INSTRUCTIONS if name == "FROM"]
    outside = [image for image in outside if image not in names]
    assert outside and all(re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*", image) for image in outside)


def test_each_image_installs_as_ci_does_without_test_packages():
    assert "make test" in (ROOT / ".ci/run").read_text() and "\ntest: install\n" in (ROOT / "Makefile").read_text()
    images = stages()
    for target, source in {"cpu": "install-cpu", "gpu": "install-gpu"}.items():
        assert ("COPY", f"--from={source} --chown=ray /app /app") in images[target]
        installs = [rest for name, rest in images[source] if name == "RUN" and re.search(r"\b(make|pip)\b", rest)]
        commands = [re.sub(r"^PIP_EXTRA_INDEX_URL=\S+ ", "", run).split(" && ")[0].strip() for run in installs]
        assert commands == ['make install EXTRAS="$EXTRAS"'] and ("ARG", 'EXTRAS=""') in images[source]


def test_the_images_install_is_the_makefiles_without_its_tools():
    def installs(*variables: str) -> list[str]:
        make = ["make", "--dry-run", "--always-make", "install", *variables]
        done = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True)
        return re.findall(r"--editable '(\S+)'", done.stdout)

    assert (installs(), installs("EXTRAS=")) == ([".[dev]"], ["."])


def test_the_image_has_the_programs_that_ray_up_calls():
    runs = " ".join(rest for name, rest in stages()["cpu"] if name == "RUN")
    install = re.search(r"apt-get install \S+ \S+ ([\w +-]+?) +&&", runs.split("useradd")[0])[1].split()
    assert {"rsync", "openssh-client"} <= set(install)
    # Ray uses login shells, and Debian's /etc/profile resets an image's PATH before it reads profile.d.
    assert _with_interactive("ray stop")[1] == "--login"
    assert 'echo "PATH=$PATH" > /etc/profile.d/' in runs
    environment = " ".join(rest for name, rest in stages()["cpu"] if name == "ENV")
    assert "PATH=/app/.venv/bin:$PATH" in environment


def test_each_image_runs_as_nobody_special_with_a_token_and_a_health_check():
    for target in ("cpu", "gpu"):
        last = dict(stages()[target])
        assert last["USER"] == "1000"
        assert "RAY_AUTH_MODE=token" in " ".join(rest for name, rest in stages()[target] if name == "ENV")
        assert "ray health-check" in last["HEALTHCHECK"]


def test_llama_cpp_is_built_for_any_machine_and_dispatches_at_run_time():
    environment = dict(stages()["install-cpu"])["ENV"]
    assert "-DGGML_NATIVE=OFF" in environment
    assert "-DGGML_BACKEND_DL=ON" in environment and "-DGGML_CPU_ALL_VARIANTS=ON" in environment
    # A build without the kernels fails: its engine would start with nothing to compute on.
    folder = re.search(r"-DGGML_BACKEND_DIR:STRING=(\S+)\"", environment)[1]
    for target in ("install-cpu", "install-gpu"):
        assert f"&& ls .venv/lib/python3.11/site-packages/{folder}/libggml-cpu-x64.so" in dict(stages()[target])["RUN"]


def test_what_is_copied_is_in_a_clean_clone_and_nothing_large_comes_with_it():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    ignored = [line for line in (ROOT / ".dockerignore").read_text().split() if line]
    sent = [path for path in tracked if not any(fnmatch(path, line) or path.startswith(f"{line}/") for line in ignored)]
    for name, rest in INSTRUCTIONS:
        if name == "COPY" and "--from" not in rest:
            for source in [word for word in rest.split()[:-1] if not word.startswith("--")]:
                assert source == "." or source in sent, source
    assert sum((ROOT / path).stat().st_size for path in sent) < 50e6
    assert not {".git", ".venv", "artifacts", "demo"} - set(ignored)
