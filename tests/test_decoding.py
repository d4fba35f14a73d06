"""The decode loop and label scoring, against plain `generate` and plain forward passes over whole prompts."""

import copy
import random
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from hardsoft.engines.local.attention import shared_prefix
from hardsoft.engines.local.drafts import Drafts
from hardsoft.engines.local.eager import Eager
from hardsoft.engines.local.engine import mapped_ahead
from hardsoft.engines.local.graphed import Graphed, Graphs, Replayed
from hardsoft.engines.local.lookahead import Lookahead
from hardsoft.engines.local.loop import MakeDecoder, decode
from hardsoft.engines.local.packing import PackedLinear, pack_linears
from hardsoft.engines.local.plain import Plain
from hardsoft.engines.local.prefixed import PrefixedModel
from hardsoft.engines.local.rows import Generated, Job, Stop
from hardsoft.engines.local.score import score

VOCABULARY = 97
LIMIT = 12
Result = TypeVar("Result")
Prompts = list[list[int]]


def drafting(model: PrefixedModel, job: Job) -> Eager:
    return Eager(model, job, Drafts())


DECODERS: dict[str, MakeDecoder] = {"eager": Eager, "drafts": drafting, "graphed": Graphed}
each_decoder = pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)


@cache
def llama(heads: int, kv_heads: int, packed: bool = False) -> LlamaForCausalLM:
    """A random Llama whose next tokens are far enough apart for rounding not to matter."""
    torch.manual_seed(heads * 10 + kv_heads)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        initializer_range=0.3,
        eos_token_id=2,
        pad_token_id=0,
    )
    network: LlamaForCausalLM = LlamaForCausalLM(config).eval()
    if packed:
        pack_linears(network)
    return network


def make_prompts(seed: int, rows: int, prefix: int, longest: int) -> Prompts:
    """Prompts that share a prefix and go on with 1 to `longest` tokens of their own."""
    draw = random.Random(seed)
    shared = [draw.randrange(3, VOCABULARY) for _ in range(prefix)]
    return [shared + [draw.randrange(3, VOCABULARY) for _ in range(draw.randint(1, longest))] for _ in range(rows)]


def generated_alone(network: Any, prompt: list[int], limit: int = LIMIT) -> list[int]:
    """What plain `generate` writes after one prompt, its EOS included."""
    generation = GenerationConfig(max_new_tokens=limit, do_sample=False, eos_token_id=2, pad_token_id=0)
    ids = torch.tensor([prompt])
    tokens: list[int] = network.generate(ids, attention_mask=torch.ones_like(ids), generation_config=generation)[0].tolist()
    return tokens[len(prompt) :]


def at_eos(row: Generated) -> bool:
    return row.tokens[-1] == 2


def never(row: Generated) -> bool:
    return False


def run(
    network: Any, prompts: Prompts, slots: int, stop: Stop = at_eos, decoder: MakeDecoder = drafting, **options: Any
) -> list[Generated]:
    job = Job(slots, LIMIT, stop, **options)
    finished = [row for rows in decode(network, enumerate(prompts), job, decoder) for row in rows]
    rows = {row.row: row for row in finished}
    assert len(rows) == len(finished), "a row was finished twice"
    return [rows[row] for row in range(len(prompts))]


@cache
def whole_set(heads: int, kv_heads: int) -> tuple[Prompts, Prompts]:
    """Prompts, the last of which shares nothing with the others, and what plain `generate` writes after them."""
    prompts = [*make_prompts(1, 40, 23, 9), [5, 6, 7]]
    return prompts, [generated_alone(llama(heads, kv_heads), prompt) for prompt in prompts]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1)])
@each_decoder
def test_tokens_are_those_of_plain_generate(heads: int, kv_heads: int, packed: bool, decoder: MakeDecoder) -> None:
    prompts, expected = whole_set(heads, kv_heads)
    assert any(len(tokens) < LIMIT for tokens in expected), "no row ends early: the test says less than it should"
    for part in (prompts[:-1], prompts):
        for slots in (1, 7, 200):
            rows = run(llama(heads, kv_heads, packed), part, slots, decoder=decoder)
            assert [row.tokens for row in rows] == expected[: len(part)]
            assert [row.stopped for row in rows] == [tokens[-1] == 2 for tokens in expected[: len(part)]]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.integers(1, 15), st.integers(0, 30), st.integers(1, 20)), min_size=1, max_size=3
    ),
    st.integers(1, 50),
    st.integers(1, 40),
)
def test_ragged_prompts_of_every_kind(kinds: list[tuple[int, int, int, int]], slots: int, window: int) -> None:
    """Sets of prompts one after another, each with a prefix of its own, that windows cut anywhere."""
    network, prompts = llama(4, 2), [prompt for kind in kinds for prompt in make_prompts(*kind)]
    expected = [generated_alone(network, prompt) for prompt in prompts]
    for decoder in (drafting, Graphed):
        assert [row.tokens for row in run(network, prompts, slots, decoder=decoder, window=window)] == expected


