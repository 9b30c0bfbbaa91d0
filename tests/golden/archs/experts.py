"""qwen3moe, and llama with experts (Mixtral). The seeds are such that no choice of an expert is close (golden.py)."""
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


SEEDS = {"qwen3moe": 47, "qwen3moe-q": 60, "llama-experts": 4, "llama-experts-q": 18}
