"""llama, gemma3, lfm2: the architectures that came first, in the sizes that they had then and in odd ones."""
import transformers as tf

from golden import FIRST, ODD_TOO, TWIN, Tiny, as_f32, permute, row


def heads_of(s):
    """(heads, KV heads): what divides the width."""
    return (3, 1) if s is ODD_TOO else (4, 2)


@row(FIRST[0], ODD_TOO, TWIN)
def llama(s):
    n, kv_heads = heads_of(s)
    c = tf.LlamaConfig(vocab_size=s.vocab, hidden_size=s.d, intermediate_size=s.ff, num_hidden_layers=2,
                       num_attention_heads=n, num_key_value_heads=kv_heads, max_position_embeddings=s.ctx, rope_theta=10000.0,
                       rms_norm_eps=1e-5, tie_word_embeddings=False, attention_bias=True)

    def tensors(name, a):
        for part, heads in (("q_proj", n), ("k_proj", kv_heads)):
            if part in name:
                _, _, layer, _, _, suffix = name.split(".")
                return [(f"blk.{layer}.attn_{part[0]}.{suffix}", permute(a, heads))]
        return None

    return Tiny("llama", c, tf.LlamaForCausalLM, {"rope.freq_base": 10000.0}, tensors=tensors, seed=0)


@row(FIRST[1], ODD_TOO, TWIN)
def gemma3(s):
    head = s.head if s is ODD_TOO else 32
    c = tf.Gemma3TextConfig(vocab_size=s.vocab, hidden_size=s.d, intermediate_size=s.ff, num_hidden_layers=6,
                            num_attention_heads=2, num_key_value_heads=1, head_dim=head, max_position_embeddings=s.ctx,
                            sliding_window=8, query_pre_attn_scalar=head, rms_norm_eps=1e-6, rope_theta=1000000.0,
                            rope_local_base_freq=10000.0)
    kv = {"attention.key_length": head, "attention.value_length": head, "attention.sliding_window": 8,
          "rope.freq_base": 1000000.0}
    return Tiny("gemma3", c, tf.Gemma3ForCausalLM, kv, {"post_attention_layernorm": "post_attention_norm"},
                plus=("norm",), seed=1)


@row(FIRST[1], ODD_TOO, TWIN)
def lfm2(s):
    n, kv_heads = heads_of(s)
    types = ["conv", "conv", "full_attention", "conv"]
    c = tf.Lfm2Config(vocab_size=s.vocab, hidden_size=s.d, intermediate_size=s.ff, num_hidden_layers=4,
                      num_attention_heads=n, num_key_value_heads=kv_heads, max_position_embeddings=s.ctx, norm_eps=1e-5,
                      conv_L_cache=3, conv_bias=False, block_auto_adjust_ff_dim=False, layer_types=types,
                      rope_theta=1000000.0)
    kv = {"attention.layer_norm_rms_epsilon": 1e-5, "attention.head_count_kv": [kv_heads if t != "conv" else 0 for t in types],
          "shortconv.l_cache": 3, "rope.freq_base": 1000000.0}
    names = {"feed_forward.w1": "ffn_gate", "feed_forward.w3": "ffn_up", "feed_forward.w2": "ffn_down",
             "self_attn.q_layernorm": "attn_q_norm", "self_attn.k_layernorm": "attn_k_norm", "operator_norm": "attn_norm",
             "conv.in_proj": "shortconv.in_proj", "conv.out_proj": "shortconv.out_proj", "ffn_norm": "ffn_norm",
             "model.embedding_norm": "token_embd_norm"}

    def tensors(name, a):
        if not name.endswith("conv.conv.weight"):
            return None
        return [(f"blk.{name.split('.')[2]}.shortconv.conv.weight", a[:, 0, :])]

    def init(name, r):  # in F32 files keep it, and was rounded like the matrices
        return (r * 2.0 / r.shape[-1] ** 0.5).half() if name.endswith("conv.conv.weight") else None

    return Tiny("lfm2", c, tf.Lfm2ForCausalLM, kv, names, tensors, init, f32=("shortconv.conv",), seed=2)
