#!/usr/bin/env python3
"""Reference logits: transformers' fp32 load of a GGUF file, as frames for `compare` on stdout.

    reference.py MODEL.gguf N_TOKENS WINDOW TEXT...      needs torch, transformers, gguf, accelerate (docs/TESTING.md)

Each text gives an equal share of the tokens, in windows of WINDOW; ids come from the model's own tokenizer file through
`capstan tokenize` (CAPSTAN_BIN), so that both sides see the same ids whatever transformers makes of the tokenizer.
"""
import json
import os
import struct
import subprocess
import sys

import numpy as np
import torch
import transformers

torch.cuda.is_current_stream_capturing = lambda: False  # a CUDA build of torch asks a driver that is not there
torch.set_num_threads(int(os.environ.get("THREADS", "2")))


def tokenize(model, text, *flags):
    return json.loads(subprocess.run([os.environ["CAPSTAN_BIN"], "tokenize", "-m", model, "--json", *flags], input=text,
                                     stdout=subprocess.PIPE, check=True).stdout)


def windows(model, texts, total, window):
    share = total // len(texts)
    bos = tokenize(model, b"")  # what the model puts in front of a text: BOS or nothing
    for path in texts:
        ids = tokenize(model, open(path, "rb").read(), "--no-special")
        print(f"{path}: {len(ids)} tokens, {share} wanted", file=sys.stderr)
        assert len(ids) >= share, f"{path} is too short"
        for at in range(0, max(window, share), window):
            w = bos + ids[at:at + window]
            yield w[:window]


def main():
    model, total, window, texts = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    folder, name = os.path.split(os.path.abspath(model))
    net = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32,
                                                            attn_implementation="eager").eval()
    out = sys.stdout.buffer
    for ids in windows(model, texts, total, window):
        ids = np.array(ids, dtype="<i4")
        with torch.no_grad():
            hidden = net.model(torch.tensor(ids.astype(np.int64))[None], use_cache=False).last_hidden_state[0]
            out.write(struct.pack("<I", len(ids)) + ids.tobytes())
            for at in range(0, len(ids), 128):
                logits = net.lm_head(hidden[at:at + 128]).float().numpy().astype("<f4")
                out.write(logits.tobytes())
    out.flush()


main()
