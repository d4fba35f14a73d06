"""Ways to label with Llama 3.1 8B on a GPU: skills/s, tokens/s and peak memory, with NF4 weights and with the same dequantised.

Weights and prompts are random, so nothing is downloaded; completion lengths are those of the study. `decode` is the loop in
static shapes, which a GPU replays; `dynamic` the one that CPUs take, without its guesses. Continuous batching takes most of the
free memory for its cache, whatever it needs of it, and is faster where a flash attention package is installed.

The roofline is the least time per skill that the device's peaks allow: over a method's phases, prefill and decoding, the sum of
max(2 * weights * tokens / FLOP/s, (passes * bytes of weights + bytes of keys and values read) / bandwidth). Weights are those of
the linear layers, the last layer's counting once per generated token. Attention's FLOPs, activations and the CPU count nothing.
NF4 counts as stored, though bitsandbytes unpacks it into memory at each pass of more than a few rows. Continuous batching mixes
prefill and decoding, hence is one phase.
"""

import argparse
import sys
import time
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity
from transformers import ContinuousBatchingConfig, GenerationConfig, LlamaConfig, LlamaForCausalLM, LogitsProcessorList
from transformers.generation.continuous_batching.utils import WorkloadHints
from transformers.utils.logging import disable_progress_bar

from benchmarks.lengths import SHARES, TOKENS
from benchmarks.notebook import BATCH_SIZE, MAX_NEW_TOKENS, ForcedLengths
from hardsoft.config.schema import QuantizationConfig
from hardsoft.core.files import to_json
from hardsoft.engines.local.attention import shared_prefix
from hardsoft.engines.local.eager import Eager
from hardsoft.engines.local.graphed import Graphed
from hardsoft.engines.local.loading import bitsandbytes_config
from hardsoft.engines.local.loop import MakeDecoder, decode
from hardsoft.engines.local.prefixed import PrefixedModel
from hardsoft.engines.local.rows import Generated, Job
from hardsoft.engines.local.score import score
from hardsoft.engines.memory import peak_memory_mb

SHARED, OWN = 343, 12
"""Tokens of a prompt that all rows share, and of each row's own."""
STOP = 0
# fmt: off
LLAMA_3_1_8B: dict[str, Any] = {
    "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8,
    "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
}
# fmt: on
TINY = {**LLAMA_3_1_8B, "num_hidden_layers": 2, "hidden_size": 256, "intermediate_size": 256, "vocab_size": 512}


def random_network(shape: dict[str, Any], device: str) -> Any:
    """A Llama of random weights in NF4, quantised on the device by the code that also loads checkpoints."""
    config = LlamaConfig(**shape, eos_token_id=STOP)
    nf4 = bitsandbytes_config(QuantizationConfig(method="nf4", double_quant=True, dequantize=False), "bfloat16")
    torch.manual_seed(0)
    with torch.device(device):
        weights = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16).state_dict()
    return LlamaForCausalLM.from_pretrained(
        None, config=config, state_dict=weights, dtype=torch.bfloat16, quantization_config=nf4, device_map={"": device}
    ).eval()


def now() -> float:
    """Seconds, read once the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@torch.inference_mode()
def generate(network: Any, prompts: list[list[int]], lengths: list[int], slots: int) -> float:
    """Seconds of the notebook's method, each batch to its longest row; prompts are equally long, so none needs padding."""
    settings = GenerationConfig(max_new_tokens=MAX_NEW_TOKENS, do_sample=False, eos_token_id=STOP, pad_token_id=STOP)
    begin = now()
    for start in range(0, len(prompts), slots):
        ids = torch.tensor(prompts[start : start + slots], device=network.device)
        forced = LogitsProcessorList([ForcedLengths(ids.shape[1], lengths[start : start + slots], STOP)])
        network.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings, logits_processor=forced)
    return now() - begin


def decoding(network: Any, prompts: list[list[int]], lengths: list[int], slots: int, decoder: MakeDecoder = Graphed) -> float:
    """Seconds of the loop, from when it has completed two rows a slot, and captured its graphs, until it has as many as wanted.

    Two rows a slot more wait behind them, so that its last rows do not leave it half empty.
    """
    rest = [number % len(prompts) for number in range(4 * slots + len(prompts))]
    begin, done = 0.0, 0

    def stop(row: Generated) -> bool:
        return len(row.tokens) == lengths[rest[row.row]]

    rows = ((number, prompts[place]) for number, place in enumerate(rest))
    for finished in decode(network, rows, Job(slots, max(lengths), stop), decoder):
        done += len(finished)
        if not begin and done >= 2 * slots:
            begin, done = now(), 2 * slots
        if begin and done >= 2 * slots + len(prompts):
            break
    return now() - begin


