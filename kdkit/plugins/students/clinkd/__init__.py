"""The student family ``clinkd``: Qwen2-VL and Qwen2.5-VL with exchangeable RoPE variants."""