@pytest.mark.parametrize("decoder", ["eager", "graphed"])
def test_rows_are_taken_as_there_is_room_and_slots_never_run_empty(decoder: str) -> None:
    """At most a window is held beside the rows in slots, and the end of a window drains nothing."""
    network, prompts = llama(4, 2), make_prompts(11, 200, 20, 6)
    pulled = done = passes = 0

    def rows() -> Iterator[tuple[int, list[int]]]:
        nonlocal pulled
        for row, prompt in enumerate(prompts):
            pulled += 1
            yield row, prompt

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1

    hook = network.register_forward_pre_hook(count)
    for finished in decode(network, rows(), Job(8, LIMIT, never, window=20), DECODERS[decoder]):
        done += len(finished)
        assert pulled - done <= 8 + 20
    hook.remove()
    assert done == 200
    rounds = 200 / 8
    late = rounds if decoder == "graphed" else 0
    assert passes <= rounds * LIMIT + 2 + late, (
        "a prefill and the steps of full slots, but for the prefix, the last round and late stops"
    )


def test_rows_far_longer_than_the_rest_decode_in_a_pass_of_their_own() -> None:
    network, prompts = llama(4, 2), make_prompts(13, 60, 20, 6)
    tail = make_prompts(14, 2, 0, 1)[0] * 90
    for row in (3, 40):
        prompts[row] = prompts[row] + tail
    widths: dict[str, list[int]] = {"short": [], "long": []}

    def note_width(module: Any, positional: Any, keywords: dict[str, Any]) -> None:
        mask = keywords["attention_mask"]
        if mask.shape[2] == 1:  # a decoding step: own keys of the longest live row
            widths["long" if mask.shape[3] > 60 else "short"].append(mask.shape[0])

    hook = network.register_forward_pre_hook(note_width, with_kwargs=True)
    run(network, prompts, 8, never, Eager, window=20)
    hook.remove()
    expected = [generated_alone(network, prompt) for prompt in prompts]
    for decoder in (drafting, Graphed):
        assert [row.tokens for row in run(network, prompts, 8, decoder=decoder, window=20)] == expected
    assert max(widths["long"]) == 2, "no other row was beside the two long ones"
    assert max(widths["short"]) == 8


def test_long_rows_without_end_do_not_pile_up() -> None:
    prompts = make_prompts(15, 300, 20, 6)
    long = [prompt + [5] * 100 if row % 3 == 0 else prompt for row, prompt in enumerate(prompts)]
    ahead, given = Lookahead(enumerate(long), 30), []
    while ahead.renew():
        while taken := ahead.take(8):
            given += [row for row, _ in taken]
        assert len(ahead._long) <= 2 * 30
    assert sorted(given) == list(range(300))


def test_a_row_that_begins_otherwise_waits_until_no_slot_is_live() -> None:
    network, prompts = llama(4, 2), make_prompts(12, 30, 20, 6)
    prompts[17] = [5, *prompts[17]]
    ahead = Lookahead(enumerate(prompts), 10)
    assert ahead.renew()
    assert ahead.prefix == prompts[0][:20]
    given = [row for row, _ in ahead.take(100)]
    assert sorted(given) == [row for row in range(20) if row != 17]
    assert not ahead.waits()
    assert ahead.renew()
    assert [row for row, _ in ahead.take(1)] == [17]
    assert [row.tokens for row in run(network, prompts, 4, window=10)] == [generated_alone(network, one) for one in prompts]


@each_decoder
def test_rows_that_stop_at_once_and_rows_that_never_do(decoder: MakeDecoder) -> None:
    network, prompts = llama(4, 2), make_prompts(3, 30, 10, 5)
    endless = run(network, prompts, 8, never, decoder)
    assert all(len(row.tokens) == LIMIT and not row.stopped for row in endless)
    mixed = run(network, prompts, 8, lambda row: row.row % 3 == 0 or len(row.tokens) == row.row, decoder)
    for row, whole in zip(mixed, endless, strict=True):
        length = 1 if row.row % 3 == 0 else min(row.row, LIMIT)
        assert row.tokens == whole.tokens[:length]
        assert row.stopped == (row.row % 3 == 0 or row.row <= LIMIT)


@each_decoder
def test_one_prompt_equal_prompts_and_none(decoder: MakeDecoder) -> None:
    network, (prompt,) = llama(4, 4), make_prompts(4, 1, 8, 3)
    expected = generated_alone(network, prompt)
    assert [row.tokens for row in run(network, [prompt], 64, decoder=decoder)] == [expected]
    assert [row.tokens for row in run(network, [prompt] * 9, 4, decoder=decoder)] == [expected] * 9
    assert [row.tokens for row in run(network, [[7]], 4, decoder=decoder)] == [generated_alone(network, [7])]
    assert run(network, [], 4, decoder=decoder) == []


