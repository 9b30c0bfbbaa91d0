#!/usr/bin/env python3
"""Makes the tiny random goldens: one GGUF an architecture, and transformers' fp32 logits for it.

    python make_tiny.py OUTDIR        needs: torch, transformers, gguf, numpy (docs/TESTING.md, label oracle)

For each architecture a transformers model of a few ten thousand weights (all of them random: norms and biases too, since
ones and zeros hide bugs), rounded to what the GGUF twin stores, run in fp32, eager attention, one thread.
OUTDIR/<arch>.gguf holds the twin; <arch>.bin the golden: u32 magic 'CPGL', u32 n_sequences, u32 n_vocab, then a sequence:
u32 n, i32 ids[n], f32 logits[n][n_vocab]. Every sequence crosses window, page and convolution borders.
"""
import struct
import sys

import gguf
import numpy as np
import torch
import transformers as tf

VOCAB, D, FF, CTX = 320, 64, 96, 4096
LENGTHS = (1, 7, 33, 64)
CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>'"
          " + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


def byte_alphabet():
    """GPT-2's byte <-> printable code point table."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    out, extra = {}, 0
    for b in range(256):
        out[b] = chr(b) if b in keep else chr(256 + extra)
        extra += b not in keep
    return out


def add_tokenizer(w):
    alphabet = byte_alphabet()
    tokens = [alphabet[b] for b in range(256)]
    merges = ["t h", "th e", "i n", "e r", "a n", "o n", "r e", "Ġ t", "Ġ a", "Ġt h"]
    tokens += [m.replace(" ", "") for m in merges]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    types = [1] * len(tokens) + [3] * len(special)
    tokens += special
    while len(tokens) < VOCAB:
        tokens.append(f"<|unused{len(tokens)}|>")
        types.append(5)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("smollm")
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges(merges)
    w.add_bos_token_id(tokens.index("<|im_start|>"))
    w.add_eos_token_id(tokens.index("<|im_end|>"))
    w.add_chat_template(CHATML)


def permute(m, heads):
    """HF's half-split rotary rows to GGUF's interleaved ones (llama)."""
    return m.reshape(heads, 2, m.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(m.shape)


def randomize(model, dtype, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            r = torch.randn(p.shape, generator=g)
            if "norm" in name and p.ndim == 1:
                p.copy_(1.0 + 0.2 * r if "gemma" not in str(type(model)).lower() else 0.2 * r)
            elif p.ndim == 1:
                p.copy_(0.1 * r)
            else:
                p.copy_((r * (1.0 if "embed" in name else 2.0) / p.shape[-1] ** 0.5).to(dtype).float())


NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.out_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "feed_forward.w1": "ffn_gate",
    "feed_forward.w3": "ffn_up", "feed_forward.w2": "ffn_down", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "self_attn.q_layernorm": "attn_q_norm",
    "self_attn.k_layernorm": "attn_k_norm", "input_layernorm": "attn_norm", "operator_norm": "attn_norm",
    "conv.in_proj": "shortconv.in_proj", "conv.out_proj": "shortconv.out_proj", "conv.conv": "shortconv.conv",
    "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm", "ffn_norm": "ffn_norm",
}


def gguf_name(arch, name):
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name in ("model.norm.weight", "model.embedding_norm.weight"):
        return "token_embd_norm.weight" if arch == "lfm2" else "output_norm.weight"
    if name == "lm_head.weight":
        return "output.weight"
    layer, rest = name.removeprefix("model.layers.").split(".", 1)
    base, suffix = rest.rsplit(".", 1)
    if base == "post_attention_layernorm":
        base = "post_attention_norm" if arch == "gemma3" else "ffn_norm"
    else:
        base = NAMES[base]
    return f"blk.{layer}.{base}.{suffix}"


def llama():
    c = tf.LlamaConfig(vocab_size=VOCAB, hidden_size=D, intermediate_size=FF, num_hidden_layers=2, num_attention_heads=4,
                       num_key_value_heads=2, max_position_embeddings=CTX, rope_theta=10000.0, rms_norm_eps=1e-5,
                       tie_word_embeddings=False, attention_bias=True)
    kv = {"attention.head_count": 4, "attention.head_count_kv": 2, "rope.freq_base": 10000.0}
    return c, tf.LlamaForCausalLM, np.float32, kv


def gemma3():
    c = tf.Gemma3TextConfig(vocab_size=VOCAB, hidden_size=D, intermediate_size=FF, num_hidden_layers=6,
                            num_attention_heads=2, num_key_value_heads=1, head_dim=32, max_position_embeddings=CTX,
                            sliding_window=8, query_pre_attn_scalar=32, rms_norm_eps=1e-6, rope_theta=1000000.0,
                            rope_local_base_freq=10000.0)
    kv = {"attention.head_count": 2, "attention.head_count_kv": 1, "attention.key_length": 32,
          "attention.value_length": 32, "attention.sliding_window": 8, "rope.freq_base": 1000000.0}
    return c, tf.Gemma3ForCausalLM, np.float16, kv


def lfm2():
    types = ["conv", "conv", "full_attention", "conv"]
    c = tf.Lfm2Config(vocab_size=VOCAB, hidden_size=D, intermediate_size=FF, num_hidden_layers=4, num_attention_heads=4,
                      num_key_value_heads=2, max_position_embeddings=CTX, norm_eps=1e-5, conv_L_cache=3, conv_bias=False,
                      block_auto_adjust_ff_dim=False, layer_types=types, rope_theta=1000000.0)
    kv = {"attention.head_count": 4, "attention.head_count_kv": [2 if t != "conv" else 0 for t in types],
          "shortconv.l_cache": 3, "rope.freq_base": 1000000.0}
    return c, tf.Lfm2ForCausalLM, np.float16, kv


def write_gguf(path, arch, config, model, dtype, kv):
    w = gguf.GGUFWriter(path, arch)
    w.add_name(f"tiny-{arch}")
    w.add_context_length(CTX)
    w.add_embedding_length(D)
    w.add_block_count(config.num_hidden_layers)
    w.add_feed_forward_length(FF)
    w.add_layer_norm_rms_eps(getattr(config, "rms_norm_eps", None) or config.norm_eps)
    for key, v in kv.items():
        key = f"{arch}.{key}"
        if isinstance(v, list):
            w.add_array(key, v)
        elif isinstance(v, float):
            w.add_float32(key, v)
        else:
            w.add_uint32(key, v)
    add_tokenizer(w)
    tied = config.tie_word_embeddings
    for name, p in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        a = p.detach().float().numpy()
        out = gguf_name(arch, name)
        if arch == "llama" and (".attn_q." in out or ".attn_k." in out):
            heads = 4 if ".attn_q." in out else 2
            a = permute(a, heads)
        if arch == "gemma3" and "norm" in out:
            a = a + 1.0
        if "shortconv.conv" in out:
            a = a[:, 0, :]
        w.add_tensor(out, np.ascontiguousarray(a, dtype if a.ndim == 2 and "shortconv.conv" not in out else np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    torch.set_num_threads(1)
    torch.cuda.is_current_stream_capturing = lambda: False  # a CUDA build of torch asks a driver that is not there
    for seed, (arch, make) in enumerate({"llama": llama, "gemma3": gemma3, "lfm2": lfm2}.items()):
        config, cls, dtype, kv = make()
        config._attn_implementation = "eager"
        model = cls(config).eval().float()
        randomize(model, torch.float16 if dtype == np.float16 else torch.float32, 1000 + seed)
        model.tie_weights()
        rng = np.random.default_rng(seed)
        with open(f"{sys.argv[1]}/{arch}.bin", "wb") as f:
            f.write(struct.pack("<III", 0x4C475043, len(LENGTHS), VOCAB))
            for n in LENGTHS:
                ids = rng.integers(0, VOCAB, n)
                with torch.no_grad():
                    logits = model(torch.tensor(ids)[None], use_cache=False).logits[0].float().numpy()
                f.write(struct.pack("<I", n) + ids.astype("<i4").tobytes() + logits.astype("<f4").tobytes())
                print(arch, n, "logits", logits.shape, "std", logits.std().round(3))
        write_gguf(f"{sys.argv[1]}/{arch}.gguf", arch, config, model, dtype, kv)


main()
