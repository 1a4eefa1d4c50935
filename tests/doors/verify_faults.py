#!/usr/bin/env python3
"""verify_faults.py MOECAL FAULTS MAKER [--models DIR] [--seeds N] - every planted fault must be found

FAULTS is a folder with good checkpoints and faults.json (shared/fixtures/quantization/verify); MAKER is its make_faults.py,
which applies the edits. Each fault is made and verified: exit code 4 and, among the examples, the tensor, file or module that
was damaged. Each good checkpoint must pass with exit code 0, alone and, when --models has it, against its original.
--seeds N: N more rounds, each with every fault moved to another tensor of the same kind and other places in it.
"""
import argparse, copy, json, random, re, shutil, struct, subprocess, sys, tempfile
from pathlib import Path


def header(path):
    raw = path.read_bytes()
    n = struct.unpack("<Q", raw[:8])[0]
    return {k: v for k, v in json.loads(raw[8:8 + n]).items() if k != "__metadata__"}


def tensors_of(folder):
    return {k: v["shape"] for f in sorted(folder.glob("*.safetensors")) for k, v in header(f).items()}


def verify(moecal, folder, original=None):
    """Exit code, all examples, what was printed as a table."""
    command = [moecal, "verify", str(folder)] + (["--original", str(original)] if original else [])
    table = subprocess.run(command, capture_output=True, text=True)
    run = subprocess.run(command + ["--json"], capture_output=True, text=True)
    if run.returncode != table.returncode:
        return -1, ["exit codes with and without --json differ"], table.stdout
    try:
        document = json.loads(run.stdout)
        examples = [e for c in document["checks"] if not c["passed"] for e in c["examples"]]
    except (ValueError, KeyError, TypeError):
        examples = [run.stderr.strip() or run.stdout.strip()]
    return run.returncode, examples, table.stdout


def names_of(fault, folder):
    """What the examples must name: one text of each edit."""
    wanted = []
    for e in fault["edits"]:
        if "tensor" in e:
            wanted.append([e["tensor"]])
        elif "prefix" in e:
            wanted.append([e["prefix"]])
        elif "path" not in e:
            wanted.append([e["file"].split("*")[0]])
        elif e["path"][0] == "weight_map":
            wanted.append([e["path"][1]] + ([e["value"]] if "*" not in e.get("value", "*") else []))
        elif e["op"] in ("append", "without"):
            wanted.append([e["value"]])
        elif e["path"][-1] == "num_hidden_layers":
            wanted.append([f"layers.{e['value'] - 1}."])
        else:
            wanted.append(["model.layers.", "quantization_config"])
    return wanted


# --- the same faults elsewhere ---------------------------------------------------------------------------------------------

def kind(name):
    return re.sub(r"\d+", "#", name)


def move(fault, folder, rng):
    """The fault on another tensor of the same kind, at another place; None when there is none."""
    have, moved = tensors_of(folder), copy.deepcopy(fault)
    for e in moved["edits"]:
        if "tensor" not in e or e["op"] == "add":
            continue
        alike = sorted(n for n in have if kind(n) == kind(e["tensor"]) and have[n] == have.get(e["tensor"]))
        if not alike:
            return None
        e["tensor"] = rng.choice(alike)
        if "index" in e and "weight_shape" not in e["tensor"]:
            e["index"] = [rng.randrange(n) for n in have[e["tensor"]]]
    return moved


# --- originals -------------------------------------------------------------------------------------------------------------

def find_original(good, models, work):
    """The checkpoint with the same tensors apart from quantization, cut to as many layers; None when there is none."""
    config = json.loads((good / "config.json").read_text())
    for model in sorted(models.glob("*/config.json")) if models else []:
        theirs = json.loads(model.read_text())
        same = all(theirs.get(k) == config.get(k) for k in ("model_type", "hidden_size", "vocab_size", "num_attention_heads"))
        if not same or theirs["num_hidden_layers"] < config["num_hidden_layers"]:
            continue
        if theirs["num_hidden_layers"] == config["num_hidden_layers"]:
            return model.parent
        cut = work / f"original-of-{good.name}"
        shutil.copytree(model.parent, cut)
        theirs["num_hidden_layers"] = config["num_hidden_layers"]
        (cut / "config.json").write_text(json.dumps(theirs))
        for shard in cut.glob("*.safetensors"):
            cut_shard(shard, config["num_hidden_layers"])
        return cut
    return None