def continuous(network: Any, prompts: list[list[int]], lengths: list[int], slots: int) -> float:
    """Seconds of transformers' continuous batching, once its cache is allocated and its graphs are captured.

    `generate_batch` has one token limit for all rows; the manager that it uses takes one per row, so this asks the manager.
    """
    settings = GenerationConfig(max_new_tokens=MAX_NEW_TOKENS, do_sample=False, eos_token_id=-1)
    memory = 0.05 if network.device.type == "cpu" else None
    cache = ContinuousBatchingConfig(max_requests_per_batch=slots, max_memory_percent=memory)
    hints = WorkloadHints(len(prompts[0]), max(lengths), len(prompts))
    with network.continuous_batching_context_manager(settings, continuous_batching_config=cache, workload_hints=hints) as manager:
        begin = now()
        for prompt, length in zip(prompts, lengths, strict=True):
            manager.add_request(prompt, max_new_tokens=length)
        generated: list[int] = []
        while len(generated) < len(prompts):
            if result := manager.get_result(timeout=1):
                generated.append(len(result.generated_tokens))
            elif not manager.is_running():
                sys.exit("gpu: continuous batching ended early")
        assert sorted(generated) == sorted(lengths)
        return now() - begin


def scoring(network: Any, prompts: list[list[int]], lengths: list[int], slots: int) -> float:
    begin = now()
    assert sum(map(len, score(network, enumerate(prompts), [1, 2, 3], slots))) == len(prompts)
    return now() - begin


