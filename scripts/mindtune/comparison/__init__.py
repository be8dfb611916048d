"""What the fine-tuning did: answers before and after, side by side and summed up."""
