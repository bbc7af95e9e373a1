"""Language models behind one interface: transformers, vLLM, any OpenAI-compatible server, scripted."""
