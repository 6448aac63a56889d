"""Prints what pyproject.toml requires, with the extras named as arguments, but llama-cpp-python: it is compiled meanwhile."""

import sys
import tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
extras = [requirement for extra in sys.argv[1:] for requirement in project["optional-dependencies"][extra]]
print(*(r for r in project["dependencies"] + extras if not r.startswith("llama-cpp-python")), sep="\n")
