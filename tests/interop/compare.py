"""compare.py MODEL WORK TEXTS NAME... - checkpoints WORK/NAME/model as transformers sees them

WORK/NAME.ours holds what this program makes of the same checkpoint (tests/doors/logits.c): its weights
dequantized, in dense/, and its logits on the ids of WORK/ids.txt, one JSON array a line, which
`moecal tokenize` made of TEXTS, one JSON string a line. MODEL is the checkpoint before it was quantized.
Exit: 0 everything agrees, 1 something does not.

Weights. Codes and scales are dequantized into bfloat16, the dtype of the scales: by compressed-tensors
for attention, by transformers for the experts, which it merges, and by this program's own unpacking. All
must be the same bit for bit, those of experts that no token reaches too.

Logits. The rest is float32 on both sides, without quantization of the inputs of linears: the experts of
transformers have none, and this program's decoder does not simulate it. Tolerance, relative to the rms of
the logits: 1e-5 for the rms of the difference, 1e-4 for the largest, as for the decoder before quantization
(tests/doors/parity_models.c). Since the weights are the same, only the order in which float32 sums are
added up is left: 4e-7 and 4e-6 were measured. A single code of 4 bits that is off by one moves the logits by
1e-4 and 5e-3 or more where tokens reach it, so the tolerance lies well between the two. The column "moved"
says how far quantization itself took the logits: it must be at least a hundred times the tolerance, or the
comparison would show nothing.
"""

import json
import re
import sys

import torch
from compressed_tensors.quantization import QuantizationConfig, disable_quantization
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging
from transformers.utils.quantization_config import CompressedTensorsConfig

MOST_RMS = 1e-5
MOST_LARGEST = 1e-4
LEAST_MOVED = 100 * MOST_RMS

# compressed-tensors writes these beside its configuration and does not read them back
WRITTEN_BESIDE = ("version", "sparsity_config", "transform_config")
# complaints of one checkpoint that are printed
MOST_COMPLAINTS = 8


def relative(want, have):
    """rms and largest of the difference, relative to the rms of want."""
    want, have = want.double(), have.double()
    scale = want.square().mean().sqrt()
    difference = (have - want).abs()
    return float(difference.square().mean().sqrt() / scale), float(difference.max() / scale)


def load(folder, **options):
    """The model with its weights as stored, and what loading complains of."""
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation="eager", experts_implementation="eager",
        output_loading_info=True, **options)
    return model.float().eval(), {kind: sorted(map(str, names)) for kind, names in info.items() if names}


def compute(model, sequences):
    """Logits of all sequences, one after another."""
    with torch.no_grad():
        return torch.cat([model(torch.tensor([ids]), use_cache=False).logits[0] for ids in sequences])


def differences(written, read, at="quantization_config"):
    """Where what compressed-tensors read is not what was written."""
    if isinstance(written, dict) and isinstance(read, dict):
        for key, value in written.items():
            if key not in read:
                yield f"{at}.{key} is not known"
            else:
                yield from differences(value, read[key], f"{at}.{key}")
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        for i, value in enumerate(written):
            yield from differences(value, read[i], f"{at}[{i}]")
    elif written != read:
        yield f"{at}: written {written!r}, read {read!r}"


def check_config(folder):
    """config.json is a configuration of this model, and its quantization says what was written."""
    config = AutoConfig.from_pretrained(folder)
    with open(f"{folder}/config.json", encoding="utf-8") as file:
        written = json.load(file)
    if config.model_type != written["model_type"]:
        yield f"model_type is {config.model_type}"
    quantization = written.get("quantization_config")
    if quantization is None:
        yield "config.json has no quantization_config"
        return
    read = QuantizationConfig.model_validate(quantization).model_dump(mode="json")
    yield from differences({k: v for k, v in quantization.items() if k not in WRITTEN_BESIDE}, read)


def check_tokenizer(folder, texts, expected):
    """Complaints; ids of each text against ours.

    transformers takes vocabulary and merges from tokenizer.json, but the normalizer and the splitting of this
    model from its own class; the tokenizers library does all that the file says.
    """
    auto = AutoTokenizer.from_pretrained(folder)
    by_file = Tokenizer.from_file(f"{folder}/tokenizer.json")
    for text, ids in zip(texts, expected, strict=True):
        for who, have in ("transformers", auto(text)["input_ids"]), ("tokenizers", by_file.encode(text).ids):
            if have != ids:
                yield f"{text!r}: ours {ids}, by {who} {have}"


