"""llama.cpp: its converter writes a merged model as one GGUF file, its server opens it."""
