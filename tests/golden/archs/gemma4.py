"""gemma4: two head sizes, a norm of V, a scale a layer and a soft cap in all of them; what E2B and E4B have (embeddings of
each layer's own, shared caches, wider feed-forwards behind them), what 31B has (K for V, KV heads of two counts), and 26B's
experts beside a dense feed-forward. The seeds of these are such that no choice of an expert is close (golden.py)."""
import numpy as np
import torch
import transformers as tf

from golden import Tiny, row

NAMES = {
    "post_attention_layernorm": "post_attention_norm", "model.embed_tokens_per_layer": "per_layer_token_embd",
    "model.per_layer_model_projection": "per_layer_model_proj", "model.per_layer_projection_norm": "per_layer_proj_norm",
    "per_layer_input_gate": "inp_gate", "per_layer_projection": "proj", "post_per_layer_input_norm": "post_norm",
    "router.proj": "ffn_gate_inp", "pre_feedforward_layernorm_2": "pre_ffw_norm_2",
    "post_feedforward_layernorm_1": "post_ffw_norm_1", "post_feedforward_layernorm_2": "post_ffw_norm_2",
}


PARTS = {
    "router.scale": "ffn_gate_inp.scale", "router.per_expert_scale": "ffn_down_exps.scale",
    "experts.gate_up_proj": "ffn_gate_up_exps.weight", "experts.down_proj": "ffn_down_exps.weight",
}


def tiny(s, types, n_pl=0, shared=0, **own):
    heads, n = 4, len(types)
    full, window = s.head - 4 * (s.suffix == ""), s.head // 2
    c = tf.Gemma4TextConfig(
        vocab_size=s.vocab, hidden_size=s.d, intermediate_size=s.ff, num_hidden_layers=n, num_attention_heads=heads,
        num_key_value_heads=2, head_dim=window, global_head_dim=full, max_position_embeddings=s.ctx, sliding_window=8,
        rms_norm_eps=1e-6, layer_types=[{"w": "sliding_attention", "f": "full_attention"}[t] for t in types],
        final_logit_softcapping=6.0, hidden_size_per_layer_input=n_pl, vocab_size_per_layer_input=s.vocab,
        num_kv_shared_layers=shared, use_double_wide_mlp=shared > 0, **own)
    c.allow_global_per_layer_attribute_access = True
    one = c.num_key_value_heads if not c.attention_k_eq_v else own["num_global_key_value_heads"]
    kv = {"attention.key_length": full, "attention.value_length": full, "attention.key_length_swa": window,
          "attention.value_length_swa": window, "attention.sliding_window": 8, "final_logit_softcapping": 6.0,
          "attention.sliding_window_pattern": [t == "w" for t in types], "attention.shared_kv_layers": shared,
          "attention.head_count_kv": [2 if t == "w" else one for t in types], "embedding_length_per_layer_input": n_pl,
          "feed_forward_length": [s.ff * (1 + (i >= n - shared)) for i in range(n)], "rope.freq_base": 1000000.0,
          "rope.freq_base_swa": 10000.0, "rope.dimension_count": full, "rope.dimension_count_swa": window}
    turning = int(full * 0.25 / 2)
    freqs = np.array([1.0] * turning + [1e30] * (full // 2 - turning), np.float32)

    def tensors(name, a):
        if name == "model.norm.weight":
            return [("output_norm.weight", a), ("rope_freqs.weight", freqs)]
        if name.endswith(".layer_scalar"):
            return [(f"blk.{name.split('.')[2]}.layer_output_scale.weight", a)]
        for end, out in PARTS.items():
            if name.endswith(end):
                return [(f"blk.{name.split('.')[2]}.{out}", a)]
        return None

    def init(name, r):
        if "q_norm" in name or "k_norm" in name:  # scores are not scaled: what a trained norm keeps within bounds
            return 0.5 + 0.1 * r
        if name.endswith("router.proj.weight"):  # the model divides by the root of d
            return 1.5 * r
        return 1.0 + 0.2 * r if name.endswith((".layer_scalar", "scale")) else None

    return Tiny("gemma4", c, tf.Gemma4ForCausalLM, kv, NAMES, tensors, init, f32=("ffn_gate_inp",))


@row()
def gemma4(s):
    return tiny(s, "wfwfwwf", n_pl=12 if s.suffix == "" else 32, shared=3)


@row()
def gemma4_keqv(s):
    return tiny(s, "wwwwwf", attention_k_eq_v=True, num_global_key_value_heads=1)


@row()
def gemma4_experts(s):
    ff = 48 if s.suffix == "" else 32
    t = tiny(s, "wf", attention_k_eq_v=True, num_global_key_value_heads=1, enable_moe_block=True, num_experts=7,
             top_k_experts=3, moe_intermediate_size=ff)
    t.config.num_experts_per_tok = 3  # what other architectures call it
    t.kv.update({"expert_count": 7, "expert_used_count": 3, "expert_feed_forward_length": ff})
    t.seed = SEEDS[s.suffix]
    return t


SEEDS = {"": 2, "-q": 2}
