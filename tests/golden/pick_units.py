#!/usr/bin/env python3
"""Picks the vectors of the unit fixtures that the unit tests read: tests/golden/pick_units.py FIXTURES/units

Only what this program computes; of the larger ones a part. Writes tests/golden/units and
tests/golden/matching.json (whole).
"""
import json
import os
import shutil
import struct
import sys

source = sys.argv[1]
into = os.path.join(os.path.dirname(os.path.abspath(__file__)), "units")


def load(path):
    with open(path, "rb") as f:
        data = f.read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + n])
    header.pop("__metadata__", None)
    return {k: (v, data[8 + n + v["data_offsets"][0] : 8 + n + v["data_offsets"][1]]) for k, v in header.items()}


def save(path, tensors):
    header, blob = {}, b""
    order = sorted(tensors, key=lambda k: ({"I64": 0, "F32": 1, "I32": 1, "F16": 2, "BF16": 2}.get(tensors[k][0]["dtype"], 3), k))
    for k in order:
        v, data = tensors[k]
        header[k] = {"dtype": v["dtype"], "shape": v["shape"], "data_offsets": [len(blob), len(blob) + len(data)]}
        blob += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + blob)


def wanted(case):
    args, name, function = case["args"], case["name"], case["function"]
    if function == "pack_to_int32":
        return args["shape"] in ([5, 33], [3, 100], [16, 1])
    if function in ("generate_gparam", "generate_mx_scales", "cast_to_fp4", "compress_mx_scale", "pack_fp4_to_uint8",
                    "calculate_qparams", "fused_weight_observers"):
        return True
    if function in ("compress", "quantize") and (args["num_bits"] > 8 or "file" not in case):
        return False
    if function == "compress":
        return not name.endswith("-f16") or args["type"] == "float"
    if function == "quantize":
        return not name.endswith("-f32") or name in ("int4-asym-group-f32", "fp8-block-padded-f32") or "fp4" in name
    if function == "weight_observer":
        return args["observer"] == "memoryless_minmax" or name.endswith("-bf16") or "nvfp4" in name
    if function == "activation_observer":
        return args["observer"] in ("mse", "minmax") and not name.endswith("-f16")
    return False


# What no test reads.
DROPPED = ("fake_quantized", "min", "max", "inputs")


def main():
    with open(os.path.join(source, "index.json")) as f:
        index = [c for c in json.load(f) if wanted(c)]
    files = {}
    for case in index:
        # one result of three is enough: dequantized(codes) is what fake-quantizing gives
        case["out"] = {k: v for k, v in case["out"].items() if k not in DROPPED}
        if case["function"] == "weight_observer":
            case["in"] = {k: v for k, v in case["in"].items() if k not in DROPPED}
        tensors = load(os.path.join(source, case["file"]))
        kept = files.setdefault(case["file"], {})
        for name in list(case["in"].values()) + list(case["out"].values()):
            kept[name] = tensors[name]
    for name, tensors in files.items():
        save(os.path.join(into, name), tensors)
    with open(os.path.join(into, "index.json"), "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(c) for c in index) + "\n]\n")

    shutil.copyfile(os.path.join(source, "matching.json"), os.path.join(os.path.dirname(into), "matching.json"))


main()
