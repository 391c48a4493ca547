"""Images: read, checked, prepared for a provider and finished for the client."""
