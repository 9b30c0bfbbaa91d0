"""qwen2moe, qwen3moe, and llama with experts (Mixtral). The seeds are such that no choice of an expert is close (golden.py)."""
import transformers as tf

from golden import ODD, TWIN, Tiny, permute, row


def experts(name, a):
    """transformers keeps the experts of a layer in one array, gate before up."""
    layer = name.split(".")[2] if "experts" in name else None
    if name.endswith("experts.gate_up_proj"):
        half = a.shape[1] // 2
        return [(f"blk.{layer}.ffn_gate_exps.weight", a[:, :half]), (f"blk.{layer}.ffn_up_exps.weight", a[:, half:])]
    if name.endswith("experts.down_proj"):
        return [(f"blk.{layer}.ffn_down_exps.weight", a)]
    return None


NAMES = {"mlp.gate": "ffn_gate_inp"}


@row(ODD, TWIN)
def qwen3moe(s):
    ff = 44 if s.suffix == "" else 32
    c = tf.Qwen3MoeConfig(vocab_size=s.vocab, hidden_size=s.d, intermediate_size=s.ff, num_hidden_layers=2,
                          num_attention_heads=6, num_key_value_heads=2, head_dim=s.head, max_position_embeddings=s.ctx,
                          rope_theta=1000000.0, rms_norm_eps=1e-6, num_experts=7, num_experts_per_tok=3,
                          moe_intermediate_size=ff, norm_topk_prob=True, tie_word_embeddings=False)
    kv = {"attention.key_length": s.head, "attention.value_length": s.head, "rope.freq_base": 1000000.0,
          "expert_count": 7, "expert_used_count": 3, "expert_feed_forward_length": ff}
    return Tiny("qwen3moe", c, tf.Qwen3MoeForCausalLM, kv, NAMES, experts, f32=("ffn_gate_inp",), pre="qwen2",
                seed=SEEDS["qwen3moe" + s.suffix])


@row(ODD, TWIN)
def qwen2moe(s):
    """With an expert that all rows share, and weights that are not normalized."""
    heads, ff, shared = s.d // s.head, 44 if s.suffix == "" else 32, 52 if s.suffix == "" else 64
    c = tf.Qwen2MoeConfig(vocab_size=s.vocab, hidden_size=s.d, intermediate_size=s.ff, num_hidden_layers=2,
                          num_attention_heads=heads, num_key_value_heads=1, max_position_embeddings=s.ctx,
                          rope_theta=1000000.0, rms_norm_eps=1e-6, num_experts=6, num_experts_per_tok=2,
                          moe_intermediate_size=ff, shared_expert_intermediate_size=shared, tie_word_embeddings=False)
    kv = {"rope.freq_base": 1000000.0, "expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": ff,
          "expert_shared_feed_forward_length": shared}
    names = {**NAMES, "mlp.shared_expert.gate_proj": "ffn_gate_shexp", "mlp.shared_expert.up_proj": "ffn_up_shexp",
             "mlp.shared_expert.down_proj": "ffn_down_shexp"}

    def tensors(name, a):
        if name.endswith("mlp.shared_expert_gate.weight"):
            return [(f"blk.{name.split('.')[2]}.ffn_gate_inp_shexp.weight", a[0])]
        return experts(name, a)

    def init(name, r):
        return 2.0 * r / r.shape[-1] ** 0.5 if "shared_expert_gate" in name else None

    return Tiny("qwen2moe", c, tf.Qwen2MoeForCausalLM, kv, names, tensors, init, f32=("ffn_gate_inp",), pre="qwen2",
                seed=SEEDS["qwen2moe" + s.suffix])


@row(ODD, TWIN)
def llama_experts(s):
    heads = s.d // s.head
    c = tf.MixtralConfig(vocab_size=s.vocab, hidden_size=s.d, intermediate_size=s.ff, num_hidden_layers=2,
                         num_attention_heads=heads, num_key_value_heads=1, max_position_embeddings=s.ctx,
                         rope_theta=10000.0, rms_norm_eps=1e-5, num_local_experts=5, num_experts_per_tok=2,
                         sliding_window=None, tie_word_embeddings=False)
    kv = {"rope.freq_base": 10000.0, "expert_count": 5, "expert_used_count": 2}

    def tensors(name, a):
        for part, n in (("q_proj", heads), ("k_proj", 1)):
            if f"self_attn.{part}" in name:
                return [(f"blk.{name.split('.')[2]}.attn_{part[0]}.weight", permute(a, n))]
        return experts(name, a)

    return Tiny("llama", c, tf.MixtralForCausalLM, kv, NAMES, tensors, f32=("ffn_gate_inp",),
                seed=SEEDS["llama-experts" + s.suffix])


SEEDS = {"qwen2moe": 12, "qwen2moe-q": 9, "qwen3moe": 47, "qwen3moe-q": 60, "llama-experts": 4, "llama-experts-q": 18}
