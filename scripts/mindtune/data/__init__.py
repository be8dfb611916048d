"""Instructions and pictures: from LLaVA-Instruct to MindSpeed-MM's mllm format."""