def cut_shard(path, layers):
    raw = path.read_bytes()
    n = struct.unpack("<Q", raw[:8])[0]
    kept, data = {}, b""
    for name, v in header(path).items():
        found = re.match(r"model\.layers\.(\d+)\.", name)
        if found and int(found.group(1)) >= layers:
            continue
        begin, end = v["data_offsets"]
        kept[name] = {**v, "data_offsets": [len(data), len(data) + end - begin]}
        data += raw[8 + n + begin:8 + n + end]
    text = json.dumps(kept).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


# --- the whole -------------------------------------------------------------------------------------------------------------

def make(maker, source, faults, out):
    """Applies edits with the fixtures' own program, which looks for everything beside itself."""
    beside = out / "beside"
    beside.mkdir(parents=True)
    shutil.copy(maker, beside / "make_faults.py")
    for item in source.iterdir():
        if item.is_dir():
            (beside / item.name).symlink_to(item.resolve())
    (beside / "faults.json").write_text(json.dumps({"faults": faults}))
    subprocess.run([sys.executable, str(beside / "make_faults.py"), str(out / "made")], check=True, stdout=subprocess.DEVNULL)
    return out / "made"


def report(name, found, said):
    print(f"{name:34} {'found' if found else 'NOT FOUND':9}  {said[:150]}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("moecal")
    parser.add_argument("faults", type=Path)
    parser.add_argument("maker", type=Path)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--seeds", type=int, default=0)
    a = parser.parse_args()
    document = json.loads((a.faults / "faults.json").read_text())
    failed = total = 0
    with tempfile.TemporaryDirectory(prefix="moecal-faults-") as temporary:
        work = Path(temporary)
        goods = sorted({f["base"] for f in document["faults"]} | set(document.get("good", {})))
        originals = {g: find_original(a.faults / g, a.models, work) for g in goods}
        for good in goods:
            for original in {None, originals[good]}:
                code, examples, _ = verify(a.moecal, a.faults / good, original)
                total += 1
                failed += code != 0
                label = good + (" with --original" if original else "")
                print(f"{label:34} {'passes' if code == 0 else 'REFUSED':9}  {'; '.join(examples)[:150]}")
        rounds = [("", document["faults"])]
        for seed in range(1, a.seeds + 1):
            rng = random.Random(seed)
            moved = [move(f, a.faults / f["base"], rng) for f in document["faults"]]
            rounds.append((f" (seed {seed})", [m for m in moved if m and any("tensor" in e for e in m["edits"])]))
        for number, (label, faults) in enumerate(rounds):
            made = make(a.maker, a.faults, faults, work / str(number))
            for fault in faults:
                folder, wanted = made / fault["name"], names_of(fault, a.faults / fault["base"])
                for original in {None, originals[fault["base"]]}:
                    code, examples, table = verify(a.moecal, folder, original)
                    said = [e for e in examples if any(any(t in e for t in texts) for texts in wanted)]
                    found = code == 4 and all(any(t in e for t in texts for e in examples) for texts in wanted)
                    found = found and "NOT VALID" in table and all(e in table for e in said)
                    total += 1
                    failed += not found
                    if not original or not found:
                        name = fault["name"] + label + (" --original" if original else "")
                        report(name, found, said[0] if said else f"exit {code}: {'; '.join(examples)}")
            shutil.rmtree(work / str(number))
    print(f"{total - failed} of {total} as they should be" + (f", {failed} not" if failed else ""))
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
