"""Pictures of strangers decoded in processes that hold nothing worth having."""
