"""FSDP2: parameters, gradients and optimizer state split among the workers, on GPUs and, for trying, on CPUs."""

from __future__ import annotations

from typing import Any

FSDP2: dict[str, Any] = {
    "fsdp": True,
    "fsdp_config": {
        "version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "state_dict_type": "FULL_STATE_DICT",
        "cpu_ram_efficient_loading": False,
    },
}
"""Arguments of a trainer."""


def shard_on_cpu(accelerator: Any, plugin_args: dict[str, Any]) -> None:
    """Make an accelerator of CPU workers shard. accelerate 1.15 does so on GPUs alone, and runs plain DDP on CPUs
    without a word."""
    from accelerate import PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    if accelerator.state.distributed_type != DistributedType.MULTI_CPU:
        return
    plugin = FullyShardedDataParallelPlugin(**plugin_args)
    if accelerator.mixed_precision != "no":
        plugin.set_mixed_precision(accelerator.mixed_precision)
    accelerator.state.fsdp_plugin = plugin
    # Every new view of the state takes this over from the one below it.
    for state in (PartialState(), accelerator.state):
        state.distributed_type = DistributedType.FSDP


def check_sharded(model: Any) -> None:
    """Raises RuntimeError for a model whose parameters every worker holds whole."""
    from torch.distributed.fsdp import FSDPModule

    if not isinstance(model, FSDPModule):
        raise RuntimeError(f"training.sharding='fsdp2', but the model is a plain {type(model).__name__}")
