"""What several adapters need: polling, progress, results, webhook signatures."""
