"""compare.py MODEL WORK TEXTS - quantized checkpoints as compressed-tensors and transformers see them

WORK/cases.tsv lists them: name, folder, and "right" where transformers loads the checkpoint right, else what it
does. WORK/NAME.dense.safetensors is what this program makes of the checkpoint (tests/doors/dense.c), and where
transformers loads it right WORK/NAME.logits.safetensors its logits (tests/doors/logits.c) on the ids of WORK/ids.txt,
one JSON array a line, which `moecal tokenize` made of TEXTS, one JSON string a line. MODEL is the checkpoint before it was
quantized. Exit: 0 everything agrees, 1 something does not.

compressed-tensors, all checkpoints. config.json alone tells it what is quantized and how; from that it makes the
tensors that it would store. The checkpoint must have these and no others, with their shapes and dtypes. Then it
restores the weights, and every tensor must be this program's, bit for bit.

transformers, where it loads the checkpoint right. Its weights must be the same bit for bit as well: by
compressed-tensors for attention, by transformers for the experts, which it merges. Those of experts that no token
reaches too. The token ids of TEXTS must be ours. What it does not know what to do with is a complaint, but for input
scales of experts, whose inputs it does not quantize.

What one side of the reference stores and the other does not know: zero points of q, k and v, which are 0 in symmetric
schemes. It writes them where a config group quantizes attention and does not make them when it loads; nor do we ask
for them here.

Logits. The rest is float32 on both sides, without quantization of the inputs of linears: the experts of
transformers have none, and this program's decoder does not simulate it. Tolerance, relative to the rms of
the logits: 1e-5 for the rms of the difference, 1e-4 for the largest, as for the decoder before quantization
(tests/doors/parity_models.c). Since the weights are the same, only the order in which float32 sums are
added up is left: 4e-7 and 4e-6 were measured. A single code of 4 bits that is off by one moves the logits by
1e-4 and 5e-3 or more where tokens reach it, so the tolerance lies well between the two. The column "moved"
says how far quantization itself took the logits: it must be at least a hundred times the tolerance, or the
comparison would show nothing; a checkpoint whose linears are not quantized must not move them at all.
"""

import glob
import json
import re
import sys

import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config, disable_quantization
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
# what transformers may leave aside
UNUSED = re.compile(r".*\.experts\.\d+\.(gate|up|down)_proj\.input_scale")
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
        elif not same_bits(theirs, ours.float()):
            yield f"{name}: {different(theirs, ours.float())} values differ from transformers'"


def as_bytes(tensor):
    return tensor.detach().contiguous().view(torch.uint8).reshape(*tensor.shape, -1)


