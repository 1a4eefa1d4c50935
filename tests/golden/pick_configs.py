#!/usr/bin/env python3
"""Picks what the reference wrote to config.json: tests/golden/pick_configs.py FIXTURES/presets

Every recipe with the quantization_config that came of it, into tests/golden/configs.json; of cases that differ in
the dtype of the model alone, one.
"""
import json
import os
import sys

source = sys.argv[1]
cases, seen = [], set()
for name in sorted(os.listdir(source)):
    folder = os.path.join(source, name)
    with open(os.path.join(folder, "recipe.yaml")) as f:
        recipe = f.read()
    with open(os.path.join(folder, "config.json")) as f:
        config = json.load(f)["quantization_config"]
    with open(os.path.join(folder, "case.json")) as f:
        model = json.load(f)["model"]
    key = json.dumps([recipe, model, config], sort_keys=True)
    if key in seen:
        continue
    seen.add(key)
    cases.append({"name": name, "model": model, "recipe": recipe, "quantization_config": config})
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "configs.json"), "w") as f:
    f.write("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
print(len(cases))
