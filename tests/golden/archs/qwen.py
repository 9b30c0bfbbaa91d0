"""qwen2: biases on q, k and v. qwen3: a head size of its own, and norms of each head's q and k."""
import transformers as tf

from golden import Tiny, row


@row()
def qwen2(s):
    heads = s.d // s.head
    c = tf.Qwen2Config(vocab_size=s.vocab, hidden_size=s.d, intermediate_size=s.ff, num_hidden_layers=2,
                       num_attention_heads=heads, num_key_value_heads=1, max_position_embeddings=s.ctx,
                       rope_theta=1000000.0, rms_norm_eps=1e-6, tie_word_embeddings=False)
    return Tiny("qwen2", c, tf.Qwen2ForCausalLM, {"rope.freq_base": 1000000.0}, pre="qwen2")


@row()
def qwen3(s):
    head = s.head + 4 if s.suffix == "" else s.head
    c = tf.Qwen3Config(vocab_size=s.vocab, hidden_size=s.d, intermediate_size=s.ff, num_hidden_layers=2,
                       num_attention_heads=6, num_key_value_heads=2, head_dim=head, max_position_embeddings=s.ctx,
                       rope_theta=1000000.0, rms_norm_eps=1e-6, tie_word_embeddings=True)
    kv = {"attention.key_length": head, "attention.value_length": head, "rope.freq_base": 1000000.0}
    return Tiny("qwen3", c, tf.Qwen3ForCausalLM, kv, pre="qwen2")
