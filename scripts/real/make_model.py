#!/usr/bin/env python3
"""make_model.py OUT.gguf: writes a small llama model with random weights.

What it says is nonsense, but llama-server cannot tell: slots, KV cache, prefill time and usage figures are real. Its
size is a choice: with 6 layers of width 512 (80 MB) one core computes some 900 prompt tokens per second, so that the
difference between a cold and a warm cache is seconds on any machine. The same seed makes the same file everywhere.

Needs: gguf, numpy.
"""

import sys

import gguf
import numpy as np

LAYERS = 6
WIDTH = 512
HEADS = 8
FEED_FORWARD = 3 * WIDTH
CONTEXT = 32768
SEED = 2026
# Small weights keep the activations of an untrained model finite.
SPREAD = 0.02

UNKNOWN, BEGIN, END = 0, 1, 2
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


def vocabulary():
    """Tokens with their types: three control tokens, every byte, and the printable ASCII characters.

    The bytes make any text representable. The characters, and the blank as sentencepiece writes it, keep ordinary
    text at one token per character.
    """
    kind = gguf.TokenType
    tokens = [("<unk>", kind.UNKNOWN), ("<s>", kind.CONTROL), ("</s>", kind.CONTROL)]
    tokens += [(f"<0x{byte:02X}>", kind.BYTE) for byte in range(256)]
    tokens += [("\u2581", kind.NORMAL)]
    tokens += [(chr(code), kind.NORMAL) for code in range(ord("!"), ord("~") + 1)]
    return tokens


def add_hyperparameters(writer):
    """The shape of the network."""
    writer.add_name("ingle-tiny-random")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(CONTEXT)
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)


def add_tokenizer(writer, tokens):
    """A sentencepiece tokenizer without merges worth having: all scores are equal."""
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_unk_token_id(UNKNOWN)
    writer.add_bos_token_id(BEGIN)
    writer.add_eos_token_id(END)
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)


def add_weights(writer, vocabulary_size):
    """Random matrices under the names that llama.cpp looks for; norms that change nothing."""
    random = np.random.default_rng(SEED)

    def matrix(name, rows, columns):
        values = random.standard_normal((rows, columns), dtype=np.float32) * np.float32(SPREAD)
        writer.add_tensor(f"{name}.weight", values)

    def norm(name):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, dtype=np.float32))

    matrix("token_embd", vocabulary_size, WIDTH)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        norm(f"{block}.attn_norm")
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"{block}.{part}", WIDTH, WIDTH)
        norm(f"{block}.ffn_norm")
        matrix(f"{block}.ffn_gate", FEED_FORWARD, WIDTH)
        matrix(f"{block}.ffn_up", FEED_FORWARD, WIDTH)
        matrix(f"{block}.ffn_down", WIDTH, FEED_FORWARD)
    norm("output_norm")
    matrix("output", vocabulary_size, WIDTH)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    writer = gguf.GGUFWriter(sys.argv[1], "llama")
    tokens = vocabulary()
    add_hyperparameters(writer)
    add_tokenizer(writer, tokens)
    add_weights(writer, len(tokens))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
