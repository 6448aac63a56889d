"""`make install`: its two parts run in parallel, an error of either stops it, and a second attempt continues."""

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A Python that makes an environment of two scripts. Its pip does nothing, or fails at the word in the file `broken`.
PYTHON = """#!/bin/sh
mkdir -p $3/bin
cat > $3/bin/pip <<'END'
#!/bin/sh
echo "$@" >> pip.log
if [ -f broken ] && echo "$@" | grep -q "$(cat broken)"; then echo "pip: no such thing" >&2; exit 1; fi
END
printf '#!/bin/sh\\nexec python3 "$@"\\n' > $3/bin/python
chmod +x $3/bin/pip $3/bin/python
"""


@pytest.fixture
def tree(tmp_path):
    for name in ("Makefile", "pyproject.toml", "infra/constraints.txt", "infra/embedded.txt", "infra/packages.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "infra/llama-cpp.cmake", tmp_path / "infra")
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def install(tree: Path, *settings: str, **variables: str) -> subprocess.CompletedProcess:
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")} | variables
    command = ["make", "install", "PYTHON=./python", *settings]
    return subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, timeout=60)


def calls(tree: Path) -> list[str]:
    lines = (tree / "pip.log").read_text().splitlines()
    (tree / "pip.log").unlink()
    return lines


@pytest.mark.parametrize(("broken", "stays"), [("wheel --no-deps", "packages.txt"), ("packages.txt", "wheel --no-deps")])
def test_an_error_of_one_part_stops_it_with_a_message_and_keeps_the_other_part(tree, broken, stays):
    (tree / "broken").write_text(broken)
    failed = install(tree)
    assert failed.returncode != 0 and "pip: no such thing" in failed.stderr and "Run make again" in failed.stderr
    first = calls(tree)
    assert any(stays in call for call in first) and not any("--editable" in call for call in first)

    (tree / "broken").unlink()
    again = install(tree)
    assert again.returncode == 0, again.stderr
    second = calls(tree)
    assert any(broken in call for call in second) and not any(stays in call for call in second)
    assert any("--editable .[dev]" in call for call in second)
    assert install(tree).returncode == 0 and not (tree / "pip.log").exists()


def test_other_compiler_flags_replace_the_installed_library_and_other_requirements_keep_it(tree):
    assert install(tree).returncode == 0
    calls(tree)
    later = (tree / ".venv/.installed").stat().st_mtime + 10
    os.utime(tree / "infra/llama-cpp.cmake", (later, later))
    assert install(tree).returncode == 0
    removed, compiled = [call for call in calls(tree) if "llama-cpp-python" in call and not call.startswith("install")]
    assert removed.startswith("uninstall") and compiled.startswith("wheel") and "--no-cache-dir" in compiled

    for stamp in (".compiled", ".packages", ".installed"):
        os.utime(tree / ".venv" / stamp, (later, later))
    os.utime(tree / "pyproject.toml", (later + 10, later + 10))
    again = install(tree)
    assert again.returncode == 0, again.stderr
    assert not any(call.startswith(("uninstall", "wheel")) for call in calls(tree))


def test_without_a_compiler_it_says_so_before_anything_is_downloaded(tree):
    failed = install(tree, CXX="no-such-compiler")
    assert failed.returncode != 0 and "no C++ compiler" in failed.stderr
    assert not (tree / "pip.log").exists()


def test_all_requirements_but_the_compiled_one_install_beside_the_compiler(tree):
    assert install(tree).returncode == 0
    listed = (tree / ".venv/packages.txt").read_text().split("\n")[:-1]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert [r for r in required if r not in listed] == ["llama-cpp-python>=0.3.36", "llama-cpp-python[server]"]


def test_an_image_may_have_the_extras_for_tables(tree):
    assert install(tree, "EXTRAS=[delta,iceberg]").returncode == 0
    listed = (tree / ".venv/packages.txt").read_text()
    assert "deltalake" in listed and "pyiceberg" in listed and "pytest" not in listed
    assert any("--editable .[delta,iceberg]" in call for call in calls(tree))


def test_images_compile_for_any_cpu_with_the_same_parts_left_out(tree):
    (tree / "python").write_text(PYTHON.replace('echo "$@"', 'echo "$@ $CMAKE_ARGS"'))
    assert install(tree, CMAKE_ARGS="-DGGML_NATIVE=OFF").returncode == 0
    compiled = next(call for call in calls(tree) if call.startswith("wheel"))
    assert "-DGGML_NATIVE=OFF" in compiled and "-DLLAVA_BUILD=OFF" in compiled
    assert f"-DCMAKE_PROJECT_INCLUDE={tree}/infra/llama-cpp.cmake" in compiled
