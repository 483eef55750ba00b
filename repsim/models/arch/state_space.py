"""State-space decoders, as data for the block template: a block is one mixer behind one norm."""

from __future__ import annotations

from repsim.models.arch.base import ArchSpec

MAMBA = ArchSpec(
    name="mamba",
    model_types=("mamba",),
    prefix="backbone",
    blocks="layers",
    stream={"embed": "embeddings", "final_norm": "norm_f"},
    block={
        "attn": "mixer",
        "attn_norm": "norm",
        "mix_in mix_gate": "mixer.in_proj",
        "conv": "mixer.conv1d",
        "mix_step mix_b mix_c": "mixer.x_proj",
        "step": "mixer.dt_proj",
        "decay": "mixer.A_log",
        "skip": "mixer.D",
        "mix_out": "mixer.out_proj",
    },
    first_state=1,  # transformers reports what leaves each block, and then the last one normalised
    more_sizes=lambda config: {
        "channel": int(config.intermediate_size),
        "state": int(config.state_size),
        "rank": int(config.time_step_rank),
    },
)
