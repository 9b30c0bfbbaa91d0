"""gpt-oss: every second layer sees a window, a sink a head, biases everywhere, experts whose gate and up are bounded, and
YaRN whose ramp is not rounded. transformers keeps the experts of a layer transposed, rows of gate and up in turn. The seeds
are such that no choice of an expert is close (golden.py)."""
import dataclasses

import transformers as tf

from golden import MXFP4, ODD, Q8_0, TWIN, Tiny, row

WINDOW = 8
SEEDS = {"": 53, "-q": 91}


def mxfp4(name):
    """As OpenAI's file: experts in MXFP4."""
    return MXFP4 if "exps" in name else Q8_0


def tensors(name, a):
    if name.endswith("self_attn.sinks"):
        return [(f"blk.{name.split('.')[2]}.attn_sinks.weight", a)]
    if ".experts." not in name:
        return None
    layer = name.split(".")[2]
    suffix = "bias" if name.endswith("_bias") else "weight"
    a = a if suffix == "bias" else a.swapaxes(1, 2)
    if "down_proj" in name:
        return [(f"blk.{layer}.ffn_down_exps.{suffix}", a)]
    return [(f"blk.{layer}.ffn_gate_exps.{suffix}", a[:, ::2]), (f"blk.{layer}.ffn_up_exps.{suffix}", a[:, 1::2])]


def init(name, r):
    if name.endswith(("sinks", "router.bias")):
        return r
    if name.endswith("router.weight"):
        return r * 1.0 / r.shape[-1] ** 0.5
    if name.endswith("proj_bias"):
        return 0.5 * r
    if name.endswith(("q_proj.weight", "k_proj.weight")):  # YaRN's factor sharpens attention by 1.8
        return r * 1.2 / r.shape[-1] ** 0.5
    if name.endswith("gate_up_proj"):  # wide enough for both bounds to be met
        return r * 2.5 / r.shape[-2] ** 0.5
    if name.endswith("down_proj"):
        return r * 0.5 / r.shape[-2] ** 0.5
    return None


@row(ODD, dataclasses.replace(TWIN, type=mxfp4))
def gpt_oss(s):
    ff = 44 if s.suffix == "" else 64
    c = tf.GptOssConfig(vocab_size=s.vocab, hidden_size=s.d, intermediate_size=ff, num_hidden_layers=2, num_local_experts=6,
                        num_experts_per_tok=3, num_attention_heads=4, num_key_value_heads=2, head_dim=s.head,
                        sliding_window=WINDOW, max_position_embeddings=131072, rms_norm_eps=1e-5)
    kv = {"attention.key_length": s.head, "attention.value_length": s.head, "attention.sliding_window": WINDOW,
          "rope.freq_base": 150000.0, "rope.scaling.type": "yarn", "rope.scaling.factor": 32.0,
          "rope.scaling.original_context_length": 4096, "expert_count": 6, "expert_used_count": 3,
          "expert_feed_forward_length": ff}
    return Tiny("gpt-oss", c, tf.GptOssForCausalLM, kv,
                {"mlp.router": "ffn_gate_inp", "post_attention_layernorm": "post_attention_norm"}, tensors, init,
                f32=("ffn_gate_inp", "exps.bias", "attn_sinks"), turned=("gate_up_proj", "down_proj"), pre="gpt-4o",
                seed=SEEDS[s.suffix])
