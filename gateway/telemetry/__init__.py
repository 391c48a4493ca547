"""What operators see: metrics and logs. A leaf that every other room may call."""
