"""From a configuration to a local engine: the checkpoint loaded, its read-out put on, its layers packed.

Imports torch and transformers only when it is called: who hands `local_engine` to another process need not have them.
"""

import os
from typing import TYPE_CHECKING

from hardsoft.config.engines import ModelEngineConfig
from hardsoft.config.machine import Machine, readout_of
from hardsoft.config.schema import Config
from hardsoft.core.readouts import NO_SKILL, prompt_hash, read_readout
from hardsoft.engines.shares import WINDOW
from hardsoft.prompting.prompts import read_prompt

if TYPE_CHECKING:
    from hardsoft.engines.local.engine import LocalEngine


def local_engine(config: Config, machine: Machine, window: int = WINDOW, device: str | None = None) -> "LocalEngine":
    """Load the configured model onto a device of this process.

    Args:
        machine: what `auto` means here.
        window: chats that the engine looks ahead over.
        device: one of several GPUs, such as `cuda:1`; by default the machine's.

    Raises:
        InputError: the model cannot be loaded, or its read-out is another's.
    """
    if config.model.source == "folder":
        os.environ["HF_HUB_OFFLINE"] = "1"  # read by the libraries when they are imported
    from hardsoft.engines.local.engine import LocalEngine
    from hardsoft.engines.local.loading import load, weights_identity
    from hardsoft.engines.local.packing import pack_linears
    from hardsoft.engines.local.readout import check_fits, end_in
    from hardsoft.engines.local.tokens import Encoder

    if device:
        import torch

        torch.cuda.set_device(device)
    quantization = config.quantization.model_copy(update={"dequantize": machine.dequantize})
    network, tokenizer = load(config.model, quantization, device or machine.device)
    if path := readout_of(config):
        readout = read_readout(path)
        probe = prompt_hash(read_prompt(config.prompt).messages(NO_SKILL))
        check_fits(readout, path, network, weights_identity(config.model), probe)
        end_in(network, readout)
    assert isinstance(config.engine, ModelEngineConfig)
    prompt = config.prompt
    # Scoring takes three rows of the output layer, which packed weights cannot give.
    pack_linears(network, but=network.get_output_embeddings() if prompt.mode == "label" else None)
    return LocalEngine(
        network,
        Encoder(tokenizer, config.model.chat_template),
        machine.batch_size,
        prompt.max_new_tokens,
        prompt.mode == "label",
        window,
        reads_out=path is not None,
        graphs=config.engine.graphs == "auto",
    )
