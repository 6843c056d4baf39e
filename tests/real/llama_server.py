"""Serve a GGUF file with llama.cpp's OpenAI-compatible server until standard input is closed.

python llama_server.py MODEL.gguf NAME CONTEXT_PER_SLOT SLOTS THREADS

Prints the address once the model is loaded. The end of standard input stops it, so that it never outlives its test.
"""

import sys

import xllamacpp


def main() -> None:
    path, name = sys.argv[1:3]
    context, slots, threads = map(int, sys.argv[3:])
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.model_alias = {name}
    params.hostnames, params.port = ["127.0.0.1"], 0  # the system chooses a free port
    params.n_ctx, params.n_parallel = context * slots, slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.use_jinja = True
    server = xllamacpp.Server(params)
    print(f"listening {server.listening_address}", flush=True)
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
