"""llama.cpp's own server on a free port, with one model: python server.py FILE.gguf

Prints its address and serves until its input ends. The wheels of xllamacpp hold that server ready-made.
"""

import sys

import xllamacpp


def main() -> None:
    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.port, params.n_parallel, params.n_ctx = 0, 2, 4096
    # As exact as torch on a CPU: by default keys and values are kept in fp16, and attention computes with it.
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
