"""What tests share: reference implementations, small models, checks."""