def test_drafts_are_taken_and_save_steps() -> None:
    network, prompts = llama(4, 2), make_prompts(5, 4, 10, 1) * 30
    steps = []
    hook = network.register_forward_pre_hook(lambda *_: steps.append(1))
    without = run(network, prompts, 8, never, Eager)
    plain_steps = len(steps)
    steps.clear()
    assert run(network, prompts, 8, never) == without
    hook.remove()
    assert len(steps) < 0.7 * plain_steps


@each_decoder
def test_logits_of_watched_tokens_are_recorded_where_one_is_generated(decoder: MakeDecoder) -> None:
    network, prompts = llama(4, 2), make_prompts(6, 20, 12, 4)
    watch = sorted({token for prompt in prompts for token in generated_alone(network, prompt)})[:5]
    for row, prompt in zip(run(network, prompts, 6, decoder=decoder, watch=watch), prompts, strict=True):
        assert [place for place, _ in row.watched] == [place for place, token in enumerate(row.tokens) if token in watch]
        for place, logits in row.watched:
            with torch.inference_mode():
                whole = network(torch.tensor([prompt + row.tokens[:place]])).logits[0, -1, watch]
            torch.testing.assert_close(torch.tensor(logits), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("window", [7, 1000])
def test_scores_are_those_of_whole_prompts(window: int) -> None:
    candidates = [10, 20, 30]
    for network in (llama(4, 4), llama(4, 2, True)):
        prompts = make_prompts(7, 50, 20, 9)
        scores = dict(pair for pairs in score(network, enumerate(prompts), candidates, 8, window) for pair in pairs)
        for row, prompt in enumerate(prompts):
            with torch.inference_mode():
                whole = llama(4, network.config.num_key_value_heads)(torch.tensor([prompt])).logits[0, -1, candidates].softmax(-1)
            torch.testing.assert_close(torch.tensor(scores[row]), whole, atol=1e-4, rtol=0)
    assert list(score(llama(4, 4), [], candidates, 8)) == []


def test_scoring_computes_the_logits_of_the_candidates_alone() -> None:
    network, widths = llama(4, 4), []
    hook = network.register_forward_hook(lambda _module, _inputs, output: widths.append(output.logits.shape[-1]))
    whole = network.get_output_embeddings()
    for _ in score(network, enumerate(make_prompts(7, 9, 20, 9)), [10, 20, 30], 4):
        pass
    hook.remove()
    assert set(widths) == {3}
    assert network.get_output_embeddings() is whole


def test_windows_are_encoded_ahead_in_order_and_faults_arrive() -> None:
    results = mapped_ahead(lambda number: 10 // number, [5, 2, 1, 0, 7])
    assert [next(results), next(results), next(results)] == [2, 5, 10]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(mapped_ahead(str, [])) == []


@each_decoder
def test_the_network_is_as_it_was_afterwards(decoder: MakeDecoder) -> None:
    network, prompts = llama(4, 2), make_prompts(8, 5, 10, 3)
    before = network.config._attn_implementation
    for _ in decode(network, enumerate(prompts), Job(2, LIMIT, at_eos), decoder):
        break  # the caller may also stop half-way
    assert network.config._attn_implementation == before


def small(config: type, **options: Any) -> Any:
    return config(vocab_size=VOCABULARY, eos_token_id=2, pad_token_id=0, bos_token_id=1, initializer_range=0.3, **options)


def test_a_sliding_window_is_refused_only_when_it_would_matter() -> None:
    shape = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    prompts = make_prompts(9, 10, 20, 5)
    torch.manual_seed(0)
    wide = MistralForCausalLM(small(MistralConfig, sliding_window=64, **shape)).eval()
    assert [row.tokens for row in run(wide, prompts, 4)] == [generated_alone(wide, prompt) for prompt in prompts]
    narrow = MistralForCausalLM(small(MistralConfig, sliding_window=8, **shape)).eval()
    with pytest.raises(NotImplementedError, match="sliding window"):
        run(narrow, prompts, 4)
    plain, job = Plain(narrow), Job(4, LIMIT, at_eos)
    rows = {row.row: row for finished in plain.write(enumerate(prompts), job) for row in finished}
    assert [rows[row].tokens for row in range(10)] == [generated_alone(narrow, prompt) for prompt in prompts]
    probabilities = dict(pair for pairs in plain.score(enumerate(prompts), [5, 6], job) for pair in pairs)
    assert all(abs(sum(probabilities[row]) - 1) < 1e-6 for row in range(10))


@each_decoder
def test_another_architecture(decoder: MakeDecoder) -> None:
    torch.manual_seed(0)
    network = GPT2LMHeadModel(small(GPT2Config, n_embd=64, n_layer=2, n_head=4)).eval()
    prompts = make_prompts(10, 20, 15, 6)
    expected = [generated_alone(network, prompt) for prompt in prompts]
    assert [row.tokens for row in run(network, prompts, 6, decoder=decoder)] == expected


class Recorded(TorchDispatchMode):
    """Within this context, the names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


class Recording(Graphs):
    """Records the operators of what a GPU would capture, on a CPU."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.on, self.recorded = True, Recorded()

    def _captured(self, function: Callable[[], Result]) -> Callable[[], Result]:
        def replay() -> Result:
            with self.recorded:
                return function()

        return replay


class Failing(Graphs):
    """Captures like a GPU, as far as a CPU can, and fails at the one of that number."""

    def __init__(self, number: int) -> None:
        super().__init__(torch.device("cpu"))
        self.on, self.left, self.captured = True, number, 0

    def _captured(self, function: Callable[[], Result]) -> Callable[[], Result]:
        self.left -= 1
        if not self.left:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nCompile with ...")
        self.captured += 1
        return function


@pytest.mark.parametrize("number", [1, 3, 1000])
def test_what_cannot_be_captured_runs_uncaptured_from_then_on_with_one_note(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, expected = whole_set(4, 2)
    graphs = Failing(number)
    for _ in range(2):
        rows = run(llama(4, 2), prompts, 7, decoder=partial(Graphed, graphs=graphs))
        assert [row.tokens for row in rows] == expected
    notes = capsys.readouterr().err
    assert (
        notes.count("\n")
        == notes.count("note: CUDA graphs: a step cannot be captured (CUDA error: operation not")
        == (number < 9)
    )
    assert graphs.captured == number - 1 if number < 9 else graphs.captured > 3


def test_a_capture_for_which_memory_is_short_is_no_matter_of_graphs() -> None:
    class Short(Failing):
        def _captured(self, function: Callable[[], Result]) -> Callable[[], Result]:
            raise torch.OutOfMemoryError("CUDA out of memory")

    graphs = Short(1)
    replayed = Replayed(lambda: 1, graphs)
    assert replayed() == 1
    with pytest.raises(torch.OutOfMemoryError):
        replayed()
    assert graphs.on


@torch.inference_mode()
def test_a_static_step_and_a_prefill_neither_wait_for_the_device_nor_hand_it_data() -> None:
    """What a CUDA graph may not do, told by the operators: reading a number, or a tensor of numbers that the host has."""
    network, prompts = llama(4, 2), make_prompts(1, 6, 20, 5)
    with shared_prefix(network):
        rows = {slot: Generated(slot, prompt) for slot, prompt in enumerate(prompts)}
        graphs = Recording(torch.device("cpu"))
        decoder = Graphed(PrefixedModel(network, prompts[0][:20]), Job(6, LIMIT, never, [3, 4]), graphs)
        for _ in range(2):
            decoder.enter(rows)
            decoder.step(rows)
    recorded = graphs.recorded
    forbidden = {"aten.lift_fresh.default", "aten._local_scalar_dense.default", "aten.item.default", "aten.nonzero.default"}
    assert "aten.argmax.default" in recorded.names
    assert not recorded.names & forbidden
    with Recorded() as seen:
        torch.tensor([1]).sum().item()
    assert seen.names & forbidden


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_replayed_graphs_write_what_plain_generate_writes() -> None:
    prompts, expected = whole_set(4, 2)
    network: Any = copy.deepcopy(llama(4, 2))
    network.to("cuda")
    for slots in (1, 7, 200):
        assert [row.tokens for row in run(network, prompts * 5, slots, decoder=Graphed)] == expected * 5


@pytest.mark.parametrize(
    ("prompts", "prefix"), [([[1, 2, 3], [1, 2, 4]], [1, 2]), ([[1, 2], [1, 2, 4]], [1]), ([[1], [2]], []), ([[1]], [])]
)
def test_the_common_prefix_leaves_a_token_of_each_prompt(prompts: Prompts, prefix: list[int]) -> None:
    ahead = Lookahead(enumerate(prompts), 10)
    assert ahead.renew()
    assert ahead.prefix == prefix


def test_packed_layers_compute_the_same() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.Sequential(torch.nn.Linear(96, 32, bias=False)))
    inputs = torch.randn(5, 3, 64)
    expected = network(inputs)
    pack_linears(network)
    assert isinstance(network[0], PackedLinear)
    torch.testing.assert_close(network(inputs), expected)
    half = torch.nn.Sequential(torch.nn.Linear(64, 96, dtype=torch.bfloat16))
    pack_linears(half)
    assert type(half[0]) is torch.nn.Linear