def roofline(network: Any, method: str, lengths: list[int], slots: int, flops: float, bandwidth: float) -> float:
    """The least seconds for all rows."""
    linears = [module for module in network.modules() if isinstance(module, torch.nn.Linear)]
    weights, size = sum(one.in_features * one.out_features for one in linears), sum(one.weight.nbytes for one in linears)
    config, last = network.config, network.lm_head.weight.numel()
    key_and_value = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * network.dtype.itemsize
    rows, batches = len(lengths), ceil(len(lengths) / slots)
    passes = max(ceil((sum(lengths) - rows) / slots), max(lengths) - 1)
    if method == "generate":
        lengths = [max(lengths[row // slots * slots :][:slots]) for row in range(rows)]
        passes = sum(length - 1 for length in lengths[::slots])
    decoded = sum(lengths) - rows  # a row's first token comes from its prefill
    own = sum((length - 1) * OWN + length * (length - 1) // 2 for length in lengths)
    # Of each phase: passes, tokens through the layers, tokens generated, and keys read.
    prefill = (1 + batches, SHARED + rows * OWN, rows, batches * SHARED)
    phases = {
        "generate": [(batches, rows * (SHARED + OWN), rows, 0), (passes, decoded, decoded, own + decoded * SHARED)],
        "decode": [prefill, (passes, decoded, decoded, own + passes * SHARED)],
        "dynamic": [prefill, (passes, decoded, decoded, own + passes * SHARED)],
        "score": [prefill],
        "continuous": [(passes + 1, SHARED + rows * OWN + decoded, rows + decoded, own + decoded * SHARED)],
    }
    seconds: float = sum(
        max(2 * ((weights - last) * tokens + last * generated) / flops, (count * size + keys * key_and_value) / bandwidth)
        for count, tokens, generated, keys in phases[method]
    )
    return seconds


@torch.inference_mode()
def profile(network: Any, prompts: list[list[int]], slots: int, steps: int = 20) -> None:
    """Print what a decoding step takes of the host and in all, and which operators the device spends it on."""
    rows = {slot: Generated(slot, prompts[slot % len(prompts)]) for slot in range(slots)}
    with shared_prefix(network):
        decoder = Graphed(PrefixedModel(network, prompts[0][:SHARED]), Job(slots, MAX_NEW_TOKENS, lambda _: False))
        decoder.enter(rows)
        for _ in range(2):  # the second one captures the graph
            decoder.step(rows)
        begin = now()
        for _ in range(steps - 2):
            decoder.step(rows)
        host = time.perf_counter() - begin
        whole = now() - begin
        print(f"a step of {slots} slots: host {1000 * host / (steps - 2):.2f} ms, in all {1000 * whole / (steps - 2):.2f} ms")
        kind = ProfilerActivity.CUDA if network.device.type == "cuda" else ProfilerActivity.CPU
        with torch.profiler.profile(activities=[kind]) as profiler:
            decoder.step(rows)
            now()
        print(
            profiler.key_averages().table(sort_by=f"self_{kind.name.lower()}_time_total", row_limit=12, max_name_column_width=60)
        )


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The loop with the most slots over the notebook's method and beside its roofline, and the most labels scored a second.

    Of the dequantised weights where they were measured; what was not measured is left out.
    """
    of = rows[-1]["weights"]
    rates = {row["method"]: row for row in rows if row["weights"] == of}
    loops = [row for method, row in rates.items() if method.startswith("decode")]
    scores = [row["skills_per_second"] for method, row in rates.items() if method.startswith("score")]
    notebook = rates.get(f"generate {BATCH_SIZE}")
    figures = {}
    if loops and notebook:
        figures["notebook_ratio"] = round(loops[-1]["skills_per_second"] / notebook["skills_per_second"], 2)
    if loops:
        figures["roofline_share"] = round(loops[-1]["roofline_ms_per_skill"] / loops[-1]["ms_per_skill"], 4)
    if scores:
        figures["label_per_second"] = max(scores)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--slots", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--profile", action="store_true", help="print host and device time of a decoding step, by operators")
    kinds = ["generate", "decode", "dynamic", "score", "continuous"]
    parser.add_argument("--methods", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--tflops", type=float, default=989, help="peak of dense bf16; the default is an H200's")
    parser.add_argument("--bandwidth-gb", type=float, default=4800, help="peak of the memory in GB/s; the default is an H200's")
    parser.add_argument("--tiny", action="store_true", help="a tiny network on the CPU, to see the code run; take few --rows")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    arguments = parser.parse_args()
    if not arguments.tiny and not torch.cuda.is_available():
        sys.exit("gpu: there is no GPU; --tiny runs the same code with a tiny network on the CPU")
    shape, device = (TINY, "cpu") if arguments.tiny else (LLAMA_3_1_8B, "cuda")
    random = np.random.default_rng(0)
    shared = random.integers(1, shape["vocab_size"], SHARED).tolist()
    prompts = [shared + random.integers(1, shape["vocab_size"], OWN).tolist() for _ in range(arguments.rows)]
    lengths = np.interp(random.random(arguments.rows), SHARES, TOKENS).round().astype(int).tolist()
    dynamic = partial(decoding, decoder=Eager)
    methods: list[tuple[str, Any, int]] = [("generate", generate, BATCH_SIZE)]
    for slots in arguments.slots:
        methods += [("decode", decoding, slots), ("dynamic", dynamic, slots)]
        methods += [("score", scoring, slots), ("continuous", continuous, slots)]
    methods = [one for one in methods if one[0] in arguments.methods]

    disable_progress_bar()
    network = random_network(shape, device)
    print(f"{len(prompts)} rows on {device}, {sum(lengths) / len(lengths):.0f} tokens each on average")
    print(f"{'weights':<13}{'method':<22}{'skills/s':>10}{'tokens/s':>10}{'peak MB':>10}{'ms/skill':>10}{'roofline':>10}")
    rows: list[dict[str, str | float]] = []
    for weights in ("nf4", "dequantised"):
        if weights == "dequantised":
            network = network.dequantize(dtype=torch.bfloat16)
        for slots in arguments.slots if arguments.profile else ():
            profile(network, prompts, slots)
        for name, method, slots in methods:
            if name not in ("decode", "dynamic"):  # these warm up in the same call, in which their graphs are
                method(network, prompts[:slots], [4] * len(prompts[:slots]), slots)
            if device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            seconds = method(network, prompts, lengths, slots)
            least = roofline(network, name, lengths, slots, 1e12 * arguments.tflops, 1e9 * arguments.bandwidth_gb)
            rows.append(
                {
                    "weights": weights,
                    "method": f"{name} {slots}",
                    "skills_per_second": round(len(prompts) / seconds, 2),
                    "tokens_per_second": round((len(prompts) if name == "score" else sum(lengths)) / seconds, 1),
                    "peak_memory_mb": round(peak_memory_mb(device)),
                    "ms_per_skill": round(1000 * seconds / len(prompts), 4),
                    "roofline_ms_per_skill": round(1000 * least / len(prompts), 4),
                }
            )
            print("{:<13}{:<22}{:>10}{:>10}{:>10}{:>10}{:>10}".format(*rows[-1].values()), flush=True)
            if arguments.json:  # after each row, in case a later method fails
                Path(arguments.json).write_text(to_json({**summary(rows), "rows": rows}), encoding="utf-8")


if __name__ == "__main__":
    main()
