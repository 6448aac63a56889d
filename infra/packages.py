"""Print the requirements of pyproject.toml and of the extras named as arguments. Omits llama-cpp-python, which is compiled.

Extras are separated by commas or spaces.
"""

import sys
import tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
named = [extra for argument in sys.argv[1:] for extra in argument.split(",")]
extras = [requirement for extra in named for requirement in project["optional-dependencies"][extra]]
print(*(r for r in project["dependencies"] + extras if not r.startswith("llama-cpp-python")), sep="\n")