def same_bits(a, b):
    """Zeros of either sign are not the same, a NaN is the same as itself."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(as_bytes(a), as_bytes(b))


def different(a, b):
    return f"{int((as_bytes(a) != as_bytes(b)).any(-1).sum())} of {b.numel()}"


class Expert(torch.nn.Module):
    """An expert as checkpoints have it, which transformers has merged with the others."""

    def __init__(self, config):
        super().__init__()
        wide, narrow = config.hidden_size, config.moe_intermediate_size
        self.gate_proj = torch.nn.Linear(wide, narrow, bias=False)
        self.up_proj = torch.nn.Linear(wide, narrow, bias=False)
        self.down_proj = torch.nn.Linear(narrow, wide, bias=False)


def load_stored(folder):
    stored = {}
    for file in sorted(glob.glob(f"{folder}/*.safetensors")):
        stored.update(load_file(file))
    return stored


def is_zero_of_attention(name, tensor):
    return re.fullmatch(r".*\.self_attn\.[qkv]_zero_point", name) is not None and not tensor.float().any()


def make_compressed(folder):
    """A model of the modules of the checkpoint, with the tensors that compressed-tensors stores for its config."""
    config = AutoConfig.from_pretrained(folder)
    quantization = QuantizationConfig.model_validate(config.quantization_config)
    del config.quantization_config
    torch.set_default_dtype(torch.bfloat16)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="eager")
    for layer in model.model.layers:
        layer.mlp.experts = torch.nn.ModuleList([Expert(config) for _ in range(config.num_experts)])
    torch.set_default_dtype(torch.float32)
    apply_quantization_config(model, quantization, show_progress=False)
    # what it quantizes here is thrown away; only that it is something finite matters
    for name, parameter in model.named_parameters():
        if name.endswith("_scale"):
            parameter.data.fill_(1)
    compressor = ModelCompressor(quantization_config=quantization)
    compressor.compress_model(model)
    return model, compressor


def check_decompressed(folder, dense):
    """Number of tensors stored; complaints."""
    stored = {name: t for name, t in load_stored(folder).items() if not is_zero_of_attention(name, t)}
    model, compressor = make_compressed(folder)
    want = {name: (str(t.dtype), list(t.shape)) for name, t in model.state_dict().items()}
    have = {name: (str(t.dtype), list(t.shape)) for name, t in stored.items()}
    complaints = [f"{name}: stored {have.get(name)}, compressed-tensors stores {want.get(name)}"
                  for name in sorted(want.keys() | have.keys()) if want.get(name) != have.get(name)]
    if complaints:
        return len(stored), complaints
    model.load_state_dict(stored)
    compressor.decompress_model(model)
    theirs = {name: t for name, t in model.state_dict().items() if name in dense or name.endswith(".weight")}
    for name in sorted(theirs.keys() | dense.keys()):
        if name not in theirs or name not in dense:
            complaints.append(f"{name}: only {'ours' if name in dense else 'of compressed-tensors'}")
        elif theirs[name].dtype != dense[name].dtype or theirs[name].shape != dense[name].shape:
            complaints.append(f"{name}: {dense[name].dtype} {list(dense[name].shape)}, compressed-tensors makes "
                              f"{theirs[name].dtype} {list(theirs[name].shape)}")
        elif not same_bits(theirs[name], dense[name]):
            complaints.append(f"{name}: {different(theirs[name], dense[name])} values differ from compressed-tensors'")
    return len(stored), complaints


def check_transformers(work, name, folder, dense, sequences, original):
    """The columns of a row; complaints."""
    ours = load_file(f"{work}/{name}.logits.safetensors")
    wanted = [ids for ids in sequences if ids]
    if ours["input_ids"].tolist() != [i for ids in wanted for i in ids]:
        return "", ["the logits of moecal are of other ids"]
    model, problems = load(folder, quantization_config=CompressedTensorsConfig(dequantize=True))
    problems = {kind: [name for name in names if not (kind == "unexpected_keys" and UNUSED.fullmatch(name))]
                for kind, names in problems.items()}
    complaints = [f"{kind}: {len(names)}, {', '.join(names[:2])} ..." for kind, names in problems.items() if names]
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
    if not (moved >= LEAST_MOVED or (moved == 0 and not quantizes_weights(folder))):
        complaints.append(f"quantization moved the logits by {moved:.1e}: nothing is compared")
    return f"{rms:9.1e} {largest:9.1e} {moved:9.1e} {inputs:9.1e}", complaints


def quantizes_weights(folder):
    with open(f"{folder}/config.json", encoding="utf-8") as file:
        groups = json.load(file)["quantization_config"]["config_groups"]
    return any(group["weights"] for group in groups.values())


def attempt(check, *arguments):
    """What a check says; an exception of the packages is a complaint like any other."""
    try:
        return check(*arguments)
    except Exception as error:
        return "", [f"{type(error).__name__}: {error}".splitlines()[0]]


def check_case(work, name, folder, transformers, texts, sequences, original):
    """One row of the table; the complaints."""
    dense = load_file(f"{work}/{name}.dense.safetensors")
    with open(f"{folder}/config.json", encoding="utf-8") as file:
        written = json.load(file)["quantization_config"]["format"]
    complaints = list(check_config(folder))
    tensors, more = attempt(check_decompressed, folder, dense)
    complaints += more
    columns = f"skipped: {transformers}"
    if transformers == "right":
        complaints += check_tokenizer(folder, texts, sequences)
        columns, more = attempt(check_transformers, work, name, folder, dense, sequences, original)
        complaints += more
    return f"{name:19} {written:20} {tensors:7} {len(dense):7} {columns}", complaints


def main(model, work, texts_file):
    logging.disable_progress_bar()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # products are small, and the machine may have other work
    with open(texts_file, encoding="utf-8") as file:
        texts = [json.loads(line) for line in file]
    with open(f"{work}/ids.txt", encoding="utf-8") as file:
        sequences = [json.loads(line) for line in file]
    with open(f"{work}/cases.tsv", encoding="utf-8") as file:
        cases = [line.rstrip("\n").split("\t") for line in file]
    dense, problems = load(model)
    if problems:
        sys.exit(f"interop: {model} does not load: {problems}")
    original = compute(dense, [ids for ids in sequences if ids])
    print(f"{'':4} {'':19} {'':20} compressed-tensors   transformers")
    print(f"{'':4} {'checkpoint':19} {'format':20} {'tensors':>7} {'weights':>7} {'rms':>9} {'largest':>9} {'moved':>9} "
          f"{'inputs':>9}")
    failed = compared = 0
    for name, folder, transformers in cases:
        row, complaints = check_case(work, name, folder, transformers, texts, sequences, original)
        print(("FAIL " if complaints else "pass ") + row, flush=True)
        for complaint in complaints[:MOST_COMPLAINTS]:
            print(f"{'':5}{complaint}")
        if len(complaints) > MOST_COMPLAINTS:
            print(f"{'':5}and {len(complaints) - MOST_COMPLAINTS} more")
        failed += bool(complaints)
        compared += transformers == "right"
    print("tensors: stored; weights: equal bit for bit; rms, largest: difference of logits, relative to their rms, at most "
          f"{MOST_RMS:.0e}, {MOST_LARGEST:.0e};\nmoved: by quantization, from the original; inputs: by quantizing inputs as "
          "well, where transformers does")
    print(f"{len(cases) - failed} of {len(cases)} checkpoints agree; transformers was compared on {compared} of them, with "
          f"{sum(map(len, sequences))} tokens of {len(texts)} texts")
    return failed > 0


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: compare.py MODEL WORK TEXTS")
    sys.exit(main(*sys.argv[1:]))