def parameter_of(parameters, name):
    """The tensor of transformers' model that holds the weight `name` of a checkpoint; None when there is none."""
    match = re.fullmatch(r"(.*\.experts)\.(\d+)\.(gate|up|down)_proj\.weight", name)
    if match is None:
        return parameters.get(name)
    block, expert, part = match[1], int(match[2]), match[3]
    merged = parameters[f"{block}.down_proj" if part == "down" else f"{block}.gate_up_proj"][expert]
    half = merged.shape[0] // 2
    return merged if part == "down" else merged[:half] if part == "gate" else merged[half:]


def check_weights(model, dense):
    """Complaints; every tensor of the dense checkpoint against the model's, bit for bit."""
    parameters = dict(model.named_parameters())
    for name, ours in dense.items():
        theirs = parameter_of(parameters, name)
        if theirs is None or theirs.shape != ours.shape:
            yield f"{name}: transformers has {None if theirs is None else tuple(theirs.shape)}"
        elif not torch.equal(theirs, ours.float()):
            yield f"{name}: {int((theirs != ours.float()).sum())} of {ours.numel()} values differ"


def check_case(work, name, texts, sequences, original):
    """One row of the table; the complaints."""
    folder = f"{work}/{name}/model"
    ours = load_file(f"{work}/{name}.ours/logits.safetensors")
    dense = load_file(f"{work}/{name}.ours/dense/model.safetensors")
    wanted = [ids for ids in sequences if ids]
    flat = [i for ids in wanted for i in ids]
    if ours["input_ids"].tolist() != flat:
        return f"{name:12}", ["the logits of moecal are of other ids"]
    complaints = list(check_config(folder)) + list(check_tokenizer(folder, texts, sequences))
    model, problems = load(folder, quantization_config=CompressedTensorsConfig(dequantize=True))
    complaints += [f"{kind}: {', '.join(names)}" for kind, names in problems.items()]
    complaints += check_weights(model, dense)
    as_loaded = compute(model, wanted)
    model.apply(disable_quantization)
    theirs = compute(model, wanted)
    rms, largest = relative(theirs, ours["logits"])
    moved, _ = relative(original, theirs)
    inputs, _ = relative(theirs, as_loaded)
    # written so that a NaN is past any tolerance
    if not (rms <= MOST_RMS and largest <= MOST_LARGEST):
        complaints.append(f"logits: rms {rms:.1e}, largest {largest:.1e}, at most {MOST_RMS:.0e}, {MOST_LARGEST:.0e}")
    if not moved >= LEAST_MOVED:
        complaints.append(f"quantization moved the logits by {moved:.1e}: nothing is compared")
    row = f"{name:12} {len(dense):7} {len(flat):7} {rms:9.1e} {largest:9.1e} {moved:9.1e} {inputs:9.1e}"
    return row, complaints


def main(model, work, texts_file, *names):
    logging.disable_progress_bar()
    torch.manual_seed(0)
    with open(texts_file, encoding="utf-8") as file:
        texts = [json.loads(line) for line in file]
    with open(f"{work}/ids.txt", encoding="utf-8") as file:
        sequences = [json.loads(line) for line in file]
    dense, problems = load(model)
    if problems:
        sys.exit(f"interop: {model} does not load: {problems}")
    original = compute(dense, [ids for ids in sequences if ids])
    print(f"float32 logits of moecal against transformers', relative to their rms; at most {MOST_RMS:.0e}, "
          f"{MOST_LARGEST:.0e}")
    print(f"{'checkpoint':12} {'weights':>7} {'tokens':>7} {'rms':>9} {'largest':>9} {'moved':>9} {'inputs':>9}")
    failed = 0
    for name in names:
        row, complaints = check_case(work, name, texts, sequences, original)
        print(row, "FAIL" if complaints else "pass", flush=True)
        for complaint in complaints[:MOST_COMPLAINTS]:
            print(f"{'':12} {complaint}")
        if len(complaints) > MOST_COMPLAINTS:
            print(f"{'':12} and {len(complaints) - MOST_COMPLAINTS} more")
        failed += bool(complaints)
    print(f"config.json, token ids of {len(texts)} texts, weights and logits: {len(names) - failed} of {len(names)} "
          "checkpoints agree")
    print("moved: by quantization, from the original; inputs: by quantizing inputs as well, where transformers does")
    return failed > 0


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit("usage: compare.py MODEL WORK TEXTS NAME...")
    sys.exit(main(*sys.argv[1:]))
