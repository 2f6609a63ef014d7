"""The only package that imports ray, vllm and deepspeed."""
