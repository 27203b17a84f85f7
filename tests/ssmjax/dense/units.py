"""Golden numbers of single operations, of every `units_*` there is."""

import json
import re

from tests.oracles import golden


class Units:
    """Arrays by name, and the numbers in what is said of them."""

    def __init__(self, path):
        self.name = path.stem
        self.arrays = golden.arrays(f"downstream/{path.stem}")
        self.about = json.loads(path.read_text())["arrays"]

    def __getitem__(self, name):
        return self.arrays[name]

    def __repr__(self):
        return self.name

    def numbers(self, name):
        return [float(n) for n in re.findall(r"\d+(?:\.\d+)?", self.about[name]["what"])]


ALL = [Units(path) for path in sorted((golden.FOLDER / "downstream").glob("units_*.json"))]
